"""A step without targets is skipped and counted; an epoch without any is refused."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import SWA, Batch, Callback, Learner, Task, TensorData, TrainingOptions
from flambeau.data.split import Split
from flambeau.errors import FlambeauWarning, InputError
from flambeau.task import Classification, Regression
from flambeau.training.optim.precision import Precision
from flambeau.training.update import Update

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


@pytest.mark.parametrize("nonfinite", ["raise", "skip", "off"])
def test_an_epoch_without_targets_is_refused(nonfinite: str) -> None:
    run = learner(labels(lambda row: row < 8), ignoring(), training={"nonfinite": nonfinite})
    before = run.model.weight.clone()  # type: ignore[union-attr,operator]
    with pytest.raises(InputError, match=r"Epoch 1 trained on nothing.* 2 steps"):
        run.fit(1)
    assert torch.equal(run.model.weight, before)  # type: ignore[arg-type]


def test_an_epoch_whose_weights_are_all_0_is_refused() -> None:
    weights = torch.tensor([0.0] * 8 + [1.0] * 4)
    run = learner(torch.arange(12.0), Regression(), sample_weight=weights)
    with pytest.raises(InputError, match=r"Epoch 1 trained on nothing.* 2 steps"):
        run.fit(1)


class CountsNothing(Task):
    def __init__(self, weight: Any) -> None:
        self.weight = weight

    def loss(self, outputs: Tensor, batch: Batch) -> Any:
        return (outputs * 0).sum(), self.weight


@pytest.mark.parametrize("weight", [0, 0.0, torch.tensor(0.0)])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_loss_that_counts_nothing_is_refused(accumulate: int, weight: Any) -> None:
    run = learner(torch.arange(12), CountsNothing(weight), training={"accumulate": accumulate})
    with pytest.raises(InputError, match=r"on nothing|have the total weight 0"):
        run.fit(1)


class Squares(Task):
    """A loss of its own, whose weight is a number or a tensor."""

    def __init__(self, *, on_host: bool) -> None:
        self.on_host = on_host

    def loss(self, outputs: Tensor, batch: Batch) -> Any:
        weights = batch.sample_weight
        assert weights is not None
        losses = (outputs[:, 0] - batch.target.flatten()).square()
        total = weights.sum()
        return (losses * weights).sum(), float(total) if self.on_host else total


class Weights(Callback):
    def __init__(self) -> None:
        self.after: list[Tensor] = []

    def on_step_end(self, state: Any) -> None:
        self.after.append(state.model.weight.detach().clone())


def weighted_batches(keep: Callable[[int], bool]) -> list[Batch]:
    """Eight batches of two; the weights are 0 where ``keep`` is false."""
    x = torch.randn(16, 3, generator=torch.Generator().manual_seed(1))
    y = x @ torch.tensor([[1.0], [2.0], [3.0]])
    return [
        Batch(
            {"input": x[2 * i : 2 * i + 2]},
            {"target": y[2 * i : 2 * i + 2]},
            sample_weight=torch.full((2,), float(keep(i))),
        )
        for i in range(8)
    ]


def fitted(batches: list[Batch], task: Task, **training: Any) -> tuple[Learner, Weights]:
    torch.manual_seed(0)
    watch = Weights()
    run = Learner(
        TensorData.from_loaders(batches),
        nn.Linear(3, 1),
        task=task,
        choices={"device": "cpu", "probe": "off", "optimizer": "adamw", "weight_decay": 0.1},
        training=TrainingOptions(doctor=False, **training),
        callbacks=[watch],
        quiet=True,
    )
    run.fit(1, lr=0.1, schedule="constant")
    return run, watch


TASKS = [Regression(["y"]), Squares(on_host=True), Squares(on_host=False)]


@pytest.mark.parametrize("task", TASKS, ids=["promised", "number", "tensor"])
@pytest.mark.parametrize("nonfinite", ["raise", "skip", "off"])
def test_a_step_of_weight_0_is_skipped_and_counted(task: Task, nonfinite: Any) -> None:
    """Adam's momentum and weight decay would move the weights without any gradient."""
    empty = (2, 5)
    with pytest.warns(FlambeauWarning, match=r"\[steps-without-targets\] 2 of the 8 steps"):
        run, watch = fitted(weighted_batches(lambda i: i not in empty), task, nonfinite=nonfinite)
    after = watch.after
    assert [i for i in range(1, 8) if torch.equal(after[i], after[i - 1])] == list(empty)
    [row] = run.history.rows
    assert row["steps_without_targets"] == 2
    assert [i for i, loss in enumerate(run.history.step_losses) if math.isnan(loss)] == list(empty)
    assert math.isfinite(row["train_loss"])  # type: ignore[arg-type]
    kept = [batch for i, batch in enumerate(weighted_batches(lambda i: True)) if i not in empty]
    other, _ = fitted(kept, task, nonfinite=nonfinite)
    assert torch.equal(run.model.weight, other.model.weight)  # type: ignore[arg-type]
    assert row["train_loss"] == other.history.rows[0]["train_loss"]


@pytest.mark.parametrize("task", TASKS, ids=["promised", "number", "tensor"])
def test_only_a_whole_accumulated_step_is_skipped(task: Task) -> None:
    """Micro-batches 2, 4 and 5 have weight 0: the step of 4 and 5 is skipped, not that of 2."""
    with pytest.warns(FlambeauWarning, match=r"1 of the 4 steps"):
        run, watch = fitted(weighted_batches(lambda i: i not in (2, 4, 5)), task, accumulate=2)
    after = watch.after
    assert [i for i in range(1, 4) if torch.equal(after[i], after[i - 1])] == [2]
    assert [math.isnan(loss) for loss in run.history.step_losses] == [False, False, True, False]


def test_a_skipped_step_does_not_count_in_the_average() -> None:
    with pytest.warns(FlambeauWarning, match="steps-without-targets"):
        run, watch = fitted(
            weighted_batches(lambda i: i < 7), Squares(on_host=False), average=SWA(0.5)
        )
    mean = torch.stack(watch.after[4:7]).mean(0)
    torch.testing.assert_close(run.model.weight.detach(), mean)  # type: ignore[union-attr,operator]


def test_a_mask_on_the_device_skips_the_same_step() -> None:
    """The form of an accelerator, where the host does not read the weight."""
    for fused in (False, True):
        model = nn.Linear(3, 1)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=fused)
        precision = Precision("fp32", torch.device("cpu"))
        for nonfinite in ("raise", "skip", "off"):
            update = Update(model, {"main": optimizer}, precision, nonfinite=nonfinite)
            model(torch.ones(2, 3)).sum().backward()
            update(None)
            before = copy.deepcopy((model.state_dict(), optimizer.state_dict()["state"]))
            (model(torch.ones(2, 3)).sum() * 0).backward()
            update.mask(torch.tensor(True))
            update(None)
            assert bool(update.was_skipped())
            torch.testing.assert_close(model.state_dict(), before[0], rtol=0, atol=0)
            if fused:
                torch.testing.assert_close(optimizer.state_dict()["state"], before[1])
            model(torch.ones(2, 3)).sum().backward()
            update(None)
            assert not bool(update.was_skipped())
            assert not torch.equal(model.weight, before[0]["weight"])


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


def test_measurements_of_the_rate_leave_out_skipped_steps() -> None:
    """The losses of the other steps decide, and only the fit warns."""
    torch.manual_seed(0)
    run = Learner(
        TensorData.from_loaders(weighted_batches(lambda i: i not in (0, 3))),
        nn.Linear(3, 1),
        task=Squares(on_host=False),
        choices={"device": "cpu", "probe": "off"},
        training=TrainingOptions(doctor=False),
        quiet=True,
    )
    found = run.lr_find()
    assert found.runs
    assert all(math.isfinite(loss) for each in found.runs for loss in each.losses[:8])
    with pytest.warns(FlambeauWarning, match="steps-without-targets"):
        run.fit(1)
