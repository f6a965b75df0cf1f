"""A run that trains on nothing is refused, with the samples where they are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Learner, Task, TensorData, TrainingOptions
from flambeau.data.split import Split
from flambeau.errors import InputError, NonFiniteError
from flambeau.task import Classification, Regression

N = 12
IGNORED = -100


def learner(y: Tensor, task: Task, **more: Any) -> Learner:
    """Rows 0 to 7 are the train part, in batches of 4."""
    x = torch.randn(N, 3, generator=torch.Generator().manual_seed(0))
    split = Split.from_indices(range(8), range(8, N))
    weights = more.pop("sample_weight", None)
    data = TensorData.from_tensors(x, y, split=split, sample_weight=weights)
    options = TrainingOptions(**{"doctor": False, **more.pop("training", {})})
    choices = {"batch_size": 4, "lr": 0.01, **more.pop("choices", {})}
    model = nn.Linear(3, task.n_outputs or 2)
    return Learner(data, model, task=task, choices=choices, training=options, quiet=True)


def labels(ignored: Callable[[int], bool]) -> Tensor:
    return torch.tensor([IGNORED if ignored(row) else row % 2 for row in range(N)])


def ignoring() -> Classification:
    return Classification(["a", "b"], ignore_index=IGNORED)


def test_an_epoch_without_targets_names_its_samples() -> None:
    run = learner(labels(lambda row: row < 8), ignoring())
    before = run.model.weight.clone()  # type: ignore[union-attr,operator]
    with pytest.raises(NonFiniteError, match=r"no sample has a target.*weight 0") as caught:
        run.fit(1)
    samples = str(caught.value).split("Samples of the step: ")[1].split(".")[0]
    assert len(set(samples.split(", "))) == 4
    assert set(samples.split(", ")) <= set(map(str, range(8)))
    assert torch.equal(run.model.weight, before)  # type: ignore[arg-type]


@pytest.mark.parametrize("nonfinite", ["skip", "off"])
def test_without_the_guard_the_epoch_is_refused(nonfinite: str) -> None:
    run = learner(labels(lambda row: row < 8), ignoring(), training={"nonfinite": nonfinite})
    with pytest.raises(InputError, match=r"Epoch 1 trained on nothing.* 2 steps"):
        run.fit(1)


def test_a_step_of_weight_zero_names_its_samples() -> None:
    weights = torch.tensor([0.0] * 7 + [1.0] * 5)
    run = learner(torch.arange(12.0), Regression(), sample_weight=weights)
    with pytest.raises(InputError, match=r"Step \d would train on nothing: none of its 4 samples"):
        run.fit(1)


class CountsNothing(Task):
    def __init__(self, weight: Any) -> None:
        self.weight = weight

    def loss(self, outputs: Tensor, batch: Batch) -> Any:
        return (outputs * 0).sum(), self.weight


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_counts_nothing_is_refused(accumulate: int) -> None:
    run = learner(torch.arange(12), CountsNothing(0.0), training={"accumulate": accumulate})
    with pytest.raises((InputError, NonFiniteError), match=r"no sample has a target|on nothing"):
        run.fit(1)


def test_a_micro_batch_without_targets_is_no_fault() -> None:
    """Half of the samples are ignored; with accumulation each step has some that are not."""
    targets = labels(lambda row: row in (0, 1, 2, 3, 4))
    run = learner(targets, ignoring(), choices={"batch_size": 1}, training={"accumulate": 8})
    run.fit(2)
    assert all(map(math.isfinite, run.history.step_losses))


def test_the_doctor_names_samples_without_a_target() -> None:
    run = learner(labels(lambda row: row in (2, 5)), ignoring(), choices={"batch_size": 8})
    [finding] = [f for f in run.doctor().findings if f.code == "no-target"]
    assert "2 of the first 8 samples have no target" in finding.what
    assert finding.what.endswith(("2 and 5.", "5 and 2.", "2, 5.", "5, 2."))
    assert finding.severity == "warning"
    none = learner(labels(lambda row: False), ignoring())
    assert "no-target" not in none.doctor().codes


def test_a_sample_weight_of_zero_is_no_finding() -> None:
    weights = torch.tensor([0.0] * 3 + [1.0] * 9)
    run = learner(labels(lambda row: False), ignoring(), sample_weight=weights)
    assert "no-target" not in run.doctor().codes
