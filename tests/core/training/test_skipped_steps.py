"""A step that is skipped because it is not finite counts for nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from flambeau import EMA, SWA, Batch, Callback, Learner, Regression, TensorData, TrainingOptions

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
