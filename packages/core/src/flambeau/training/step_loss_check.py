"""Check in the first step of a run that a custom ``train_step`` uses the mean loss, not the sum."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, FlambeauWarning
from flambeau.task.task import Task
from flambeau.training.run_state.preserve import preserve
from flambeau.training.state import StepResult
from flambeau.training.step import Step, TrainStep
from flambeau.training.update import Update

if TYPE_CHECKING:
    from flambeau.training.run import Run

_TOLERANCE = 1e-4


def with_loss_check(train_step: TrainStep, update: Update) -> TrainStep:
    """Return a train step that checks its first call.

    The loss of the task is computed once more before the call, with the random numbers of the call.
    A loss that differs from it, such as one with further terms, is not checked.
    """
    is_done = False

    def checked(
        model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
    ) -> StepResult | Tensor:
        nonlocal is_done
        if is_done:
            return train_step(model, micro_batches, task, step)
        is_done = True
        expected = _losses(model, micro_batches, task, step)
        update.first_backward = None
        result = train_step(model, micro_batches, task, step)
        if expected:
            _compare(expected, result, update.first_backward)
        return result

    return checked


def checks_loss(run: Run) -> bool:
    """Return whether the first step of a run with a custom train step can be checked."""
    state = run.state
    return run.step.n_ranks == 1 and state.position.step == 0 and not state.task.loss_factors


def _losses(
    model: nn.Module, batches: Sequence[Batch], task: Task, step: Step
) -> list[tuple[float, float]]:
    """Return sum and weight of the loss of each micro-batch; empty if they cannot be computed."""
    found: list[tuple[float, float]] = []
    try:
        with preserve(model, task), torch.no_grad(), step.autocast():
            for batch in batches:
                total, weight = task.loss(task.forward(model, batch, step.context), batch)
                found.append((float(total), float(weight)))  # host read: the first step only
    except Exception:  # noqa: BLE001 - the train step need not use the loss of the task
        return []
    return found


def _compare(expected: list[tuple[float, float]], result: Any, backward: Tensor | None) -> None:
    total = math.fsum(loss for loss, _ in expected)
    weight = math.fsum(weight for _, weight in expected)
    if not total or not weight or math.isclose(weight, 1.0, rel_tol=_TOLERANCE):
        return
    loss = getattr(result, "loss", result)
    if isinstance(loss, Tensor) and _equal(loss, total):
        raise ArgumentError(
            f"The train_step returned {total:.4g}, the sum of the losses with the weight "
            f"{weight:g}, but it must return the mean of the step: {total / weight:.4g}. Divide by "
            "the weight, also in backward: total, weight = task.loss(…), then "
            "step.backward(total, weight) and return total / weight."
        )
    if backward is not None and _equal(backward, expected[0][0]):
        warnings.warn(
            f"[summed-loss] The train_step calls step.backward with {expected[0][0]:.4g}, the sum "
            f"of the losses with the weight {weight:g}: the step is {weight:g} times as long as "
            "with the mean. Divide by the weight: step.backward(total, weight).",
            FlambeauWarning,
            stacklevel=2,
        )


def _equal(loss: Tensor, value: float) -> bool:
    # host read: the first step only
    return loss.numel() == 1 and math.isclose(float(loss.detach()), value, rel_tol=_TOLERANCE)
