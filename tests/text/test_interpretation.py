"""Translations of a part, their report, and plots of attention."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau import Learner, TrainingOptions
from flambeau.errors import InputError
from flambeau.task import StepContext
from flambeau_text import corpus_score
from flambeau_text.decoding.search import search
from flambeau_text.translation.attention_plot import plot_attention
from flambeau_text.translation.demo import dates_data
from flambeau_text.translation.interpretation import scores_by_length
from flambeau_text.translation.predictions import DetailedTranslation
from flambeau_text.translation.scores import sentence_bleu
from flambeau_text.translation.translate import translate


@pytest.fixture(scope="module")
def learner() -> Learner:
    choices = {
        "device": "cpu", "probe": "off", "precision": "fp32", "batch_size": 16, "num_threads": 1,
        "model_config": {"embedding_dim": 24, "hidden_size": 24},
    }  # fmt: skip
    run = Learner(
        dates_data(150, 0), choices=choices, quiet=True, training=TrainingOptions(doctor=False)
    )
    run.fit(2)
    return run


def test_scores_are_of_free_running_translations(learner: Learner) -> None:
    found = learner.interpret("test")
    figures = found.predictions.summary.samples
    texts, references = figures["predicted_text"], figures["target_text"]
    assert texts == [str(prediction) for prediction in learner.predict(learner.data.raw("test"))]
    assert references == learner.data.references("test")  # type: ignore[attr-defined]
    evaluated = learner.evaluate("test")
    assert found.scores.keys() == evaluated.keys() | {"ter"}
    for name, value in evaluated.items():
        # The sums of losses differ in their order, in fp32.
        assert found.scores[name] == pytest.approx(value, rel=1e-5), name
    assert found.scores["bleu"] == corpus_score(texts, references).value
    printed = str(found)
    assert "15 test samples" in printed
    for name in ("bleu", "chrf", "ter"):
        assert corpus_score(texts, references, name).signature in printed
    rows = scores_by_length(found.predictions.summary)
    assert sum(row[1] for row in rows) == 15  # type: ignore[misc]


def test_figures_of_each_sentence(learner: Learner) -> None:
    found = learner.interpret("valid")
    figures = found.predictions.summary.samples
    details = translate(learner.predictor(), learner.data.raw("valid"))
    for at, each in enumerate(details):
        assert figures["predicted_text"][at] == each.text
        assert (*figures["tokens"][at], "<eos>") == each.tokens
        assert float(figures["score"][at]) == pytest.approx(each.score, abs=1e-5)
        assert int(figures["n_source"][at]) == len(each.source_tokens)
        torch.testing.assert_close(figures["attention"][at], each.attention)
        assert float(figures["bleu"][at]) == sentence_bleu(each.text, figures["target_text"][at])
    # The loss of a sentence alone, from its logits.
    task, model = learner.task, learner.model
    batch = learner.built.dataset("valid").batch(torch.tensor([3]))  # type: ignore[attr-defined]
    with torch.no_grad():
        forced = task.forward(model.eval(), batch, StepContext(values={"teacher_forcing": 1.0}))
        logits, targets = forced.output(forced.features)[0], forced.targets[0]
    smoothed = -logits.log_softmax(1)
    reference = smoothed.gather(1, targets.unsqueeze(1)).squeeze(1)
    others = smoothed[:, 1:].mean(dim=1)  # padding is never predicted
    expected = (1 - task.label_smoothing) * reference + task.label_smoothing * others  # type: ignore[attr-defined]
    row = found.predictions.ids.tolist().index(int(batch.indices[0]))  # type: ignore[index]
    assert float(figures["loss"][row]) == pytest.approx(float(expected.mean()), rel=1e-4)
    assert int(figures["n_tokens"][row]) == len(targets)


def test_the_report_has_all_sections(learner: Learner, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = learner.interpret("valid")
    text = found.report(tmp_path / "report.html").read_text(encoding="utf-8")
    for heading in (
        "Translation", "Worst translations", "Best translations", "Attention", "Teacher forcing",
        "Plan", "Data", "Highest losses",
    ):  # fmt: skip
        assert f">{heading}<" in text, heading
    assert found.signatures["bleu"] in text
    worst = min(range(15), key=lambda at: float(found.predictions.figure("bleu")[at]))
    assert found.predictions.summary.samples["predicted_text"][worst] in text
    assert "<svg" in text


def test_a_report_searches_once(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    from flambeau_text.translation import task

    searched: list[int] = []

    def counted(model: Any, source: Any, *given: Any) -> Any:
        searched.append(len(source))
        return search(model, source, *given)

    monkeypatch.setattr(task, "search", counted)
    learner.interpret("test").page()
    assert sum(searched) == 15


def test_plots_of_attention(learner: Learner, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = translate(learner.predictor(), learner.data.raw("valid")[:2])
    figure = plot_attention(found, tmp_path / "attention.png")
    assert (tmp_path / "attention.png").stat().st_size > 5_000
    axes = figure.axes
    assert len(axes) == 2
    labels = [label.get_text() for label in axes[0].get_xticklabels()]
    assert labels == list(found[0].source_tokens)
    image = torch.as_tensor(axes[0].images[0].get_array().data)
    torch.testing.assert_close(image, found[0].attention)
    with pytest.raises(InputError, match="no attention to plot"):
        plot_attention(DetailedTranslation("a", 0.0))
