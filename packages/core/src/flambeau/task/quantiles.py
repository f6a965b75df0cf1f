"""``QuantileRegression``: quantiles of one or several numbers per sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.task.metric_choice import MetricChoice, fresh_metrics, metric_argument
from flambeau.task.metrics import Metric, MetricFactory, update_metric
from flambeau.task.numerics import as_real, to_rows
from flambeau.task.quantile_metrics import (
    Coverage,
    IntervalWidth,
    MeanPinballLoss,
    QuantileMetric,
    checked_levels,
    pinball_loss,
)
from flambeau.task.regression import Estimate, Regression

if TYPE_CHECKING:
    from flambeau.task.target_transform import Bounds, LogName

LEVELS = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class QuantileEstimate(Estimate):
    """The predicted quantiles of the numbers of one sample, in the units of the targets.

    Attributes:
        values: Predicted median by name.
        quantiles: Predicted quantiles, "q0.05", "q0.5", …; for several names "price.q0.05".
    """

    quantiles: dict[str, float]

    def quantile(self, level: float, name: str | None = None) -> float:
        """Return a predicted quantile.

        Args:
            level: One of the levels of the task.
            name: Name of the number; None if there is only one.

        Raises:
            InputError: The task does not predict this quantile.
        """
        key = f"q{level:g}" if name is None else f"{name}.q{level:g}"
        if key not in self.quantiles:
            raise InputError(
                f"There is no quantile {key!r}, only {', '.join(self.quantiles)}. Name the levels "
                "in QuantileRegression(quantiles=…)."
            )
        return self.quantiles[key]


class QuantileRegression(Regression):
    """Quantiles of one or several numbers per sample, such as the median and a 90% interval.

    The model has one output for each level of each number: ``(batch, values * levels)``, the levels
    of a number next to each other. The loss is the mean pinball loss of all levels, which is
    smallest if each output is the quantile of the targets at its level.

    Quantiles never cross: the outputs of a number are sorted, in the loss, the metrics and the
    predictions. Sorting never increases the pinball loss, and leaves every output free to follow
    its quantile; sums of positive steps from one of them would tie the tails to each other.

    Args:
        names: Names of the numbers, in the order of the columns of the targets.
        quantiles: Increasing levels between 0 and 1 with the median, 0.5, which is the prediction.
            For the median alone, use ``Regression(loss="mae")``.
        mean: Mean of the train targets, as in ``Regression``.
        std: Standard deviation of the train targets, as in ``Regression``.
        metrics: Names from ``QuantileRegression.known_metrics``, or metric objects by name.
            ``QuantileMetric`` objects receive the quantiles, others the median.
        ignore_nan: Samples whose target is NaN do not count in loss and metrics.
        log: As in ``Regression``. Quantiles of logarithms are logarithms of quantiles, so there is
            nothing to correct.
        bounds: Lowest and highest prediction, as in ``Regression``.
        calibration: What ``learner.calibrate`` fitted.

    Raises:
        ArgumentError: ``names`` is a string, or a metric is unknown.
        InputError: The levels do not increase, lack 0.5, or are not between 0 and 1.

    Source:
        Chernozhukov, Fernández-Val and Galichon, "Quantile and probability curves without
        crossing", Econometrica 78 (2010), for sorting.
    """

    builder = "quantile_regression"
    loss_name = "mean pinball loss"
    default_metrics = ("pinball", "coverage", "width", "mae")

    @staticmethod
    def known_metrics(quantiles: Sequence[float] = LEVELS) -> dict[str, MetricFactory]:
        """Return the metrics that can be chosen by name, with the functions that create them."""
        return {
            **Regression.known_metrics(),
            "coverage": Coverage,
            "pinball": partial(MeanPinballLoss, quantiles),
            "width": IntervalWidth,
        }

    def __init__(
        self,
        names: Sequence[str] = ("value",),
        quantiles: Sequence[float] = LEVELS,
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        *,
        metrics: MetricChoice | None = None,
        ignore_nan: bool = False,
        log: LogName | None = None,
        bounds: Bounds | None = None,
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        self.quantiles = checked_levels(quantiles)
        if 0.5 not in self.quantiles or len(self.quantiles) < 2:
            raise InputError(
                f"quantiles are {self.quantiles}, but must contain the median, 0.5, and another "
                "level, such as (0.05, 0.5, 0.95). For the median alone, use "
                'Regression(loss="mae").'
            )
        self._levels: dict[tuple[torch.device, torch.dtype], Tensor] = {}
        chosen = self.default_metrics if metrics is None else metrics
        super().__init__(
            names,
            mean,
            std,
            metrics=chosen,
            ignore_nan=ignore_nan,
            log=log,
            bounds=bounds,
            calibration=calibration,
        )
        self.loss_name, self._loss = type(self).loss_name, self._pinball

    @property
    def n_outputs(self) -> int:
        return len(self.names) * len(self.quantiles)

    @property
    def standard_loss(self) -> str:
        return ""

    def quantiles_of(self, outputs: Tensor) -> Tensor:
        """Return the sorted outputs, ``(batch, values, levels)``, in the units of the loss."""
        columns = self._columns(outputs, "outputs")
        return columns.view(len(columns), len(self.names), -1).sort(dim=2).values

    def _pinball(self, outputs: Tensor, targets: Tensor, *, reduction: str) -> Tensor:
        """Return the pinball loss of each target, the mean over the levels; or its sum."""
        quantiles = self.quantiles_of(outputs)
        key = quantiles.device, quantiles.dtype
        if key not in self._levels:  # a copy to the device in each step would wait for it
            values = torch.tensor(self.quantiles, dtype=quantiles.dtype, device=quantiles.device)
            self._levels[key] = values
        each = pinball_loss(targets, quantiles, self._levels[key]).mean(dim=2)
        return each.sum() if reduction == "sum" else each

    def _in_units(self, outputs: Any) -> Tensor:
        """Return the quantiles ``(batch, values, levels)`` in the units of the targets."""
        quantiles = as_real(self.quantiles_of(outputs))
        return self._to_units(quantiles.transpose(1, 2)).transpose(1, 2)

    def _in_target_units(self, outputs: Any) -> Tensor:
        """Return the median ``(batch, values)`` in the units of the targets."""
        return self._in_units(outputs)[..., self.quantiles.index(0.5)]

    def metrics(self) -> Mapping[str, Metric]:
        return fresh_metrics(self._metrics, self.known_metrics(self.quantiles))

    def update(self, metrics: Mapping[str, Any], outputs: Any, batch: Batch) -> None:
        """Update ``QuantileMetric`` objects with the quantiles, and the others with the median."""
        chosen = {name: each for name, each in metrics.items() if isinstance(each, QuantileMetric)}
        others = {name: each for name, each in metrics.items() if name not in chosen}
        super().update(others, outputs, batch)
        if not chosen:
            return
        quantiles, weights = self._in_units(outputs), batch.sample_weight
        targets = self._matching_targets(batch.target, quantiles)
        if self.ignore_nan:
            kept = targets.isnan().logical_not().flatten()
            quantiles, targets = quantiles[kept], targets[kept]
            weights = None if weights is None else weights[kept]
        for name, metric in chosen.items():
            update_metric(name, metric, quantiles, targets, weights)

    def interval_ends(self, outputs: Any) -> tuple[Tensor, Tensor]:
        quantiles = self._in_units(outputs)
        return quantiles[..., 0], quantiles[..., -1]

    def constant_outputs(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Return the quantiles of the standardised targets."""
        columns = self.standardise(targets).reshape(len(targets), -1).double()
        levels = torch.tensor(self.quantiles, dtype=torch.float64)
        found: list[Tensor] = []
        for column in columns.T:
            values, order = column.sort()
            reached = weights[order].cumsum(0)
            rows = torch.searchsorted(reached, levels * reached[-1]).clamp(max=len(values) - 1)
            found.append(values[rows])
        return torch.cat(found)

    def calibrate(self, pairs: Iterable[tuple[Any, Batch]]) -> Mapping[str, Any]:
        """Return an empty mapping: quantiles need no factor."""
        return {}

    def decode(self, outputs: Tensor) -> list[Estimate]:
        """Return a ``QuantileEstimate`` of each sample, in the units of the targets.

        With an interval, an ``IntervalEstimate``: the outermost quantiles, widened or narrowed.
        """
        medians = super().decode(outputs)
        if self.interval is not None:
            return medians
        prefixes = [""] if len(self.names) == 1 else [f"{name}." for name in self.names]
        keys = [f"{prefix}q{level:g}" for prefix in prefixes for level in self.quantiles]
        rows = to_rows(self._in_units(outputs.detach()).flatten(start_dim=1))
        return [
            QuantileEstimate(median.values, dict(zip(keys, row, strict=True)))
            for median, row in zip(medians, rows, strict=True)
        ]

    def arguments(self) -> Mapping[str, Any]:
        return {
            "names": list(self.names),
            "quantiles": list(self.quantiles),
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
            "metrics": metric_argument(self._metrics),
            **self._optional_arguments(),
        }
