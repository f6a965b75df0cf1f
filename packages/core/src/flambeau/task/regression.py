"""``Regression``: one or several numbers per sample."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from flambeau.checked_arguments import checked_flag
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.task.class_validation import several_outputs_error
from flambeau.task.metric_choice import MetricChoice, fresh_metrics, metric_argument
from flambeau.task.metrics import Metric, MetricFactory, update_metric
from flambeau.task.model_call import of_ensemble
from flambeau.task.named_losses import VALUE_LOSSES, Loss, reducible
from flambeau.task.numerics import HALF_DTYPES, as_real, per_sample, real_dtype, to_rows, weighted
from flambeau.task.predicted_intervals import CONFORMAL, PredictsIntervals, checked_scores
from flambeau.task.regression_metrics import R2, MeanAbsoluteError, RootMeanSquaredError
from flambeau.task.sample_weights import known_weight, weight_of
from flambeau.wording import class_name, named_numbers

if TYPE_CHECKING:
    from flambeau.data.memory_loader import MemoryDataset
    from flambeau.task.batch_summary import Summary
    from flambeau.task.target_transform import Bounds, LogName

LossName = Literal["mse", "huber", "mae"]


@dataclass(frozen=True)
class Estimate:
    """The predicted numbers of one sample, in the units of the targets.

    Attributes:
        values: Predicted number by name.
    """

    values: dict[str, float]

    @property
    def value(self) -> float:
        """The predicted number, if there is only one.

        Raises:
            InputError: There are several numbers.
        """
        if len(self.values) != 1:
            raise InputError(
                f"This estimate has {len(self.values)} numbers ({', '.join(self.values)}), so "
                f"estimate.value is ambiguous. Use estimate.values[{next(iter(self.values))!r}]."
            )
        return next(iter(self.values.values()))

    def __float__(self) -> float:
        return self.value

    def __str__(self) -> str:
        return named_numbers(self.values)


@dataclass(frozen=True)
class IntervalEstimate(Estimate):
    """The predicted numbers of one sample, each with an interval.

    Attributes:
        interval: The ends of the interval by name: "low" and "high"; for several numbers
            "price.low" and "price.high".
    """

    interval: dict[str, float]

    def __str__(self) -> str:
        return f"{super().__str__()} ({named_numbers(self.interval)})"


class Regression(PredictsIntervals):
    """Prediction of one or several numbers per sample.

    Outputs and targets are ``(batch, values)``; with one value, either can also be ``(batch,)``.
    Other shapes are refused: ``(batch, 1)`` against ``(batch,)`` would broadcast to a square.

    Args:
        names: Names of the numbers, in the order of the columns.
        mean: Mean of the train targets, one per name (or one number for all).
        std: Standard deviation of the train targets. With ``mean`` and ``std`` the model predicts
            standardised targets and the loss is in standard deviations; metrics and predictions
            are in the units of the targets.
        loss: "mse", "huber" (quadratic up to 1, then linear: less sensitive to outliers), "mae", or
            a function of outputs and targets, both ``(batch, values)``, that returns the loss of
            each element: ``nn.HuberLoss(reduction="none", delta=2.0)``. An export can contain such
            a function only if the domain registers its class in ``losses``.
        metrics: Names from ``Regression.known_metrics``, or metric objects by name. An export can
            contain only objects whose class core or the domain registers.
        ignore_nan: Samples whose target is NaN do not count in loss and metrics. Otherwise such a
            sample ends the run. For one name; for several, use a ``CombinedTask`` with a task for
            each name.
        log: The model predicts the logarithm of the targets: "log", the natural logarithm, for
            targets above 0; or "log1p", the logarithm of 1 + target, for targets of at least 0.
            ``mean`` and ``std`` are then those of the logarithms. Predictions and metrics stay in
            the units of the targets. Errors of the logarithm are relative errors. The exponential
            of a mean of logarithms is not the mean of the targets, but, if the errors of the
            logarithm are symmetric, their median, which is lower. ``calibrate`` fits a factor that
            corrects predictions to the mean.
        bounds: Lowest and highest prediction, such as the range of the train targets: one pair for
            all names, or one for each. Predictions outside are set to the bound; the loss does not
            use it.
        calibration: What ``calibrate`` returned: ``{"smearing": [factor of each name]}``.

    Raises:
        ArgumentError: ``names`` is a string, or the loss, a metric or ``log`` is unknown; or
            ``ignore_nan`` is set for several names.
        InputError: ``mean`` or ``std`` does not fit the names, a std is not above 0, or bounds do
            not increase.
    """

    builder = "regression"
    kind = "regression"

    @staticmethod
    def known_metrics() -> dict[str, MetricFactory]:
        """Return the metrics that can be chosen by name, with the functions that create them."""
        return {"mae": MeanAbsoluteError, "r2": R2, "rmse": RootMeanSquaredError}

    def __init__(
        self,
        names: Sequence[str] = ("value",),
        mean: float | Sequence[float] | None = None,
        std: float | Sequence[float] | None = None,
        loss: LossName | Loss = "mse",
        *,
        metrics: MetricChoice | None = None,
        ignore_nan: bool = False,
        log: LogName | None = None,
        bounds: Bounds | None = None,
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        self.names = self._checked_names(names)
        ignore_nan = checked_flag(ignore_nan, "ignore_nan")
        if ignore_nan and len(self.names) > 1:
            raise ArgumentError(
                f"ignore_nan=True is for one name, but there are {len(self.names)}, which may be "
                "missing in different samples. Use CombinedTask with a task for each name."
            )
        self.ignore_nan = ignore_nan
        if isinstance(loss, type):
            raise ArgumentError(
                f"loss is the class {loss.__name__}. Create an object that returns one loss per "
                f'element: nn.{loss.__name__}(reduction="none").'
            )
        if not callable(loss) and loss not in VALUE_LOSSES:
            raise ArgumentError(
                f"Unknown loss {loss!r} for Regression. {did_you_mean(loss, VALUE_LOSSES)}"
            )
        if (mean is None) != (std is None):
            raise InputError("Regression needs both mean and std, or neither.")
        self.mean = self._per_name("mean", mean)
        self.std = self._per_name("std", std)
        if self.std is not None and not all(value > 0 for value in self.std):
            raise InputError(
                f"std is {self.std}, but each must be above 0. Remove constant targets: there is "
                "nothing to learn."
            )
        self.target_log: LogName | None = log
        self.bounds: tuple[tuple[float, float], ...] | None = None
        if log is not None or bounds is not None:
            from flambeau.task.target_transform import checked_bounds, checked_log

            self.target_log = checked_log(log)
            self.bounds = checked_bounds(bounds, len(self.names))
        if calibration:
            self.calibration = self._checked_calibration(calibration)
        self.loss_kind: LossName | Loss = loss
        self.loss_name, self._loss = (
            (class_name(loss), reducible(loss)) if callable(loss) else VALUE_LOSSES[loss]
        )
        self._metrics: MetricChoice = ("mae", "rmse", "r2") if metrics is None else metrics
        self.metrics()
        self._scale: tuple[Tensor, Tensor] | None = None

    def _checked_names(self, names: Sequence[str]) -> tuple[str, ...]:
        if isinstance(names, str):
            raise ArgumentError(
                f"names must be a list of strings, not the string {names!r}. Write [{names!r}]."
            )
        if not isinstance(names, list | tuple):
            from flambeau.data.ordered_names import in_order

            names = in_order(names, "names", "target")
        found = tuple(names)
        if not found or len(set(found)) < len(found):
            kind = type(self).__name__
            raise InputError(f"{kind} needs distinct names, one per value, not {found}.")
        return found

    @property
    def n_outputs(self) -> int:
        return len(self.names)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.names

    @property
    def standard_loss(self) -> str:
        is_named = type(self).loss is Regression.loss and isinstance(self.loss_kind, str)
        return str(self.loss_kind) if is_named else ""

    @property
    def standardises(self) -> bool:
        return self.mean is not None or self.target_log is not None

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        if of_ensemble(outputs):
            return outputs.mean_loss(partial(Regression.loss, self), batch)
        outputs = self._columns(outputs, "outputs")
        targets = self._matching_targets(batch.target, outputs)
        if outputs.dtype in HALF_DTYPES:
            outputs = outputs.float()
        if self.target_log is not None and targets.device.type == "cpu":  # else it would wait
            numbers = batch.indices
            self._check_log(targets, lambda row: row if numbers is None else int(numbers[row]))
        samples = batch.sample_weight
        if self.ignore_nan:
            kept = targets.isnan().logical_not()
            samples = kept.flatten() if samples is None else samples * kept.flatten()
            targets = torch.where(kept, targets, 1)  # nan times a weight of 0 is nan
        standardised = self.standardise(targets).to(outputs.dtype)
        if samples is None:
            total = self._loss(outputs, standardised, reduction="sum")
            return total, float(targets.numel())
        samples = per_sample(samples.to(outputs.dtype), outputs)
        total = weighted(self._loss(outputs, standardised, reduction="none"), samples).sum()
        return total, weight_of(targets.numel(), samples, targets)

    def standardise(self, targets: Tensor) -> Tensor:
        """Return ``(targets - mean) / std``, or the targets themselves without mean and std.

        With ``log`` the logarithms take the place of the targets.
        """
        if self.target_log is not None:
            from flambeau.task.target_transform import to_log

            targets = to_log(targets, self.target_log)
        if self.mean is None:
            return targets
        # float64: in float32 a mean of one million has an error of 0.03.
        mean, std = self._scale_on(targets.device)
        return (as_real(self._columns(targets, "targets")) - mean) / std

    def check_targets(self, part: str, dataset: MemoryDataset) -> None:
        if self.target_log is not None:
            for values in dataset.targets.values():
                self._check_log(values, dataset.sample_number, f" in {part}")

    def _check_log(self, targets: Tensor, number: Callable[[int], int], part: str = "") -> None:
        """Raise an InputError for targets that have no logarithm."""
        from flambeau.task.target_transform import log_error

        if self.target_log is not None:
            error = log_error(self.target_log, type(self).__name__, targets, number, part)
            if error is not None:
                raise error

    def host_weight(self, batch: Batch) -> float | None:
        return None if self.ignore_nan else known_weight(batch, batch.target.numel())

    def target_weight(self, batch: Batch) -> Tensor | float | None:
        targets, samples = batch.target, batch.sample_weight
        if self.ignore_nan:
            kept = as_real(targets.isnan().logical_not().flatten())
            samples = kept if samples is None else samples * kept
        return weight_of(targets.numel(), samples, targets)

    def metrics(self) -> Mapping[str, Metric]:
        return fresh_metrics(self._metrics, self.known_metrics())

    def update(self, metrics: Mapping[str, Any], outputs: Any, batch: Batch) -> None:
        """Update the metrics with predictions and targets ``(batch, values)``, in target units."""
        self.check_for_metrics(metrics, outputs)
        others = self.update_loss(metrics, outputs, batch)
        predictions, weights = self._in_target_units(outputs), batch.sample_weight
        targets = self._matching_targets(batch.target, predictions)
        if self.ignore_nan:
            kept = targets.isnan().logical_not().flatten()
            predictions, targets = predictions[kept], targets[kept]
            weights = None if weights is None else weights[kept]
        for name, metric in others.items():
            update_metric(name, metric, predictions, targets, weights)

    def sample_losses(self, outputs: Any, batch: Batch) -> Tensor | None:
        from flambeau.task.sample_losses import sample_losses

        # A subclass may override the loss.
        is_own = type(self).loss is Regression.loss
        return sample_losses(self, outputs, batch, self._losses if is_own else None)

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        n = len(outputs)
        targets = self.standardise(targets).reshape(n, -1).to(outputs.dtype)
        losses = self._loss(outputs.reshape(n, -1), targets, reduction="none").mean(dim=1)
        # An ignored sample has the loss 0, as in Task.sample_losses.
        return losses.where(targets[:, 0].isnan().logical_not(), 0) if self.ignore_nan else losses

    def summarise(self, outputs: Any, batch: Batch) -> Summary:
        """Return a ``value_summary``; only the losses if outputs have no row for each sample."""
        from flambeau.task.batch_summary import loss_summary, value_summary

        if not isinstance(outputs, Tensor) or outputs.ndim > 2 or len(outputs) != len(batch):
            return loss_summary(self.sample_losses(outputs, batch))
        predictions = self._in_target_units(outputs)
        targets = self._matching_targets(batch.target, predictions)
        return value_summary(predictions, targets, self.sample_losses(outputs, batch))

    def calibrate(self, pairs: Iterable[tuple[Any, Batch]]) -> Mapping[str, Any]:
        """Return the factors that correct the exponentials to means; empty without ``log``.

        The factor of each name is the mean of the exponential of the errors of the logarithm.

        Source:
            Duan, "Smearing estimate: a nonparametric retransformation method", JASA 78 (1983).
        """
        if self.target_log is None:
            return {}
        from flambeau.task.target_transform import smearing_factors

        return {"smearing": smearing_factors(self._log_errors(*pair) for pair in pairs)}

    def _log_errors(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the errors of the logarithms, ``(batch, values)``, and the sample weights."""
        values = as_real(self._columns(outputs, "outputs"))
        targets = self.standardise(self._matching_targets(batch.target, values))
        errors = targets - values
        if self.mean is not None:
            errors = errors * self._scale_on(values.device)[1]
        weights = batch.sample_weight
        weights = errors.new_ones(len(errors)) if weights is None else as_real(weights)
        if self.ignore_nan:
            kept = errors.isnan().any(dim=1).logical_not()
            return errors[kept], weights[kept]
        return errors, weights

    def _checked_calibration(self, values: Mapping[str, Any]) -> dict[str, Any]:
        known = {CONFORMAL} if self.target_log is None else {CONFORMAL, "smearing"}
        if unknown := set(values) - known:
            hint = ", with log=…" if "smearing" in unknown else ""
            raise ArgumentError(
                f"calibration has {', '.join(sorted(unknown))}, but {type(self).__name__} knows "
                f"only {' and '.join(sorted(known))}{hint}."
            )
        found: dict[str, Any] = {}
        if "smearing" in values:
            from flambeau.task.target_transform import checked_smearing

            found["smearing"] = checked_smearing(values["smearing"], len(self.names))
        if CONFORMAL in values:
            found[CONFORMAL] = checked_scores(values[CONFORMAL])
        return found

    def interval_scores(self, outputs: Any, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor]:
        from flambeau.task.conformal import interval_scores

        low, high = self.interval_ends(outputs)
        targets = self._matching_targets(batch.target, low)
        scores = interval_scores(targets, low, high)
        weights = batch.sample_weight
        counted = scores.new_ones(len(scores)) if weights is None else as_real(weights)
        if self.ignore_nan:
            counted = counted.where(targets.isnan().any(dim=1).logical_not(), 0)
            scores = scores.nan_to_num(0.0)
        return dict(zip(self.names, scores.T, strict=True)), counted

    def interval_ends(self, outputs: Any) -> tuple[Tensor, Tensor]:
        """Return the ends of the intervals before calibration, ``(batch, values)`` each.

        Both are the prediction, without the smearing factor, which is fitted on the same samples.
        """
        values = self._to_units(as_real(self._columns(outputs, "outputs")))
        return values, values

    def decode(self, outputs: Tensor) -> list[Estimate]:
        """Return the predicted numbers of each sample, in the units of the targets."""
        if not isinstance(outputs, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] users err
            raise several_outputs_error(outputs, type(self).__name__, "decode(outputs)")
        rows = to_rows(self._in_target_units(outputs.detach()))
        estimates = [Estimate(dict(zip(self.names, row, strict=True))) for row in rows]
        if self.interval is None:
            return estimates
        from flambeau.task.conformal import widened

        ends = widened(
            *self.interval_ends(outputs.detach()), list(self.interval_quantiles().values())
        )
        prefixes = [""] if len(self.names) == 1 else [f"{name}." for name in self.names]
        keys = [f"{prefix}{end}" for end in ("low", "high") for prefix in prefixes]
        found = to_rows(torch.cat(ends, dim=1))
        return [
            IntervalEstimate(each.values, dict(zip(keys, row, strict=True)))
            for each, row in zip(estimates, found, strict=True)
        ]

    def arguments(self) -> Mapping[str, Any]:
        return {
            "names": list(self.names),
            "mean": None if self.mean is None else list(self.mean),
            "std": None if self.std is None else list(self.std),
            "loss": self.loss_kind,
            "metrics": metric_argument(self._metrics),
            **self._optional_arguments(),
        }

    def _optional_arguments(self) -> dict[str, Any]:
        """Return the arguments that are not at their defaults."""
        found: dict[str, Any] = {"ignore_nan": True} if self.ignore_nan else {}
        if self.target_log is not None:
            found["log"] = self.target_log
        if self.bounds is not None:
            found["bounds"] = [list(pair) for pair in self.bounds]
        return found | ({"calibration": dict(self.calibration)} if self.calibration else {})

    def _per_name(
        self, what: str, values: float | Sequence[float] | None
    ) -> tuple[float, ...] | None:
        if values is None:
            return None
        if isinstance(values, int | float):
            values = [values] * len(self.names)
        found = tuple(float(value) for value in values)
        if len(found) != len(self.names) or not all(map(math.isfinite, found)):
            raise InputError(
                f"{what} is {found}, but {type(self).__name__} needs one finite number for each of "
                f"{', '.join(self.names)}."
            )
        return found

    def _columns(self, value: Any, what: str) -> Tensor:
        """Return ``value`` as ``(batch, values)``; ``(batch,)`` is accepted for one value."""
        width = self.n_outputs if what == "outputs" else len(self.names)
        if isinstance(value, Tensor):
            if value.ndim == 2 and value.shape[1] == width:
                return value
            if value.ndim == 1 and width == 1:
                return value.unsqueeze(1)
        found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        also = " or (batch,)" if width == 1 else ""
        name = type(self).__name__
        fix = f"Fix the targets in the data set, or give {name} as many names."
        if what == "outputs":
            fix = f"Give the model's last layer {self.n_outputs} output(s)."
            if not isinstance(value, Tensor):
                fix = "Return one tensor from the model's forward."
        raise InputError(
            f"{name} of {', '.join(self.names)} expects {what} of shape "
            f"(batch, {width}){also}, but got {found}. {fix}"
        )

    def _matching_targets(self, targets: Tensor, outputs: Tensor) -> Tensor:
        targets = self._columns(targets, "targets")
        if targets.shape[0] != outputs.shape[0]:
            raise InputError(
                f"There are {targets.shape[0]} targets for {outputs.shape[0]} outputs of the "
                "model. Check that the first axis of forward's output is the batch."
            )
        return targets

    def _scale_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and std, ``(values,)`` each, in the widest float of the device."""
        scale = self._scale
        if scale is None or scale[0].device != device:
            mean, std = torch.tensor([self.mean, self.std], dtype=real_dtype(device)).to(device)
            scale = self._scale = (mean, std)
        return scale

    def _in_target_units(self, outputs: Any) -> Tensor:
        values = as_real(self._columns(outputs, "outputs"))
        return self._to_units(values, self.calibration.get("smearing"))

    def _to_units(self, values: Tensor, smearing: Sequence[float] | None = None) -> Tensor:
        """Return outputs ``(…, values)`` in the units of the targets, within the bounds."""
        if self.mean is not None:
            mean, std = self._scale_on(values.device)
            values = values * std + mean
        if self.target_log is None and self.bounds is None:
            return values
        from flambeau.task.target_transform import clipped, from_log

        if self.target_log is not None:
            values = from_log(values, self.target_log, smearing)
        return values if self.bounds is None else clipped(values, self.bounds)
