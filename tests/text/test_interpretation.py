"""Translations of a part, their report, and plots of attention."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from flambeau import Learner, TensorData, TrainingOptions
from flambeau.errors import ArgumentError, InputError
from flambeau_text import corpus_score
from flambeau_text.translation.attention_plot import plot_attention
from flambeau_text.translation.demo import dates_data
from flambeau_text.translation.interpretation import interpret_translations
from flambeau_text.translation.translate import DetailedTranslation


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
    found = interpret_translations(learner, "test")
    texts = [each.text for each in found.translations]
    assert texts == [str(prediction) for prediction in learner.predict(learner.data.raw("test"))]
    assert found.references == learner.data.references("test")  # type: ignore[attr-defined]
    assert found.scores["bleu"] == corpus_score(texts, found.references)
    printed = str(found)
    assert "15 test sentences" in printed
    assert found.scores["chrf"].signature in printed
    rows = found.scores_by_length()
    assert sum(row[1] for row in rows) == 15  # type: ignore[misc]


def test_the_report_has_all_sections(learner: Learner, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = interpret_translations(learner, "valid")
    text = found.report(tmp_path / "report.html").read_text(encoding="utf-8")
    for heading in (
        "Translation", "Worst translations", "Best translations", "Attention", "Teacher forcing",
        "Plan", "Data",
    ):  # fmt: skip
        assert f">{heading}<" in text, heading
    assert found.scores["bleu"].signature in text
    assert "<svg" in text


def test_plots_of_attention(learner: Learner, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    found = interpret_translations(learner, "valid").translations[:2]
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


def test_other_data_raise() -> None:
    x = torch.randn(20, 2)
    run = Learner(TensorData.from_tensors(x, (x[:, 0] > 0).long()), quiet=True)
    with pytest.raises(ArgumentError, match="TensorData"):
        interpret_translations(run)
