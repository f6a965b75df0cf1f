"""One optimizer step over its micro-batches: the function to replace for GAN, SAM, distillation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.task.task import Task
from flambeau.training import foreach
from flambeau.training.optim.clip import gradients_of
from flambeau.training.state import StepResult, TrainState


class TrainStep(Protocol):
    """Computes gradients and calls ``state.update``; the loop does everything around it."""

    def __call__(
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, state: TrainState
    ) -> StepResult:
        """One step: forward, ``state.backward(loss)``, ``state.update()``."""
        ...


def train_step(
    model: nn.Module, micro_batches: Sequence[Batch], task: Task, state: TrainState
) -> StepResult:
    """The mean loss over all micro-batches, one backward pass each, one update.

    Every micro-batch's loss is a sum and a weight, so the step equals one large batch however the
    samples are grouped: ragged last batches, token losses, accumulation, several processes.
    """
    if state.shared_step is not None:
        return state.shared_step(model, micro_batches, task, state)
    total = 0.0
    for batch in micro_batches:
        weight = task.host_weight(batch)
        if weight is None:
            return _step_of_unknown_weight(model, micro_batches, task, state)
        total += weight
    loss: Tensor | None = None
    for batch in micro_batches:
        with state.autocast():
            outputs = task.forward(model, batch, state.context)
            loss_sum, _ = task.loss(outputs, batch)
        state.backward(loss_sum, total)
        part = loss_sum.detach() / total
        loss = part if loss is None else loss + part
    if loss is None:
        raise ValueError("A training step got no batch.")
    state.update(loss)
    return StepResult(loss, total)


def _step_of_unknown_weight(
    model: nn.Module, micro_batches: Sequence[Batch], task: Task, state: TrainState
) -> StepResult:
    """Backward on the sums; the gradients are divided once the whole weight is known."""
    sums: list[Tensor] = []
    weights: list[Tensor] = []
    for batch in micro_batches:
        with state.autocast():
            outputs = task.forward(model, batch, state.context)
            loss_sum, weight = task.loss(outputs, batch)
        state.backward(loss_sum)
        sums.append(loss_sum.detach())
        weights.append(torch.as_tensor(weight, device=loss_sum.device).detach())
    total = torch.stack(weights).sum()
    gradients = gradients_of(model.parameters())
    foreach.scale_(gradients, 1.0 / total)
    loss = torch.stack(sums).sum() / total
    state.update(loss)
    return StepResult(loss, total)
