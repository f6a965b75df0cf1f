"""A step that is skipped because it is not finite counts for nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from flambeau import (
    EMA,
    SWA,
    Batch,
    Callback,
    Learner,
    Regression,
    Task,
    TensorData,
    TrainingOptions,
)  # fmt: skip
from flambeau.errors import FlambeauWarning, NonFiniteError
from flambeau.training.nonfinite.skipped_steps import carry_after

X = torch.randn(32, 3, generator=torch.Generator().manual_seed(0))
Y = X[:, :1]
BAD = (1, 5)


class Record(Callback):
    def __init__(self) -> None:
        self.weights: list[Tensor] = []

    def on_step_end(self, state: Any) -> None:
        self.weights.append(state.model.weight.detach().clone())


def trained(average: Any, train_step: Any = None) -> tuple[Learner, Record]:
    torch.manual_seed(0)
    batches = [(X[i : i + 4], Y[i : i + 4].clone()) for i in range(0, 32, 4)]
    for index in BAD:
        batches[index][1][0] = torch.inf
    record = Record()
    options = {"train_step": train_step} if train_step else {}
    one = Learner(
        TensorData.from_loaders(batches, [(X, Y)]),
        nn.Linear(3, 1),
        task=Regression(["y"]),
        choices={"device": "cpu", "bn": "train", "probe": "off", "optimizer": "sgd"},
        training=TrainingOptions(average=average, nonfinite="skip", doctor=False, **options),
        callbacks=[record],
        quiet=True,
    )
    one.fit(1, lr=0.1, schedule="constant")
    return one, record


def mean_of(average: EMA | SWA, start: Tensor, weights: list[Tensor]) -> Tensor:
    """The average over the good steps, by hand."""
    if isinstance(average, SWA):
        return torch.stack(weights).mean(0)
    found = start
    for t, weight in enumerate(weights):
        decay = min(average.decay, (1 + t) / (10 + t)) if average.warmup else average.decay
        found = decay * found + (1 - decay) * weight
    return found


def own_step(model: Any, batches: Sequence[Batch], task: Any, step: Any) -> Any:
    from flambeau.training import train_step

    return train_step(model, batches, task, step)


@pytest.mark.filterwarnings("ignore:.nonfinite-updates")
@pytest.mark.parametrize("train_step", [None, own_step])
@pytest.mark.parametrize("average", [EMA(0.9), EMA(0.5, warmup=False), SWA(0.5)])
def test_a_skipped_step_does_not_move_the_average(average: Any, train_step: Any) -> None:
    torch.manual_seed(0)
    start = nn.Linear(3, 1).weight.detach()
    one, record = trained(average, train_step)
    assert torch.equal(record.weights[1], record.weights[0])
    first = 4 if isinstance(average, SWA) else 0
    good = [w for index, w in enumerate(record.weights) if index not in BAD and index >= first]
    torch.testing.assert_close(one.model.weight.detach(), mean_of(average, start, good))


@pytest.mark.parametrize("average", [EMA(0.9), EMA(0.5, warmup=False), SWA(0.5)])
def test_a_flag_on_the_device_masks_the_same_updates(average: Any) -> None:
    """The form of an accelerator, where the host does not read the flag."""
    models = nn.Linear(3, 2), nn.Linear(3, 2)
    models[1].load_state_dict(models[0].state_dict())
    running = average.running(), average.running()
    for each, model in zip(running, models, strict=True):
        each.start(model)
    for step in range(1, 9):
        draws = torch.randn(2, 3, generator=torch.Generator().manual_seed(step))
        bad = step % 3 == 0
        for each, model, flag in zip(running, models, (bad, torch.tensor(float(bad))), strict=True):
            with torch.no_grad():
                model.weight.copy_(draws)
            each.update(step, 8, flag)
    assert running[0].state_dict()["updates"] == running[1].state_dict()["updates"] > 0
    for each, model in zip(running, models, strict=True):
        each.finish(model)
    torch.testing.assert_close(models[0].state_dict(), models[1].state_dict())


# ---------------------------------------------------------------- what else a skipped step leaves


class OwnAverage(nn.Module):
    """A batch norm, and an average of the inputs that the forward pass updates itself."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.head = nn.BatchNorm1d(3), nn.Linear(3, 1)
        self.register_buffer("average", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.average.mul_(0.5).add_(0.5 * x.detach().mean(0))
        return self.head(self.norm(x) + 0 * self.average)


def batches_with_nan(bad: tuple[int, ...]) -> list[tuple[Tensor, Tensor]]:
    batches = [(X[i : i + 4].clone(), Y[i : i + 4].clone()) for i in range(0, 32, 4)]
    for index in bad:
        batches[index][0][1, 0] = torch.nan
    return batches


def fitted(batches: Any, model: nn.Module, task: Any = None, **choices: Any) -> Learner:
    one = Learner(
        TensorData.from_loaders(batches, [(X, Y)]),
        model,
        task=task or Regression(["y"]),
        choices={"device": "cpu", "bn": "train", "probe": "off", "optimizer": "sgd", **choices},
        training=TrainingOptions(nonfinite="skip", doctor=False),
        quiet=True,
    )
    one.fit(2, lr=0.01, schedule="constant")
    return one


@pytest.mark.parametrize("statistics", ["fresh", "running"])
def test_buffers_of_a_skipped_step_are_restored(statistics: str) -> None:
    with pytest.warns(FlambeauWarning, match=r"nonfinite-updates\] 2 of the 8 updates of epoch 1"):
        one = fitted(batches_with_nan(BAD), OwnAverage(), bn_statistics=statistics)
    good = [x for x, _ in batches_with_nan(BAD) if x.isfinite().all()]
    expected = torch.zeros(3)
    for x in good * 2:
        expected = 0.5 * expected + 0.5 * x.mean(0)
    torch.testing.assert_close(one.model.average, expected)
    norm = one.model.norm
    mean = torch.zeros(3)
    for x in good * 2:
        mean = 0.9 * mean + 0.1 * x.mean(0)
    if statistics == "fresh":  # the means over the batches that are finite
        mean = torch.stack([x.mean(0) for x in good]).mean(0)
    torch.testing.assert_close(norm.running_mean, mean)
    assert one.history.column("nonfinite_updates") == [2, 2]
    assert all(map(math.isfinite, one.history.column("valid_loss")))


def test_statistics_adapt_to_finite_batches() -> None:
    with pytest.warns(FlambeauWarning, match="nonfinite-updates"):
        one = fitted(batches_with_nan((1,)), OwnAverage(), bn="adapt")
    good = torch.cat([x for x, _ in batches_with_nan((1,)) if x.isfinite().all()])
    torch.testing.assert_close(one.model.norm.running_mean, good.mean(0))


class Sums(nn.Module):
    """Carries the sum of the inputs so far."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(1, 1)

    def forward(self, x: Tensor, carried: Tensor | None) -> tuple[Tensor, dict[str, Tensor]]:
        total = x.sum() if carried is None else carried["total"] + x.sum()
        return self.head(total.reshape(1, 1)).expand(len(x), 1), {"total": total}


class SumsTask(Task):
    seen: ClassVar[list[float]] = []

    def forward(self, model: nn.Module, batch: Batch, context: Any) -> Tensor:
        outputs, context.carry = model(batch.input, context.carry)
        if context.stage == "train":
            self.seen.append(float(context.carry["total"]))
        return outputs

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, int]:
        return (outputs - batch.target).square().sum(), len(batch)


def test_a_skipped_step_leaves_the_carried_state() -> None:
    batches = batches_with_nan((0, 3))
    with pytest.warns(FlambeauWarning, match="2 of the 8 updates"):
        fitted(batches, Sums(), SumsTask())
    found = SumsTask.seen[-8:]  # of the second epoch
    sums = [float(x.sum()) for x, _ in batches]
    good = [value if math.isfinite(value) else 0.0 for value in sums]
    expected = [sum(good[:at]) + sums[at] for at in range(8)]
    assert found == pytest.approx(expected, abs=1e-4, nan_ok=True)
    carried = {"total": (torch.ones(2), torch.tensor(3))}
    later = {"total": (torch.full((2,), torch.nan), torch.tensor(5))}
    for flag in (torch.tensor(1.0), torch.tensor(0.0)):  # the form of an accelerator
        wanted = carried if flag else later
        kept = carry_after(carried, later, flag)
        assert all(map(same, kept["total"], wanted["total"]))
    fresh = carry_after(None, later, torch.tensor(1.0))
    assert all(not each.any() for each in fresh["total"])


def same(left: Tensor, right: Tensor) -> bool:
    return torch.equal(left.nan_to_num(-1), right.nan_to_num(-1))


def test_an_epoch_of_skipped_updates_is_refused() -> None:
    with pytest.raises(NonFiniteError, match=r"Epoch 1 changed no weights: .* its 8 updates"):
        fitted(batches_with_nan(tuple(range(8))), nn.Linear(3, 1))
