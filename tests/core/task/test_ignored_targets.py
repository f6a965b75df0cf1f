"""Metric objects beside a task with ``ignore_index`` leave out what its loss ignores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Classification, Learner, TensorData
from flambeau.data.split import Split
from flambeau.task import (
    AUROC,
    Accuracy,
    AveragePrecision,
    BalancedAccuracy,
    BrierScore,
    LogLoss,
    MacroF1,
    TopKAccuracy,
)
from flambeau.task.function_metrics import SklearnMetric
from flambeau.task.task import StepContext

IGNORED = -100
DRAWS = torch.Generator().manual_seed(0)
OUTPUTS = torch.randn(30, 3, generator=DRAWS)
LABELS = torch.randint(0, 3, (30,), generator=DRAWS)
KEPT = torch.arange(30) % 3 != 0
TARGETS = torch.where(KEPT, LABELS, IGNORED)
OBJECTS = {
    "accuracy": Accuracy(),
    "auroc": AUROC(),
    "average_precision": AveragePrecision(),
    "balanced_accuracy": BalancedAccuracy(),
    "brier": BrierScore(),
    "log_loss": LogLoss(),
    "macro_f1": MacroF1(),
    "top_2": TopKAccuracy(2),
}


class Fixed(nn.Module):
    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs


def scores(metrics: Any, outputs: Tensor, y: Tensor, ignore: int | None) -> dict[str, float]:
    task = Classification(["a", "b", "c"], metrics=metrics, ignore_index=ignore)
    batch = Batch({"input": torch.zeros(len(y), 1)}, {"target": y})
    return task.evaluate(Fixed(outputs), [batch], StepContext("evaluate"))


def test_objects_ignore_the_same_targets_as_the_loss() -> None:
    expected = scores(OBJECTS, OUTPUTS[KEPT], LABELS[KEPT], None)
    assert scores(OBJECTS, OUTPUTS, TARGETS, IGNORED) == pytest.approx(expected)
    names = [name for name in OBJECTS if name != "top_2"]
    found = scores(names, OUTPUTS, TARGETS, IGNORED)
    assert found == pytest.approx({name: expected[name] for name in ["loss", *names]})
    assert all(each.ignore_index is None for each in OBJECTS.values())  # the user's are unchanged


def test_pixels_and_weights() -> None:
    outputs = OUTPUTS.view(5, 6, 3).movedim(2, 1)
    y = TARGETS.view(5, 6)
    right = OUTPUTS.argmax(1) == LABELS
    assert scores({"a": Accuracy()}, outputs, y, IGNORED)["a"] == pytest.approx(
        float(right[KEPT].float().mean())
    )
    weights = torch.arange(30.0)
    task = Classification(["a", "b", "c"], metrics={"a": Accuracy()}, ignore_index=IGNORED)
    batch = Batch({"input": weights[:, None]}, {"target": TARGETS}, sample_weight=weights)
    found = task.evaluate(Fixed(OUTPUTS), [batch], StepContext("evaluate"))["a"]
    assert found == pytest.approx(float((right * weights)[KEPT].sum() / weights[KEPT].sum()))


def test_an_index_of_its_own_takes_precedence() -> None:
    """Class 2 is left out of this metric, and -100 is never predicted."""
    found = scores({"own": Accuracy(ignore_index=2)}, OUTPUTS, TARGETS, IGNORED)
    counted = TARGETS != 2
    right = OUTPUTS.argmax(1) == TARGETS
    assert found["own"] == pytest.approx(float(right[counted].float().mean()))


class Mine(Accuracy):
    pass


def test_subclasses_and_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    expected = float((OUTPUTS.argmax(1) == LABELS)[KEPT].float().mean())
    sklearn = SklearnMetric(metrics.accuracy_score, "labels", higher_is_better=True)
    found = scores({"mine": Mine(), "sk": sklearn}, OUTPUTS, TARGETS, IGNORED)
    assert found["mine"] == found["sk"] == pytest.approx(expected)


def test_a_run_and_a_report_agree() -> None:
    x = torch.randn(30, 4, generator=torch.Generator().manual_seed(1))
    data = TensorData.from_tensors(x, TARGETS, split=Split.from_indices(range(15), range(15, 30)))
    task = Classification(["a", "b", "c"], metrics={"right": Accuracy()}, ignore_index=IGNORED)
    run = Learner(data, nn.Linear(4, 3), task=task, quiet=True)
    model: Any = run.model
    right = model(x[15:]).argmax(1) == LABELS[15:]
    expected = float(right[KEPT[15:]].float().mean())
    assert run.evaluate()["right"] == pytest.approx(expected)
