"""A sample of weight 0 counts for nothing; a part whose weights are all 0 is refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Learner, Task, TensorData, TrainingOptions
from flambeau.data.split import Split
from flambeau.errors import FlambeauWarning, InputError
from flambeau.task import Classification, MultiLabel, Regression
from flambeau.task.classification_metrics import Accuracy
from flambeau.task.task import StepContext

N, N_TRAIN = 12, 8
X = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(N) % 2
NO_VALID = torch.tensor([1.0] * N_TRAIN + [0.0] * (N - N_TRAIN))
TASKS: dict[str, tuple[Task, Tensor]] = {
    "classification": (
        Classification(["a", "b"], metrics=("accuracy", "macro_f1", "balanced_accuracy")),
        LABELS,
    ),
    "multi_label": (
        MultiLabel(["a", "b"], metrics=("micro_f1", "macro_f1", "exact_match")),
        nn.functional.one_hot(LABELS).float(),
    ),
    "regression": (Regression(["y", "z"], metrics=("mae", "rmse", "r2")), X[:, :2] * 2),
}


def learner(task: Task, y: Tensor, **arguments: Any) -> Learner:
    split = Split.from_indices(range(N_TRAIN), range(N_TRAIN, N))
    data = TensorData.from_tensors(X, y, split=split, **arguments)
    options = TrainingOptions(doctor=False)
    return Learner(data, nn.Linear(3, task.n_outputs or 2), task=task, training=options, quiet=True)


def from_loader(task: Task, y: Tensor, weights: Tensor) -> Learner:
    parts = [
        Batch({"input": X[rows]}, {"target": y[rows]}, sample_weight=weights[rows])
        for rows in (slice(0, N_TRAIN), slice(N_TRAIN, N))
    ]
    data = TensorData.from_loaders(parts[:1], parts[1:])
    options = TrainingOptions(doctor=False)
    return Learner(data, nn.Linear(3, task.n_outputs or 2), task=task, training=options, quiet=True)


@pytest.mark.parametrize("kind", TASKS)
def test_a_part_of_weight_0_is_refused_by_evaluate(kind: str) -> None:
    task, y = TASKS[kind]
    message = r"undefined, because the samples of this part have the total weight 0"
    with pytest.raises(InputError, match=message):
        learner(task, y, sample_weight=NO_VALID).evaluate()
    with pytest.raises(InputError, match=message):
        from_loader(task, y, NO_VALID).evaluate()
    with pytest.raises(InputError, match=message):
        learner(task, y, sample_weight=NO_VALID).interpret()


def test_a_valid_part_of_weight_0_ends_a_run() -> None:
    task, y = TASKS["regression"]
    run = learner(task, y, sample_weight=NO_VALID)
    with pytest.raises(InputError, match=r"all 4 validation samples is 0"):
        run.fit(1)
    assert not run.history.step_losses  # before the first step
    with pytest.raises(InputError, match=r"the validation samples have the total weight 0"):
        from_loader(task, y, NO_VALID).fit(1)


class Declines(Task):
    """Every sample counts once."""

    ignores_sample_weight = True

    def loss(self, outputs: Any, batch: Batch) -> Any:
        return nn.functional.cross_entropy(outputs, batch.target, reduction="sum"), len(batch)


def test_a_task_that_declines_weights_may_have_weights_of_0() -> None:
    run = learner(Declines(), LABELS, sample_weight=NO_VALID)
    run.fit(1, lr=0.1)
    assert math.isfinite(run.evaluate()["loss"])


def test_a_valid_part_whose_targets_are_ignored_is_refused() -> None:
    y = torch.where(NO_VALID > 0, LABELS, -100)
    run = learner(Classification(["a", "b"], ignore_index=-100), y)
    with pytest.raises(InputError, match=r"every target is ignored \(ignore_index\)"):
        run.evaluate()


def test_a_metric_that_counts_nothing_is_named() -> None:
    """AUROC needs both classes; the other score is defined."""
    task = Classification(["a", "b"], metrics=("accuracy", "auroc"))
    run = learner(task, torch.where(NO_VALID > 0, LABELS, 1))
    with pytest.warns(FlambeauWarning, match=r"\[undefined-score\] auroc cannot be computed"):
        scores = run.evaluate()
    assert math.isnan(scores["auroc"])
    assert 0 <= scores["accuracy"] <= 1
    one = {"seen": Accuracy(ignore_index=1)}
    run = learner(Classification(["a", "b"], metrics=one), torch.where(NO_VALID > 0, LABELS, 1))
    with pytest.warns(FlambeauWarning, match=r"\[undefined-score\] seen cannot"):
        run.evaluate()


@pytest.mark.parametrize("kind", TASKS)
def test_a_nan_output_of_weight_0_does_not_count(kind: str) -> None:
    """The scores are those of the other rows; with a weight above 0 they are nan."""
    task, y = TASKS[kind]
    outputs = torch.randn(N, 2, generator=torch.Generator().manual_seed(1))
    outputs[3] = torch.nan
    weights = torch.arange(N) % 3 + 0.5
    weights[3] = 0.0

    def scores(rows: Any, weights: Tensor) -> dict[str, float]:
        batch = Batch({"input": X[rows]}, {"target": y[rows]}, sample_weight=weights[rows])
        return task.evaluate(Fixed(outputs[rows]), [batch], StepContext("evaluate"))

    others = torch.arange(N) != 3
    found = scores(slice(None), weights)
    assert found == pytest.approx(scores(others, weights))
    weights[3] = 1e-3
    assert all(map(math.isnan, scores(slice(None), weights).values()))


class Fixed(nn.Module):
    def __init__(self, outputs: Tensor) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.outputs


def test_a_nan_output_of_an_ignored_target_does_not_count() -> None:
    task = Classification(
        ["a", "b"], ignore_index=-100, metrics=("accuracy", "macro_f1", "balanced_accuracy")
    )
    outputs = torch.randn(2, 2, 5, generator=torch.Generator().manual_seed(1))
    y = torch.randint(0, 2, (2, 5), generator=torch.Generator().manual_seed(2))
    y[0, 3] = -100
    expected = task.evaluate(
        Fixed(outputs), [Batch({"input": X[:2]}, {"target": y})], StepContext("evaluate")
    )
    outputs[0, :, 3] = torch.nan
    found = task.evaluate(
        Fixed(outputs), [Batch({"input": X[:2]}, {"target": y})], StepContext("evaluate")
    )
    assert found == expected
    outputs[0, 0, 2] = torch.nan
    found = task.evaluate(
        Fixed(outputs), [Batch({"input": X[:2]}, {"target": y})], StepContext("evaluate")
    )
    assert all(map(math.isnan, found.values()))
