"""``Regression``: one or several numbers a sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError, nearest
from flambeau.task.checks import HALF, metric_names, rows_of
from flambeau.task.error_metrics import R2, MeanAbsoluteError, RootMeanSquaredError
from flambeau.task.metrics import (
    Metric,
    MetricChoice,
    MetricFactory,
    as_real,
    fresh_metrics,
    real_dtype,
)
from flambeau.task.task import Task

LossName = Literal["mse", "huber", "mae"]


@dataclass(frozen=True)
class Estimate:
    """The model's numbers for one sample, in the units of the targets.

    Attributes:
        values: Number by name.
    """

    values: dict[str, float]

    @property
    def value(self) -> float:
        """The only number.

        Raises:
            InputError: There are several.
        """
        if len(self.values) != 1:
            raise InputError(
                f"There are {len(self.values)} numbers ({', '.join(self.values)}), not one. "
                f"Name the one you mean: estimate.values[{next(iter(self.values))!r}]."
            )
        return next(iter(self.values.values()))

    def __float__(self) -> float:
        return self.value


_LOSSES: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "mse": ("mean squared error", F.mse_loss),
    "huber": ("Huber loss", F.huber_loss),
    "mae": ("mean absolute error", F.l1_loss),
}


class Regression(Task):
    """Distance from measured numbers.

    Outputs and targets are ``(batch, values)``; with one value either may be ``(batch,)`` too.
    Nothing else is accepted: ``(batch, 1)`` against ``(batch,)`` would broadcast to a square.

    Args:
        names: What the numbers are, in the order of the columns.
        mean: Of the train targets, one a name (or one number for all).
        std: Of the train targets. With ``mean`` and ``std`` the model learns standardised targets
            and the loss is in standard deviations; metrics and answers stay in the targets' units.
        loss: "mse", "huber" (quadratic up to 1, then linear: outliers pull less) or "mae".
        metrics: Names from ``Regression.known_metrics``, or metrics of your own by name; those
            are for this process, ``arguments()`` leaves them out.

    Raises:
        ArgumentError: ``names`` is a string, or the loss or a metric is unknown.
        InputError: ``mean`` or ``std`` does not fit the names, or a std is not above 0.
    """

    builder = "regression"

    @staticmethod
    def known_metrics() -> dict[str, MetricFactory]:
        """What ``metrics`` may name."""
        return {"mae": MeanAbsoluteError, "r2": R2, "rmse": RootMeanSquaredError}

    def __init__(
        self,
        names: Sequence[str] = ("value",),
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        loss: LossName = "mse",
        *,
        metrics: MetricChoice | None = None,
    ) -> None:
        if isinstance(names, str):
            raise ArgumentError(f"Regression got the text {names!r} as names; give [{names!r}].")
        self.names = tuple(names)
        if not self.names or len(set(self.names)) < len(self.names):
            raise InputError(f"Regression needs different names, one a value, not {self.names}.")
        if loss not in _LOSSES:
            raise ArgumentError(f"Regression has no loss {loss!r}. {nearest(loss, _LOSSES)}")
        if (mean is None) != (std is None):
            raise InputError("Regression needs mean and std together, or neither.")
        self.mean = self._per_name("mean", mean)
        self.std = self._per_name("std", std)
        if self.std is not None and not all(value > 0 for value in self.std):
            raise InputError(
                f"std is {self.std}, but each must be above 0: a target that never changes cannot "
                "be learned. Leave it out of the targets."
            )
        self.loss_kind: LossName = loss
        self.loss_name, self._loss = _LOSSES[loss]
        self._metrics: MetricChoice = ("mae", "rmse", "r2") if metrics is None else metrics
        self.metrics()
        self._scale: tuple[Tensor, Tensor] | None = None

    @property
    def n_outputs(self) -> int:
        return len(self.names)

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        outputs = self._columns(outputs, "outputs")
        targets = self._matching_targets(batch.target, outputs)
        if outputs.dtype in HALF:
            outputs = outputs.float()
        total = self._loss(outputs, self.learned(targets).to(outputs.dtype), reduction="sum")
        return total, float(targets.numel())

    def learned(self, targets: Tensor) -> Tensor:
        """What the model is to answer for ``targets`` in their units: standardised, or as is."""
        if self.mean is None:
            return targets
        # float64: in float32 a mean of a million would be off by 0.03.
        mean, std = self._scale_on(targets.device)
        return (as_real(self._columns(targets, "targets")) - mean) / std

    def host_weight(self, batch: Batch) -> float | None:
        return float(batch.target.numel())

    def metrics(self) -> Mapping[str, Metric]:
        return fresh_metrics(self._metrics, self.known_metrics())

    def update(self, metrics: Mapping[str, Any], outputs: Any, batch: Batch) -> None:
        """One batch into the metrics, which see ``(batch, values)`` in the targets' units."""
        answers = self._restored(outputs)
        targets = self._matching_targets(batch.target, answers)
        for name, metric in metrics.items():
            if name == "loss":
                metric.update(*self.loss(outputs, batch))
            else:
                metric.update(answers, targets)

    def decode(self, outputs: Tensor) -> list[Estimate]:
        """The numbers of each sample in the targets' units, from the model's outputs."""
        rows = rows_of(self._restored(outputs.detach()))
        return [Estimate(dict(zip(self.names, row, strict=True))) for row in rows]

    def arguments(self) -> Mapping[str, Any]:
        return {
            "names": list(self.names),
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
            "loss": self.loss_kind,
            "metrics": metric_names(self._metrics),
        }

    def _per_name(
        self, what: str, values: float | Sequence[float] | None
    ) -> tuple[float, ...] | None:
        if values is None:
            return None
        if isinstance(values, int | float):
            values = [values] * self.n_outputs
        found = tuple(float(value) for value in values)
        if len(found) != self.n_outputs or not all(map(math.isfinite, found)):
            raise InputError(
                f"{what} is {found}, but Regression needs one finite number for each of "
                f"{', '.join(self.names)}."
            )
        return found

    def _columns(self, value: Any, what: str) -> Tensor:
        """``(batch, values)``, from that or, with one value, from ``(batch,)``."""
        if isinstance(value, Tensor):
            if value.ndim == 2 and value.shape[1] == self.n_outputs:
                return value
            if value.ndim == 1 and self.n_outputs == 1:
                return value.unsqueeze(1)
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        also = " or (batch,)" if self.n_outputs == 1 else ""
        mend = "Mend the targets in the data set, or give Regression as many names."
        if what == "outputs":
            mend = f"Give the model's last layer {self.n_outputs} output(s)."
            if not isinstance(value, Tensor):
                mend = "Return one tensor from the model's forward."
        raise InputError(
            f"Regression of {', '.join(self.names)} expects {what} of shape "
            f"(batch, {self.n_outputs}){also}, and got {found}. {mend}"
        )

    def _matching_targets(self, targets: Tensor, outputs: Tensor) -> Tensor:
        targets = self._columns(targets, "targets")
        if targets.shape[0] != outputs.shape[0]:
            raise InputError(
                f"There are {targets.shape[0]} targets for {outputs.shape[0]} answers of the "
                "model. Check that forward keeps the batch axis first."
            )
        return targets

    def _scale_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Mean and std, ``(values,)`` each, in the widest float of the device."""
        scale = self._scale
        if scale is None or scale[0].device != device:
            mean, std = torch.tensor([self.mean, self.std], dtype=real_dtype(device)).to(device)
            scale = self._scale = (mean, std)
        return scale

    def _restored(self, outputs: Any) -> Tensor:
        answers = as_real(self._columns(outputs, "outputs"))
        if self.mean is None:
            return answers
        mean, std = self._scale_on(answers.device)
        return answers * std + mean
