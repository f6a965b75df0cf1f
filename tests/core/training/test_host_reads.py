"""A training step reads nothing from the device: counted by torch's dispatcher.

``.tolist()``, ``.numpy()`` and ``.cpu()`` need not reach the dispatcher; tests/architecture keeps
them out of training/.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from flambeau import EMA, Callback, Learner, TensorData, TrainingOptions, TrainState

READS = ("aten::_local_scalar_dense", "aten::is_nonzero", "aten::equal")


class Reads(TorchDispatchMode):
    """Counts what waits for a value, while it is switched on."""

    def __init__(self) -> None:
        super().__init__()
        self.on = False
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += self.on and func._schema.name in READS
        return func(*args, **(kwargs or {}))


class InSteps(Callback):
    """On from the second step's start to the last step's end; the first makes optimizer state."""

    def __init__(self, reads: Reads, read_too: bool) -> None:
        self.reads, self.read_too, self.steps = reads, read_too, 0

    def on_step_start(self, state: TrainState) -> None:
        self.reads.on = state.position.epoch_step > 0
        self.steps += 1

    def on_step_end(self, state: TrainState) -> None:
        if self.read_too and state.last is not None:
            float(state.last.loss)
        self.reads.on = state.position.epoch_step < state.steps_per_epoch


def reads_in_steps(training: TrainingOptions, read_too: bool = False) -> tuple[int, int]:
    """Host reads, and steps among which they were counted."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(100, 4, generator=draws)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))
    reads = Reads()
    watch = InSteps(reads, read_too)
    learner = Learner(
        TensorData.from_tensors(x, (x[:, 0] > 0).long()),
        model,
        choices={"batch_size": 8},
        training=training,
        callbacks=[watch],
        quiet=True,
    )
    with reads:
        learner.fit(1)
    return reads.count, watch.steps - 1


@pytest.mark.parametrize(
    "training",
    [
        TrainingOptions(),
        TrainingOptions(nonfinite="off"),
        TrainingOptions(nonfinite="skip"),
        TrainingOptions(clip_norm=0.5),
        TrainingOptions(accumulate=3),
        TrainingOptions(average=EMA()),
    ],
    ids=["default", "no guard", "skip", "clip", "accumulate", "EMA"],
)
def test_a_step_reads_nothing(training: TrainingOptions) -> None:
    count, steps = reads_in_steps(training)
    assert steps >= 3
    assert count == 0


def test_a_read_in_each_step_is_counted() -> None:
    count, steps = reads_in_steps(TrainingOptions(nonfinite="off"), read_too=True)
    assert count == steps
