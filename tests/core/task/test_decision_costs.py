"""``Classification(costs=…)``: the threshold with the lowest cost, against a search over all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Learner, Predictor, TensorData, TrainingOptions
from flambeau.data.split import Split
from flambeau.errors import ArgumentError, InputError
from flambeau.task import AUROC, Accuracy, Classification, SklearnMetric
from flambeau.task.combined import CombinedTask
from flambeau.task.decision_costs import best_threshold, ideal_threshold, with_threshold
from flambeau.task.task import StepContext

COSTS = {"false_positive": 1.0, "false_negative": 5.0}
N = 200
DRAWS = torch.Generator().manual_seed(0)
X = torch.randn(N, 3, generator=DRAWS, dtype=torch.float64)
Y = (X[:, 0] + torch.randn(N, generator=DRAWS, dtype=torch.float64) > 0.8).long()
WEIGHTS = torch.rand(N, generator=DRAWS, dtype=torch.float64) + 0.1


class Fixed(nn.Module):
    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs[: len(x)]


def cost(p: Any, y: Any, threshold: float, w: Any) -> float:
    positive = np.asarray(p) >= threshold
    wrong = 1.0 * (positive & (y == 0)) + 5.0 * (~positive & (y == 1))
    return float(np.average(wrong, weights=w))


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("digits", [12, 1])  # with 1 digit many probabilities are equal
def test_the_threshold_has_the_lowest_cost(weights: Tensor | None, digits: int) -> None:
    p = torch.rand(N, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    p = (0.6 * p + 0.3 * Y).round(decimals=digits)
    found = best_threshold(p, Y, COSTS, weights)
    w = None if weights is None else weights.numpy()
    values = np.unique(p.numpy())
    candidates = [*(values[1:] + values[:-1]) / 2, values[0] / 2, (1 + values[-1]) / 2]
    costs = [cost(p, Y.numpy(), each, w) for each in candidates]
    assert cost(p, Y.numpy(), found, w) == pytest.approx(min(costs), rel=1e-12)
    best = [c for c, value in zip(candidates, costs, strict=True) if value <= min(costs) + 1e-12]
    nearest = min(best, key=lambda each: abs(each - 1 / 6))
    assert found == pytest.approx(nearest, rel=1e-12)


@pytest.mark.parametrize(("label", "always"), [(0, False), (1, True)])
def test_one_class_alone_is_always_predicted(label: int, always: bool) -> None:
    p = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    found = best_threshold(p, torch.full((3,), label), COSTS, None)
    assert bool((p >= found).all()) is always
    assert bool((p >= found).any()) is always
    extreme = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert 0 < best_threshold(extreme, torch.tensor([0, 1]), COSTS, None) < 1


def test_before_a_calibration_the_threshold_is_that_of_true_probabilities() -> None:
    task = Classification(["no", "yes"], costs=COSTS)
    assert task.decision_threshold == ideal_threshold(COSTS) == pytest.approx(1 / 6)
    p = torch.tensor([0.1, 0.16, 0.17, 0.6], dtype=torch.float64)
    logits = torch.stack([torch.zeros(4).double(), (p / (1 - p)).log()], dim=1)
    found = task.decode(logits)
    assert [each.label for each in found] == ["no", "no", "yes", "yes"]
    assert [each.probabilities["yes"] for each in found] == pytest.approx(p.tolist())
    assert found[2].probability == pytest.approx(0.17)
    assert [each.label for each in Classification(["no", "yes"]).decode(logits)][2] == "no"


def test_scores_of_labels_use_the_threshold_and_those_of_probabilities_do_not() -> None:
    from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

    logits = torch.randn(N, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    metrics = {
        "accuracy": Accuracy(),
        "auroc": AUROC(),
        "f1": SklearnMetric(f1_score, "labels", higher_is_better=True),
        "area": SklearnMetric(roc_auc_score, "probabilities", higher_is_better=True),
    }
    task = Classification(["no", "yes"], costs=COSTS, metrics=metrics)
    batches = [Batch({"x": X}, {"y": Y})]
    found = task.evaluate(Fixed(logits), batches, StepContext("evaluate"))
    p = logits.softmax(1)[:, 1].numpy()
    decided = (p >= 1 / 6).astype(int)
    assert found["accuracy"] == pytest.approx(accuracy_score(Y, decided))
    assert found["f1"] == pytest.approx(f1_score(Y, decided))
    assert found["auroc"] == found["area"] == pytest.approx(roc_auc_score(Y, p))
    assert found["cost"] == pytest.approx(cost(p, Y.numpy(), 1 / 6, None))
    assert (
        found["loss"]
        == Classification(["no", "yes"]).evaluate(Fixed(logits), batches, StepContext("evaluate"))[
            "loss"
        ]
    )
    weighted = Classification(["no", "yes"], costs=COSTS, ignore_index=-100)
    y = torch.where(torch.arange(N) % 5 == 0, -100, Y)
    batch = Batch({"x": X}, {"y": y}, sample_weight=WEIGHTS)
    found = weighted.evaluate(Fixed(logits), [batch], StepContext("evaluate"))
    kept = (y >= 0).numpy()
    w = WEIGHTS.numpy()[kept]
    assert found["cost"] == pytest.approx(cost(p[kept], Y.numpy()[kept], 1 / 6, w))
    assert found["accuracy"] == pytest.approx(
        accuracy_score(Y[kept], decided[kept], sample_weight=w)
    )


def test_a_nan_output_is_not_hidden() -> None:
    logits = torch.zeros(3, 2)
    logits[1] = torch.nan
    assert bool(with_threshold(logits, 0.2)[1].isnan().all())
    task = Classification(["no", "yes"], costs=COSTS)
    batch = Batch({"x": X[:3]}, {"y": Y[:3]})
    found = task.evaluate(Fixed(logits), [batch], StepContext("evaluate"))
    assert np.isnan(found["cost"])
    assert np.isnan(found["accuracy"])


def test_calibrate_fits_the_threshold_and_an_export_keeps_it(tmp_path: Path) -> None:
    split = Split.from_indices(range(80), range(80, 120), (), range(120, N))
    data = TensorData.from_tensors(X, Y, split=split, sample_weight=WEIGHTS)
    task = Classification(["no", "yes"], costs=COSTS)
    torch.manual_seed(0)
    options = TrainingOptions(doctor=False)
    run = Learner(data, nn.Linear(3, 2).double(), task=task, training=options, quiet=True)
    run.fit(20, lr=0.05)
    result = run.calibrate()
    rows = slice(120, N)
    logits = run.model(X[rows]).detach() / result.values["temperature"]
    p, w = logits.softmax(1)[:, 1].numpy(), WEIGHTS[rows].numpy()
    threshold = result.values["threshold"]
    y = Y[rows].numpy()
    every = [cost(p, y, each, w) for each in np.concatenate([np.unique(p), [1.1]])]
    assert cost(p, y, threshold, w) == pytest.approx(min(every), rel=1e-12)
    part = result.parts["calibration"]
    assert part.after["cost"] == pytest.approx(min(every), rel=1e-12)
    assert part.after["cost"] <= part.before["cost"]
    labels = [each.label for each in run.predict(X)]
    loaded = Predictor.load(run.export(tmp_path / "export"), model=nn.Linear(3, 2).double())
    assert [each.label for each in loaded.predict(X)] == labels
    assert loaded.task.calibration == result.values
    assert loaded.task.arguments()["costs"] == COSTS
    whole = (run.model(X).detach() / result.values["temperature"]).softmax(1)[:, 1]
    assert labels == ["yes" if yes else "no" for yes in (whole >= threshold).tolist()]
    found = run.interpret("calibration")
    assert found.predicted.tolist() == [int(each >= threshold) for each in p]
    decided = (p >= threshold).astype(int)
    expected = [[w[(y == i) & (decided == j)].sum() for j in (0, 1)] for i in (0, 1)]
    np.testing.assert_allclose(found.confusion().matrix.numpy(), expected, rtol=1e-12)


def test_a_combined_task_has_costs() -> None:
    task = CombinedTask({"a": Classification(["no", "yes"], costs=COSTS)})
    logits = torch.randn(N, 2, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    batches = [Batch({"x": X}, {"a": Y})]
    found = task.evaluate(Fixed(logits), batches, StepContext("evaluate"))
    p = logits.softmax(1)[:, 1].numpy()
    assert found["a_cost"] == pytest.approx(cost(p, Y.numpy(), 1 / 6, None))


def test_arguments_are_checked() -> None:
    with pytest.raises(ArgumentError, match="class_weights and costs both correct"):
        Classification(["no", "yes"], costs=COSTS, class_weights=[1.0, 5.0])
    with pytest.raises(InputError, match="costs are for two classes, but there are 3"):
        Classification(["a", "b", "c"], costs=COSTS)
    with pytest.raises(ArgumentError, match="costs has false_positive, but needs"):
        Classification(["no", "yes"], costs={"false_positive": 1.0})
    with pytest.raises(InputError, match=r"cost false_negative is 0.0, but must be"):
        Classification(["no", "yes"], costs={**COSTS, "false_negative": 0})
    with pytest.raises(ArgumentError, match="calibration has 'threshold', but the task knows"):
        Classification(["no", "yes"], calibration={"temperature": 1.0, "threshold": 0.3})
    with pytest.raises(InputError, match="threshold must be a probability between 0 and 1, not 2"):
        Classification(["no", "yes"], costs=COSTS, calibration={"temperature": 1, "threshold": 2})
    with pytest.raises(ArgumentError, match="class_weights is 'balanced', but must be one number"):
        Classification(["no", "yes"], class_weights="balanced")  # pyright: ignore[reportArgumentType]
    again = Classification(["no", "yes"], costs=COSTS, calibration={"threshold": 0.3})
    assert Classification(**again.arguments()).decision_threshold == 0.3
