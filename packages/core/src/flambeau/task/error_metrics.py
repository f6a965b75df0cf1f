"""Metrics for numbers, over one or several values a sample.

Held against scikit-learn in ``tests/core/task/test_metrics.py``.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau.task.metrics import SumMetric, as_real, size_of


class MeanAbsoluteError(SumMetric):
    """Mean distance from the truth, in its unit."""

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Takes in two tensors of one shape, ``(batch,)`` or ``(batch, values)``."""
        error = _error(outputs, targets)
        self.add("error", error.abs().sum())
        self.add("count", size_of(error))

    def compute(self) -> float:
        """At least 0; nan before the first batch."""
        return self._ratio("error", "count")


class RootMeanSquaredError(SumMetric):
    """Root of the mean squared distance, in the unit of the truth; the mean over several values."""

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Takes in two tensors of one shape, ``(batch,)`` or ``(batch, values)``."""
        error = _error(outputs, targets)
        self.add("error", error.square().sum(dim=0))
        self.add("count", size_of(error[:, 0]))

    def compute(self) -> float:
        """At least 0; nan before the first batch."""
        if not self.sums:
            return float("nan")
        return float((self.sums["error"] / self.sums["count"]).sqrt().mean().item())


class R2(SumMetric):
    """Share of the targets' variance that is explained; the mean over several values.

    1 is perfect, 0 as good as the mean, below 0 worse. Constant targets give 1 when hit exactly
    and 0 when not, as in scikit-learn.

    Source:
        Batches are joined with the pairwise update of Chan, Golub and LeVeque, "Updating formulae
        and a pairwise algorithm for computing sample variances" (1979): sums of squares would
        lose all digits where the mean is large against the spread.
    """

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Takes in two tensors of one shape, ``(batch,)`` or ``(batch, values)``."""
        error = _error(outputs, targets)
        truth = _columns(as_real(targets.detach()))
        mean = truth.mean(dim=0)
        self.merge(
            {
                "count": size_of(error[:, 0]),
                "mean": mean,
                "spread": (truth - mean).square().sum(dim=0),
                "error": error.square().sum(dim=0),
            }
        )

    def merge(self, sums: Mapping[str, Tensor]) -> None:
        """Takes in the sums of other samples."""
        if not self.sums or not sums:
            super().merge(sums)
            return
        old = self.sums
        new = {name: value.to(old[name].device) for name, value in sums.items()}
        count = old["count"] + new["count"]
        step = new["mean"] - old["mean"]
        share = as_real(new["count"]) / as_real(count)  # of two integers torch makes a float32
        self.sums = {
            "count": count,
            "mean": old["mean"] + step * share,
            "spread": old["spread"] + new["spread"] + step.square() * old["count"] * share,
            "error": old["error"] + new["error"],
        }

    def compute(self) -> float:
        """At most 1; nan for fewer than two samples."""
        if not self.sums or self.sums["count"] < 2:
            return float("nan")
        error, spread = self.sums["error"], self.sums["spread"]
        constant = torch.where(error == 0, 1.0, 0.0).to(error.dtype)
        return float(torch.where(spread == 0, constant, 1 - error / spread).mean().item())


def _columns(value: Tensor) -> Tensor:
    return value.unsqueeze(1) if value.ndim == 1 else value


def _error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Outputs minus targets as ``(batch, values)`` in wide floats."""
    if outputs.shape != targets.shape:
        raise InputError(
            f"Outputs have shape {tuple(outputs.shape)} and targets {tuple(targets.shape)}; "
            "an error needs one shape. Give both as (batch,) or as (batch, values)."
        )
    return _columns(as_real(outputs.detach()) - as_real(targets.detach()))
