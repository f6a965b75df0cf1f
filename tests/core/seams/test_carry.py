"""A recurrent model over a continuous stream trains through ``context.carry``."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flambeau import Batch, Callback, Learner, Task, TensorData, TrainingOptions

STREAMS, LENGTH, STEPS = 4, 5, 12
DELAY = 3


def stream(seed: int) -> list[tuple[Tensor, Tensor]]:
    """Return random bits; targets are the bits three time steps earlier, across batches."""
    draws = torch.Generator().manual_seed(seed)
    bits = torch.randint(0, 2, (STREAMS, LENGTH * STEPS), generator=draws).float()
    late = torch.roll(bits, DELAY, dims=1)
    cut = range(0, LENGTH * STEPS, LENGTH)
    return [(bits[:, i : i + LENGTH, None], late[:, i : i + LENGTH]) for i in cut]


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(1, 16, batch_first=True)
        self.head = nn.Linear(16, 1)

    def forward(self, x: Tensor, hidden: Tensor | None) -> tuple[Tensor, Tensor]:
        features, hidden = self.cell(x, hidden)
        return self.head(features).squeeze(-1), hidden


class StreamTask(Task):
    """A task that records the hidden state with which each training batch starts."""

    def __init__(self, *, use_carry: bool = True) -> None:
        self.use_carry = use_carry
        self.started_from: list[object] = []

    def forward(self, model: nn.Module, batch: Batch, context: object) -> Tensor:
        carry = context.carry if self.use_carry else None
        if context.stage == "train":
            self.started_from.append(None if carry is None else carry.requires_grad)
        outputs, context.carry = model(batch.input, carry)
        return outputs

    def loss(self, outputs: Tensor, batch: Batch) -> tuple[Tensor, float]:
        total = nn.functional.binary_cross_entropy_with_logits(
            outputs, batch.target, reduction="sum"
        )
        return total, float(batch.target.numel())

    def host_weight(self, batch: Batch) -> float:
        return float(batch.target.numel())


def learner(task: Task, **options: object) -> Learner:
    torch.manual_seed(0)
    data = TensorData.from_loaders(stream(1), stream(2))
    return Learner(data, Recurrent(), task=task, quiet=True, **options)


def test_the_carry_is_reset_each_epoch_and_detached() -> None:
    task = StreamTask()
    # Without the doctor, which would also call the task.
    learner(task, training=TrainingOptions(doctor=False)).fit(2, lr=0.01)
    one_epoch = [None] + [False] * (STEPS - 1)
    assert task.started_from == one_epoch * 2


def test_the_carry_lowers_the_loss() -> None:
    with_memory = learner(StreamTask()).fit(60, lr=0.02).column("valid_loss")[-1]
    without = learner(StreamTask(use_carry=False)).fit(60, lr=0.02).column("valid_loss")[-1]
    assert with_memory < 0.5 * without


class Stop(Callback):
    """Raises KeyboardInterrupt after a number of steps."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, state: object) -> None:
        if state.position.step == self.at:
            raise KeyboardInterrupt


def test_resume_restores_the_carry(tmp_path) -> None:
    whole = learner(StreamTask())
    whole.fit(2, lr=0.01)
    interrupted = learner(StreamTask(), callbacks=[Stop(7)], folder=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        interrupted.fit(2, lr=0.01)
    resumed = learner(StreamTask(), folder=tmp_path)
    resumed.resume()
    assert list(resumed.history.step_losses) == list(whole.history.step_losses)
    for ours, theirs in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
