"""Metrics for regression, over one or several values per sample.

``tests/core/task/test_metrics.py`` compares them with scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau.task.metrics import SumMetric
from flambeau.task.numerics import as_real, weighted


class MeanAbsoluteError(SumMetric):
    """Mean absolute error, in the unit of the targets."""

    higher_is_better = False
    takes_weights = True

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add two tensors of the same shape, ``(batch,)`` or ``(batch, values)``; and weights."""
        error = _error(outputs, targets)
        each = _row_weights(error, weights)
        self.add("error", weighted(error.abs(), each).sum())
        self.add("count", each.sum() * error.shape[1])

    def compute(self) -> float:
        """Return a value ≥ 0; nan before the first batch."""
        return self._ratio("error", "count")


class RootMeanSquaredError(SumMetric):
    """Root mean squared error in the unit of the targets; of several values, their mean error."""

    higher_is_better = False
    takes_weights = True

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add two tensors of the same shape, ``(batch,)`` or ``(batch, values)``; and weights."""
        error = _error(outputs, targets)
        each = _row_weights(error, weights)
        self.add("error", weighted(error.square(), each).sum(dim=0))
        self.add("count", each.sum())

    def compute(self) -> float:
        """Return a value ≥ 0; nan before the first batch."""
        if not self.sums:
            return float("nan")
        return float((self.sums["error"] / self.sums["count"]).sqrt().mean().item())


class R2(SumMetric):
    """Coefficient of determination (share of explained variance); of several values, the mean.

    1 is perfect, 0 equals predicting the mean, below 0 is worse. Constant targets give 1 if all
    predictions are exact and 0 otherwise, as in scikit-learn.

    Source:
        Batches are combined with the pairwise update of Chan, Golub and LeVeque, "Updating formulae
        and a pairwise algorithm for computing sample variances" (1979): sums of squares would lose
        all digits if the mean is large compared with the standard deviation.
    """

    higher_is_better = True
    takes_weights = True

    # The sums "total" and "residual" are the sums of squares whose ratio is 1 - R².

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add two tensors of the same shape, ``(batch,)`` or ``(batch, values)``; and weights."""
        error = _error(outputs, targets)
        each = _row_weights(error, weights)
        truth = _columns(as_real(targets.detach()))
        count = each.sum()
        # Without any weight the mean is not defined, and does not count.
        mean = (truth * each).sum(dim=0) / torch.where(count > 0, count, 1.0)
        self.merge(
            {
                "samples": (each > 0).sum(),
                "count": count,
                "mean": mean,
                "total": ((truth - mean).square() * each).sum(dim=0),
                "residual": weighted(error.square(), each).sum(dim=0),
            }
        )

    def merge(self, sums: Mapping[str, Tensor]) -> None:
        """Add sums that the same metric computed over other samples."""
        if not self.sums or not sums:
            super().merge(sums)
            return
        old = self.sums
        new = {name: value.to(old[name].device) for name, value in sums.items()}
        count = old["count"] + new["count"]
        step = new["mean"] - old["mean"]
        share = new["count"] / torch.where(count > 0, count, 1.0)
        self.sums = {
            "samples": old["samples"] + new["samples"],
            "count": count,
            "mean": old["mean"] + step * share,
            "total": old["total"] + new["total"] + step.square() * old["count"] * share,
            "residual": old["residual"] + new["residual"],
        }

    def compute(self) -> float:
        """Return a value ≤ 1; nan for fewer than two samples."""
        if not self.sums or self.sums["samples"] < 2:
            return float("nan")
        residual, total = self.sums["residual"], self.sums["total"]
        constant = torch.where(residual == 0, 1.0, 0.0).to(residual.dtype)
        return float(torch.where(total == 0, constant, 1 - residual / total).mean().item())


def _columns(value: Tensor) -> Tensor:
    return value.unsqueeze(1) if value.ndim == 1 else value


def _error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return outputs minus targets as ``(batch, values)`` in the widest float."""
    if outputs.shape != targets.shape:
        raise InputError(
            f"Outputs have shape {tuple(outputs.shape)} and targets {tuple(targets.shape)}, but "
            "must have the same shape. Give both as (batch,) or as (batch, values)."
        )
    return _columns(as_real(outputs.detach()) - as_real(targets.detach()))


def _row_weights(error: Tensor, weights: Tensor | None) -> Tensor:
    """Return the weight of each row of ``error``, ``(batch, 1)`` in the widest float."""
    if weights is None:
        return error.new_ones(len(error), 1)
    return as_real(weights.detach()).view(-1, 1)
