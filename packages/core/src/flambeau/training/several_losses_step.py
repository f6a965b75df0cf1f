"""A training step for a task with several losses, each divided by its own weight over the step.

The loss of a step is ``Σ factor · sum / weight``, where sum and weight of each loss are added over
all micro-batches and processes. The weights are therefore summed before the first backward pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError
from flambeau.task.numerics import as_real, is_known_zero, real_dtype
from flambeau.task.several_losses import (
    checked_losses,
    divisors_of,
    stacked_weights,
    weighted_sum,
)
from flambeau.task.task import Task
from flambeau.training.logged_values import Sums
from flambeau.training.no_target import FIX, step_without_samples
from flambeau.training.state import StepResult

if TYPE_CHECKING:
    from flambeau.training.step import Step


def backward_of_losses(
    model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
) -> tuple[StepResult, Tensor] | None:
    """Compute the gradients of the mean of several losses; None without targets.

    Returns:
        The result of the step, and its loss for the non-finite check.

    Raises:
        ArgumentError: A weight is not known before the forward pass, but the step needs it.
        InputError: The batches have no samples.
    """
    if micro_batches and step.n_ranks == 1 and not any(map(len, micro_batches)):
        raise step_without_samples(step.context.step)
    own = weights = None
    if len(micro_batches) > 1 or step.n_ranks > 1:
        own = weights_of_batches(micro_batches, task, step.device)
        weights = step.total_weight_on_device(own.clone())
    sums: list[Tensor] = []
    for batch in micro_batches:
        with step.autocast():
            losses = checked_losses(task, step.forward(model, batch, task), batch)
        summed = [loss for loss, _ in losses.values()]
        if weights is None:
            weights = own = stacked_weights([w for _, w in losses.values()], step.device)
        total = weights.sum()
        if is_known_zero(total):
            return None
        if not sums and total.device.type != "cpu":
            step.divisor(total)  # the update has no effect if it is 0
        step.backward(weighted_sum(summed, task.loss_factors, divisors_of(weights)))
        sums.append(detached(summed))
    if own is None or weights is None:
        raise ValueError("train_step was called without a batch. Pass at least one micro-batch.")
    added = torch.stack(sums).sum(dim=0)
    log_means(task, added, own)
    return result_of(task, added, weights)


def result_of(task: Task, sums: Tensor, weights: Tensor) -> tuple[StepResult, Tensor]:
    """Return the result of a step, and its loss for the non-finite check.

    Args:
        task: Has the factors.
        sums: Sum of each loss over the step, ``(losses,)``.
        weights: Weight of each loss over the step.
    """
    loss = weighted_sum(sums.unbind(), task.loss_factors, divisors_of(weights))
    total = weights.sum()
    return StepResult(torch.where(total == 0, torch.nan, loss), total), loss


def log_means(task: Task, sums: Tensor, weights: Tensor) -> None:
    """Log the mean of each loss over a step; nothing is read from the device."""
    means = (sums / divisors_of(weights)).unbind()
    for name, mean, weight in zip(task.loss_factors, means, weights.unbind(), strict=True):
        task.log(weight, **{f"{name}_loss": mean})


def weights_of_batches(batches: Iterable[Batch], task: Task, device: torch.device) -> Tensor:
    """Return the weight of each loss over the batches, ``(losses,)``, before any forward pass.

    Raises:
        ArgumentError: Only ``task.losses`` can compute a weight.
    """
    total = torch.zeros(len(task.loss_factors), dtype=real_dtype(device), device=device)
    for batch in batches:
        found = task.loss_weights(batch)
        known: list[Tensor | float] = []
        for name in task.loss_factors:
            weight = found.get(name)
            if weight is None:
                raise _unknown_weight(task, name)
            known.append(weight)
        total = total + stacked_weights(known, device)
    return total


def epoch_loss(task: Task, logged: Iterable[Sums], train_loss: float, *, whole: bool) -> float:
    """Return the loss of an epoch: each loss divided by its own weight over the epoch.

    Args:
        task: Has the factors.
        logged: The values that each process logged in the epoch.
        train_loss: Returned if a custom train step did not log the losses.
        whole: Whether the steps span an epoch.

    Raises:
        InputError: No sample of an epoch has a target of one of the losses.
    """
    sums: dict[str, tuple[float, float]] = dict.fromkeys(task.loss_factors, (0.0, 0.0))
    seen: set[str] = set()
    for each in logged:
        for name in task.loss_factors:
            if (found := each.get(f"{name}_loss")) is not None:
                seen.add(name)
                sums[name] = (sums[name][0] + found[0], sums[name][1] + found[1])
    if len(seen) < len(sums):
        return train_loss
    empty = [name for name, (_, weight) in sums.items() if not weight]
    if empty and whole:
        raise InputError(
            f"No train sample has a target {', '.join(map(repr, empty))} (the weight of its loss "
            f"is 0 in the whole epoch), so nothing is learned for it. Leave it out of the task. "
            f"{FIX}"
        )
    terms = [
        task.loss_factors[name] * total / weight for name, (total, weight) in sums.items() if weight
    ]
    return math.fsum(terms) if terms else train_loss


def detached(losses: Sequence[Tensor]) -> Tensor:
    """Return losses, 0-d each, as one tensor ``(losses,)`` without gradient."""
    return torch.stack([as_real(loss.detach()) for loss in losses])


def _unknown_weight(task: Task, name: str) -> ArgumentError:
    return ArgumentError(
        f"The weight of the loss {name!r} of {type(task).__name__} is known only after the forward "
        "pass, but a step of several micro-batches or processes divides by the sum of all weights "
        "before the first backward pass. Define target_weight(batch) in the task of "
        f"{name!r} (or loss_weights(batch) in {type(task).__name__}), which returns the weight "
        "from the targets; or train with accumulate=1 in one process."
    )
