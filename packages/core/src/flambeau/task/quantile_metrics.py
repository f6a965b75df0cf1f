"""Metrics of predicted quantiles: pinball loss, coverage and width of the interval.

``tests/core/task/test_quantiles.py`` compares them with scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau.task.metrics import SumMetric
from flambeau.task.numerics import as_real, weighted


def pinball_loss(targets: Tensor, quantiles: Tensor, levels: Tensor) -> Tensor:
    """Return the pinball loss of each element, whose minimum is the quantile of that level.

    Args:
        targets: ``(batch, values)``.
        quantiles: Predicted quantiles ``(batch, values, levels)``.
        levels: Levels between 0 and 1, in the dtype of the quantiles; an error above a quantile
            counts ``level``, one below it ``1 - level``.

    Source:
        Koenker and Bassett, "Regression quantiles", Econometrica 46 (1978).
    """
    error = targets.unsqueeze(2) - quantiles
    return torch.maximum(levels * error, (levels - 1) * error)


class QuantileMetric(SumMetric):
    """The base class of metrics of quantiles: ``outputs`` is ``(batch, values, levels)``, sorted.

    Over several values per sample it is the mean of all of them.
    """

    takes_weights = True

    def add_mean(self, values: Tensor, weights: Tensor | None) -> None:
        """Add values ``(batch, …)``, weighted by sample; for subclasses."""
        flat = as_real(values).reshape(len(values), -1)
        each = flat.new_ones(len(flat)) if weights is None else as_real(weights.detach())
        self.add("total", weighted(flat, each.view(-1, 1)).sum())
        self.add("count", each.sum() * flat.shape[1])

    def compute(self) -> float:
        """Return the mean; nan before the first batch."""
        return self._ratio("total", "count")


class MeanPinballLoss(QuantileMetric):
    """The mean pinball loss over the levels, in the unit of the targets.

    Args:
        quantiles: The levels, in the order of the last axis of the outputs.
    """

    higher_is_better = False

    def __init__(self, quantiles: Sequence[float]) -> None:
        super().__init__()
        self.quantiles = checked_levels(quantiles)

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add quantiles ``(batch, values, levels)`` and targets ``(batch, values)``."""
        quantiles, truth = _checked(outputs, targets)
        levels = torch.tensor(self.quantiles, dtype=truth.dtype, device=truth.device)
        self.add_mean(pinball_loss(truth, quantiles, levels), weights)

    def arguments(self) -> Mapping[str, Any]:
        return {"quantiles": list(self.quantiles)}


class Coverage(QuantileMetric):
    """Share of the targets that lie between the lowest and the highest quantile.

    It should be near the difference of the two levels; neither larger nor smaller is better.
    """

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add quantiles ``(batch, values, levels)`` and targets ``(batch, values)``."""
        quantiles, truth = _checked(outputs, targets)
        inside = (quantiles[..., 0] <= truth) & (truth <= quantiles[..., -1])
        # A nan is outside every interval; the score must not hide it.
        nan = (quantiles.sum(dim=2) + truth).isnan()
        self.add_mean(torch.where(nan, torch.nan, inside.to(truth.dtype)), weights)


class IntervalWidth(QuantileMetric):
    """Mean distance of the highest quantile from the lowest, in the unit of the targets.

    Of two models with the same coverage, the one with the smaller width is better.
    """

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add quantiles ``(batch, values, levels)`` and targets ``(batch, values)``."""
        quantiles, _ = _checked(outputs, targets)
        self.add_mean(quantiles[..., -1] - quantiles[..., 0], weights)


def checked_levels(quantiles: Sequence[float]) -> tuple[float, ...]:
    """Return the levels as a tuple.

    Raises:
        InputError: A level is not between 0 and 1, or they do not increase.
    """
    found = tuple(float(level) for level in quantiles)
    if not found or not all(0 < level < 1 for level in found):
        raise InputError(f"quantiles are {found}, but each must be between 0 and 1.")
    if list(found) != sorted(set(found)):
        raise InputError(f"quantiles are {found}, but must increase: {tuple(sorted(set(found)))}.")
    return found


def _checked(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return quantiles ``(batch, values, levels)`` and targets in the widest float."""
    if outputs.ndim != 3 or outputs.shape[:2] != targets.shape:
        raise InputError(
            f"Quantiles have shape {tuple(outputs.shape)} and targets {tuple(targets.shape)}, but "
            "must be (batch, values, levels) and (batch, values)."
        )
    return as_real(outputs.detach()), as_real(targets.detach())
