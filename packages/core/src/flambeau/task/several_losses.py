"""Combine several losses, each a sum with its own weight: Σ factor · sum / weight."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flambeau.errors import ArgumentError
from flambeau.task.metrics import MeanLoss, SumMetric
from flambeau.task.numerics import real_scalar

if TYPE_CHECKING:
    from flambeau.data.batch import Batch
    from flambeau.task.task import Task

Losses = Mapping[str, tuple[Tensor, Tensor | float]]
"""Summed loss, 0-d, and its weight, by name."""


def checked_losses(task: Task, outputs: Any, batch: Batch) -> Losses:
    """Return ``task.losses(outputs, batch)`` in the order of ``task.loss_factors``.

    Raises:
        ArgumentError: The names are not those of ``loss_factors``.
    """
    found = task.losses(outputs, batch)
    if found.keys() != task.loss_factors.keys():
        raise ArgumentError(
            f"{type(task).__name__}.losses returned {', '.join(found) or 'no losses'}, but "
            f"loss_factors has {', '.join(task.loss_factors)}. Return each of these names."
        )
    return {name: found[name] for name in task.loss_factors}


def stacked_weights(weights: Iterable[Tensor | float], device: torch.device) -> Tensor:
    """Return weights as a tensor ``(losses,)`` in the widest float dtype of the device."""
    return torch.stack([real_scalar(weight, device) for weight in weights])


def divisors_of(weights: Tensor) -> Tensor:
    """Return the weights, with 1 in place of 0: a loss that counts nothing has the sum 0."""
    return torch.where(weights == 0, 1.0, weights)


def weighted_sum(sums: Sequence[Tensor], factors: Mapping[str, float], divisors: Tensor) -> Tensor:
    """Return ``Σ factor · sum / divisor``, in the dtype of the sums.

    Args:
        sums: Summed losses, 0-d, in the order of ``factors``.
        factors: Factor by name of the loss.
        divisors: ``(losses,)``, on the device of the sums.
    """
    total: Tensor | None = None
    for loss, factor, divisor in zip(sums, factors.values(), divisors.unbind(), strict=True):
        term = loss * (factor / divisor).to(loss.dtype)
        total = term if total is None else total + term
    if total is None:
        raise ValueError("There are no losses to add.")
    return total


def mean_of_losses(losses: Losses, factors: Mapping[str, float]) -> Tensor:
    """Return ``Σ factor · sum / weight``; a loss of weight 0 counts as 0."""
    sums, weights = zip(*losses.values(), strict=True)
    return weighted_sum(sums, factors, divisors_of(stacked_weights(weights, sums[0].device)))


class CombinedLoss(SumMetric):
    """The mean of several losses: ``Σ factor · sum / weight`` over all batches.

    A loss whose weight is 0 over all batches counts as 0; its own mean is nan.

    Args:
        factors: Factor by name of the loss.
    """

    higher_is_better = False

    def __init__(self, factors: Mapping[str, float]) -> None:
        super().__init__()
        self.factors = dict(factors)

    def update(self, losses: Losses, /) -> None:
        """Add sum and weight of each loss."""
        sums, weights = zip(*losses.values(), strict=True)
        stacked = stacked_weights(weights, sums[0].device)
        self.add("totals", torch.stack([loss.detach().to(stacked.dtype) for loss in sums]))
        self.add("weights", stacked)
        self.add("weight", stacked.sum())

    def compute(self) -> float:
        """Return the sum of the means times their factors; nan before the first batch."""
        if not self.sums:
            return float("nan")
        totals = self.sums["totals"].unbind()
        return float(weighted_sum(totals, self.factors, divisors_of(self.sums["weights"])).item())


def loss_metrics(factors: Mapping[str, float]) -> dict[str, Any]:
    """Return ``{"loss": CombinedLoss, "NAME_loss": MeanLoss, …}``."""
    return {"loss": CombinedLoss(factors), **{f"{name}_loss": MeanLoss() for name in factors}}


def update_loss_metrics(
    task: Task, metrics: Mapping[str, Any], outputs: Any, batch: Batch
) -> dict[str, Any]:
    """Update "loss" and "NAME_loss" with a batch, and return the other metrics."""
    parts = {f"{name}_loss": name for name in task.loss_factors}
    others = {key: each for key, each in metrics.items() if key != "loss" and key not in parts}
    if len(others) < len(metrics):
        losses = checked_losses(task, outputs, batch)
        if "loss" in metrics:
            metrics["loss"].update(losses)
        for key, name in parts.items():
            if key in metrics:
                metrics[key].update(*losses[name])
    return others
