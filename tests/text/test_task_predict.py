"""Translation: ``forward`` is teacher-forced at every stage, and ``predict`` alone searches."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from flambeau import Learner, Predictor, TrainingOptions
from flambeau.task.task import Stage, StepContext
from flambeau_text import (
    Beam,
    Greedy,
    TranslationData,
    TranslationOptions,
    corpus_score,
)
from flambeau_text.translation import task as task_module
from flambeau_text.translation.demo import dates_data
from flambeau_text.translation.task import TeacherForcedOutput, TranslationTask

CHOICES: dict[str, Any] = {
    "device": "cpu",
    "probe": "off",
    "precision": "fp32",
    "batch_size": 16,
    "model_config": {"embedding_dim": 24, "hidden_size": 24, "dropout": 0.0},
    "num_threads": 1,
}
BEAM = Beam(size=3)


def learner(**choices: Any) -> Learner:
    torch.manual_seed(0)
    given = {**CHOICES, "decoding": BEAM, **choices}
    return Learner(
        dates_data(120, 0), choices=given, training=TrainingOptions(doctor=False), quiet=True
    )


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the strategies of all searches, in order."""
    found: list[str] = []
    plain = task_module.search

    def counted(model: Any, source: Any, mask: Any, strategy: Any, indices: Any) -> Any:
        found.append(type(strategy).__name__)
        return plain(model, source, mask, strategy, indices)

    monkeypatch.setattr(task_module, "search", counted)
    return found


def test_each_batch_is_searched_once(searches: list[str], tmp_path: Path) -> None:
    run = learner()
    n_batches = len(list(run.built.batches("valid")))
    run.fit(2)
    assert searches == ["Greedy"] * (2 * n_batches)
    searches.clear()
    scores = run.evaluate()
    assert searches == ["Beam"] * n_batches
    searches.clear()
    found = run.interpret().predictions.scores
    assert {name: found[name] for name in scores} == pytest.approx(scores, rel=1e-6)
    assert searches == ["Beam"] * n_batches
    texts = run.data.raw("valid")
    loaded = Predictor.load(run.export(tmp_path / "model"), batch_size=16)
    for predictor in (run.predictor(), loaded):
        searches.clear()
        predictor.predict(texts)
        assert searches == ["Beam"] * -(-len(texts) // 16)


def test_before_the_first_step_evaluate_uses_its_own_search(searches: list[str]) -> None:
    """And after it: the number of steps decides nothing."""
    run = learner()
    assert "chrf" in run.evaluate()
    run.fit(1)
    assert set(searches) == {"Beam", "Greedy"}
    searches.clear()
    assert "chrf" in run.evaluate()
    assert set(searches) == {"Beam"}


def test_fit_auto_times_a_greedy_search(searches: list[str]) -> None:
    learner().fit_auto(minutes=0.03)
    assert set(searches) == {"Greedy"}


@pytest.fixture(scope="module")
def fitted() -> Learner:
    run = learner()
    run.fit(5, lr=0.02)
    return run


@pytest.mark.parametrize(("stage", "strategy"), [("valid", Greedy()), ("evaluate", BEAM)])
def test_bleu_is_that_of_predictions_decoded_by_hand(
    stage: Stage, strategy: Any, fitted: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = fitted
    step = 7 if stage == "evaluate" else 0  # the stage decides, not the step
    task, model, context = run.task, run.model.eval(), StepContext(stage, step=step)
    with torch.no_grad():
        scores = task.evaluate(model, run.built.batches("valid"), context)
        rows = {
            int(index): row
            for batch in run.built.batches("valid")
            for index, row in zip(
                batch.indices,  # type: ignore[arg-type]
                task.predict(model, batch, context)["tokens"].tolist(),
                strict=True,
            )
        }
    end, vocabulary = 3, task.target.ids_to_tokens  # type: ignore[attr-defined]
    texts = [
        task.target.join(vocabulary(row[: row.index(end)] if end in row else row))  # type: ignore[attr-defined]
        for row in (rows[int(index)] for index in run.data.split.valid)
    ]
    wanted = corpus_score(texts, run.data.references("valid"))
    assert scores["bleu"] == pytest.approx(wanted.value, abs=1e-9)
    assert 5 < scores["bleu"] < 95
    assert ("chrf" in scores) is (stage == "evaluate")
    monkeypatch.setattr(task, "decoding", strategy)
    assert [each.text for each in run.predict(run.data.raw("valid"))] == texts


def test_forward_is_teacher_forced_at_every_stage(fitted: Learner) -> None:
    """With the reference as input except in training; so the loss is that of ``evaluate``."""
    run = fitted
    task, model = run.task, run.model.eval()
    [*batches] = run.built.batches("valid")
    expected = run.evaluate()["loss"]
    values = {"teacher_forcing": 0.0}
    losses: dict[str, float] = {}
    with torch.no_grad():
        for stage in ("train", "valid", "evaluate", "predict"):
            sums = [0.0, 0.0]
            for batch in batches:
                outputs = task.forward(model, batch, StepContext(stage, values=values))
                assert isinstance(outputs, TeacherForcedOutput)
                for index, value in enumerate(task.loss(outputs, batch)):
                    sums[index] += float(value)
            losses[stage] = sums[0] / sums[1]
    assert losses["valid"] == losses["evaluate"] == losses["predict"]
    assert losses["evaluate"] == pytest.approx(expected, rel=1e-6)
    assert losses["train"] != losses["evaluate"]


def test_a_summary_shows_the_layers_of_a_search() -> None:
    """The output layer too, which the teacher-forced pass leaves to the loss."""
    rows = {row.name: row for row in learner().summary().layers}
    assert rows["output"].calls > 1


def test_the_task_says_which_scores_are_better() -> None:
    modes = TranslationTask.score_modes(cast(Any, None))
    assert {name for name, mode in modes.items() if mode == "min"} == {"loss", "perplexity"}
    assert modes["bleu"] == modes["chrf"] == modes["free_running_overlap"] == "max"


@pytest.mark.parametrize("lowercase", [True, False])
def test_scores_compare_references_in_the_case_of_the_target(
    lowercase: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []
    real = task_module.corpus_scores

    def scores(hypotheses: Any, references: Any, names: Any, tokenizer: Any) -> Any:
        compared.extend(references)
        return real(hypotheses, references, names, tokenizer)

    monkeypatch.setattr(task_module, "corpus_scores", scores)
    pairs = [(f"Word{n} A", f"Wort{n} EIN") for n in range(20)]
    data = TranslationData.from_pairs(pairs, options=TranslationOptions(lowercase=lowercase))
    run = Learner(data, choices=CHOICES, training=TrainingOptions(doctor=False), quiet=True)
    run.evaluate()
    wanted = [target for _, target in (pairs[row] for row in data.split.valid.tolist())]
    assert sorted(compared) == sorted(t.lower() if lowercase else t for t in wanted)
