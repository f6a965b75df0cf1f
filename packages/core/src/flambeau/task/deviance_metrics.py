"""Deviance metrics of counts and positive amounts (Poisson, gamma, Tweedie).

``tests/core/task/test_log_link.py`` compares them with scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau.task.metrics import SumMetric
from flambeau.task.numerics import as_real, weighted


def unit_deviance(targets: Tensor, predictions: Tensor, power: float) -> Tensor:
    """Return the deviance of each element: 0 if the prediction is exact, else above 0.

    Args:
        targets: At least 0; above 0 for power 2.
        predictions: Above 0, of the same shape.
        power: Variance as a power of the mean: 1 Poisson, 2 gamma, between them Tweedie.

    Source:
        Jørgensen, "The theory of dispersion models" (1997); ``mean_tweedie_deviance`` of
        scikit-learn.
    """
    y, mu = targets, predictions
    if power == 1:
        return 2 * (torch.xlogy(y, y / mu) - y + mu)
    if power == 2:
        return 2 * ((mu / y).log() + y / mu - 1)
    a, b = 1 - power, 2 - power
    return 2 * (y**b / (a * b) - y * mu**a / a + mu**b / b)


class TweedieDeviance(SumMetric):
    """The mean deviance; over several values per sample, the mean of all of them.

    Args:
        power: 1 for the Poisson deviance, 2 for the gamma deviance, between them Tweedie.
    """

    higher_is_better = False
    takes_weights = True

    def __init__(self, power: float = 1.5) -> None:
        super().__init__()
        self.power = checked_power(power)

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add predictions and targets of one shape, ``(batch,)`` or ``(batch, values)``."""
        deviance = unit_deviance(*_columns(outputs, targets), self.power)
        each = _row_weights(deviance, weights)
        self.add("deviance", weighted(deviance, each).sum())
        self.add("count", each.sum() * deviance.shape[1])

    def compute(self) -> float:
        """Return a value ≥ 0; nan before the first batch."""
        return self._ratio("deviance", "count")

    def arguments(self) -> Mapping[str, Any]:
        return {"power": self.power}


class TweedieD2(SumMetric):
    """Share of the deviance that is explained (D²); of several values, the mean.

    1 is perfect, 0 equals predicting the mean. Constant targets give 1 if all predictions are exact
    and 0 otherwise.

    Args:
        power: As in ``TweedieDeviance``.
    """

    higher_is_better = True
    takes_weights = True

    # A deviance is a Bregman divergence. Therefore the deviances of two groups of targets from
    # their common mean are those from their own means, plus those of the two means from it: the
    # pairwise update of variances (see R2), which has no sum that loses its digits.

    def __init__(self, power: float = 1.5) -> None:
        super().__init__()
        self.power = checked_power(power)

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add predictions and targets of one shape, ``(batch,)`` or ``(batch, values)``."""
        truth, predictions = _columns(outputs, targets)
        each = _row_weights(truth, weights)
        count = each.sum()
        mean = weighted(truth, each).sum(dim=0) / torch.where(count > 0, count, 1.0)
        residual = unit_deviance(truth, predictions, self.power)
        self.merge(
            {
                "samples": (each > 0).sum(),
                "count": count,
                "mean": mean,
                "total": weighted(self._from_mean(truth, mean), each).sum(dim=0),
                "residual": weighted(residual, each).sum(dim=0),
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
        share = new["count"] / torch.where(count > 0, count, 1.0)
        mean = old["mean"] + (new["mean"] - old["mean"]) * share
        between = sum(self._from_mean(each["mean"], mean) * each["count"] for each in (old, new))
        self.sums = {
            "samples": old["samples"] + new["samples"],
            "count": count,
            "mean": mean,
            "total": old["total"] + new["total"] + between,
            "residual": old["residual"] + new["residual"],
        }

    def _from_mean(self, values: Tensor, mean: Tensor) -> Tensor:
        """Return the deviance of values from their mean; a mean of 0 has only the values 0."""
        found = unit_deviance(values, mean, self.power)
        return torch.where((mean == 0).expand_as(found), 0, found)

    def compute(self) -> float:
        """Return a value ≤ 1; nan for fewer than two samples."""
        if not self.sums or self.sums["samples"] < 2:
            return float("nan")
        residual, total = self.sums["residual"], self.sums["total"]
        constant = torch.where(residual == 0, 1.0, 0.0).to(residual.dtype)
        return float(torch.where(total == 0, constant, 1 - residual / total).mean().item())

    def arguments(self) -> Mapping[str, Any]:
        return {"power": self.power}


def checked_power(power: float) -> float:
    """Return the power of a Tweedie distribution as a float.

    Raises:
        InputError: It is not between 1 and 2.
    """
    if not 1 <= power <= 2:
        raise InputError(
            f"power is {power}, but must be between 1 (Poisson) and 2 (gamma). For numbers that "
            "may be negative use Regression."
        )
    return float(power)


def _columns(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return targets and predictions as ``(batch, values)`` in the widest float."""
    if outputs.shape != targets.shape:
        raise InputError(
            f"Outputs have shape {tuple(outputs.shape)} and targets {tuple(targets.shape)}, but "
            "must have the same shape. Give both as (batch,) or as (batch, values)."
        )
    pair = as_real(targets.detach()), as_real(outputs.detach())
    return pair if outputs.ndim > 1 else (pair[0].unsqueeze(1), pair[1].unsqueeze(1))


def _row_weights(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the weight of each row, ``(batch, 1)`` in the widest float."""
    if weights is None:
        return values.new_ones(len(values), 1)
    return as_real(weights.detach()).view(-1, 1)
