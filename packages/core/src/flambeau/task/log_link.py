"""``Poisson``, ``Gamma`` and ``Tweedie``: counts, rates and positive amounts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.task.deviance_metrics import TweedieD2, TweedieDeviance, checked_power
from flambeau.task.metric_choice import MetricChoice, fresh_metrics, metric_argument
from flambeau.task.metrics import Metric, MetricFactory
from flambeau.task.model_call import call_model, of_ensemble
from flambeau.task.numerics import HALF_DTYPES, as_real, real_dtype
from flambeau.task.regression import Regression
from flambeau.task.task import StepContext

if TYPE_CHECKING:
    from flambeau.data.memory_loader import MemoryDataset


class LogLinkTask(Regression):
    """The base class of ``Poisson``, ``Gamma`` and ``Tweedie``.

    The model predicts the logarithm of the expected value, without the logarithm of ``mean`` and
    the offset, which are added to its output. Predictions and metrics are expected values, in the
    units of the targets. Outputs and targets are ``(batch, values)``; with one value, either can
    also be ``(batch,)``.

    The loss is half the mean deviance: the negative log-likelihood minus that of exact predictions.

    Args:
        names: Names of the numbers, in the order of the columns.
        mean: Mean of the train targets (with an offset, divided by the mean exposure), one per name
            or one number for all; an untrained model then predicts about this value. None is 1.
        offset: Name of one of ``Batch.task_inputs``, ``(batch,)``, which is added to the outputs:
            the logarithm of the exposure (days, population). The expected value is then a rate
            times the exposure.
        metrics: Names from ``known_metrics``, or metric objects by name.
        ignore_nan: Samples whose target is NaN do not count in loss and metrics.

    Raises:
        ArgumentError: ``names`` is a string, or a metric is unknown.
        InputError: ``mean`` does not fit the names, or is not above 0.
    """

    power: float = 1.0
    loss_name = "half deviance"

    def __init__(
        self,
        names: Sequence[str] = ("value",),
        mean: float | Sequence[float] | None = None,
        *,
        offset: str | None = None,
        metrics: MetricChoice | None = None,
        ignore_nan: bool = False,
    ) -> None:
        chosen = self.default_metrics if metrics is None else metrics
        super().__init__(names, loss=self._half_deviance, metrics=chosen, ignore_nan=ignore_nan)
        self.loss_name = type(self).loss_name
        self.offset = offset
        self.task_inputs = () if offset is None else (offset,)
        self.center = self._per_name("mean", mean)
        if self.center is not None and not all(value > 0 for value in self.center):
            raise InputError(
                f"mean is {self.center}, but must be above 0: the model predicts its logarithm."
            )
        self._centers: dict[torch.device, Tensor] = {}

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        """Return the outputs of the model, with the offset added."""
        return self.with_offset(call_model(model, batch.inputs), batch)

    def with_offset(self, outputs: Any, batch: Batch) -> Any:
        """Return outputs ``(batch, …)`` with the offset added.

        Raises:
            InputError: The batch does not have the offset, or it is not one number for each sample.
        """
        if self.offset is None:
            return outputs
        if of_ensemble(outputs):
            return replace(outputs, members=self.with_offset(outputs.members, batch))
        found = batch.task_inputs.get(self.offset)
        if found is None:
            raise InputError(
                f"{type(self).__name__} needs the task input {self.offset!r}, but the batch has "
                f"{', '.join(batch.task_inputs) or 'none'}. Give it with the data, "
                f"task_inputs={{{self.offset!r}: …}}, and with each sample to predict."
            )
        if found.numel() != len(found) or len(found) != len(batch):
            raise InputError(
                f"The offset {self.offset!r} has shape {tuple(found.shape)} for {len(batch)} "
                "samples. Give one number for each: (batch,)."
            )
        if outputs.dtype in HALF_DTYPES:
            outputs = outputs.float()  # an offset of 10 would be rounded to 0.06
        each = found.reshape(-1, *(1 for _ in outputs.shape[1:]))
        return outputs + each.to(outputs.dtype)

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        targets = batch.target
        if targets.device.type == "cpu":  # on other devices it would wait for the device
            numbers = batch.indices
            self._check_values(targets, lambda row: row if numbers is None else int(numbers[row]))
        return super().loss(outputs, batch)

    # The weight of the loss is that of Regression.
    host_weight = Regression.host_weight
    target_weight = Regression.target_weight

    def sample_losses(self, outputs: Any, batch: Batch) -> Tensor | None:
        from flambeau.task.sample_losses import sample_losses

        # A subclass may override the loss.
        is_own = type(self).loss is LogLinkTask.loss
        return sample_losses(self, outputs, batch, self._losses if is_own else None)

    def _half_deviance(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return half the deviance of each element; outputs are logarithms without the center."""
        center = self._center_on(outputs)
        y = targets / center
        if self.power == 1:
            return center * (torch.xlogy(y, y) - y * outputs - y + outputs.exp())
        if self.power == 2:
            return outputs - y.log() + y * (-outputs).exp() - 1
        a, b = 1 - self.power, 2 - self.power
        each = y**b / (a * b) - y * (a * outputs).exp() / a + (b * outputs).exp() / b
        return center**b * each

    def _center_on(self, outputs: Tensor) -> Tensor:
        """Return the mean of the train targets, ``(values,)`` in the dtype of the outputs."""
        device = outputs.device
        if device not in self._centers:  # a copy to the device in each step would wait for it
            values = torch.tensor(self.center or (1.0,) * self.n_outputs, dtype=real_dtype(device))
            self._centers[device] = values.to(device)
        return self._centers[device].to(outputs.dtype)

    def _in_target_units(self, outputs: Any) -> Tensor:
        values = as_real(self._columns(outputs, "outputs"))
        return values.exp() * self._center_on(values)

    def interval_ends(self, outputs: Any) -> tuple[Tensor, Tensor]:
        values = self._in_target_units(outputs)
        return values, values

    def constant_outputs(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Return the outputs that predict the mean of the targets, without their offset."""
        values = targets.reshape(len(targets), -1).double()
        mean = weights @ values / weights.sum()
        return (mean / self._center_on(mean)).log()

    def check_targets(self, part: str, dataset: MemoryDataset) -> None:
        for values in dataset.targets.values():
            self._check_values(values, dataset.sample_number, f" in {part}")

    def _check_values(self, targets: Tensor, number: Callable[[int], int], where: str = "") -> None:
        """Raise an InputError for targets out of range; ``number`` names the sample of a row."""
        wrong = targets <= 0 if self.power == 2 else targets < 0
        if not bool(wrong.any()):
            return
        from flambeau.task.target_transform import range_error

        needed = "above 0" if self.power == 2 else "at least 0"
        fix = "Correct the targets, or use Regression for numbers that may be negative."
        if self.power == 2:
            fix = "Use Tweedie if 0 is possible, or Regression."
        raise range_error(type(self).__name__, targets, wrong, needed, number, where, fix)

    def arguments(self) -> Mapping[str, Any]:
        return {
            "names": list(self.names),
            "mean": None if self.center is None else list(self.center),
            "offset": self.offset,
            "metrics": metric_argument(self._metrics),
            **({"ignore_nan": True} if self.ignore_nan else {}),
        }


class Poisson(LogLinkTask):
    """Counts, or rates with an offset: the variance is proportional to the mean.

    The targets are at least 0; they need not be whole numbers. See ``LogLinkTask`` for outputs and
    arguments.

    Example:
        >>> task = Poisson(["claims"], mean=0.1, offset="exposure")
        >>> task.decode(torch.zeros(1, 1))  # exp(0) * mean
        [Estimate(values={'claims': 0.1})]
    """

    builder = "poisson"
    power = 1.0
    loss_name = "half Poisson deviance"
    default_metrics = ("poisson_deviance", "d2", "mae")

    @staticmethod
    def known_metrics() -> dict[str, MetricFactory]:
        """Return the metrics that can be chosen by name, with the functions that create them."""
        return _known_metrics("poisson_deviance", 1.0)


class Gamma(LogLinkTask):
    """Amounts above 0, such as costs or durations: the standard deviation is about the mean.

    See ``LogLinkTask`` for outputs and arguments.
    """

    builder = "gamma"
    power = 2.0
    loss_name = "half gamma deviance"
    default_metrics = ("gamma_deviance", "d2", "mae")

    @staticmethod
    def known_metrics() -> dict[str, MetricFactory]:
        """Return the metrics that can be chosen by name, with the functions that create them."""
        return _known_metrics("gamma_deviance", 2.0)


class Tweedie(LogLinkTask):
    """Amounts that are often exactly 0 and otherwise positive, such as the claims of a policy.

    The variance is proportional to the mean to the power ``power``. Targets are at least 0.

    Args:
        names: As in ``LogLinkTask``, as all arguments but ``power``.
        mean: Mean of the train targets.
        power: Above 1 (Poisson) and below 2 (gamma).
        offset: Name of the task input that is added to the outputs.
        metrics: Names from ``known_metrics``, or metric objects by name.
        ignore_nan: Samples whose target is NaN do not count.

    Raises:
        InputError: ``power`` is not between 1 and 2.
    """

    builder = "tweedie"
    loss_name = "half Tweedie deviance"
    default_metrics = ("tweedie_deviance", "d2", "mae")

    def __init__(
        self,
        names: Sequence[str] = ("value",),
        mean: float | Sequence[float] | None = None,
        *,
        power: float = 1.5,
        offset: str | None = None,
        metrics: MetricChoice | None = None,
        ignore_nan: bool = False,
    ) -> None:
        self.power = checked_power(power)
        if power in (1, 2):
            other = "Poisson" if power == 1 else "Gamma"
            raise InputError(
                f"Tweedie with power {power:g} is {other}. Use {other}({list(names)})."
            )
        super().__init__(names, mean, offset=offset, metrics=metrics, ignore_nan=ignore_nan)

    @staticmethod
    def known_metrics(power: float = 1.5) -> dict[str, MetricFactory]:
        """Return the metrics that can be chosen by name, with the functions that create them."""
        return _known_metrics("tweedie_deviance", power)

    def metrics(self) -> Mapping[str, Metric]:
        return fresh_metrics(self._metrics, self.known_metrics(self.power))

    def arguments(self) -> Mapping[str, Any]:
        return {**super().arguments(), "power": self.power}


def _known_metrics(deviance: str, power: float) -> dict[str, MetricFactory]:
    return {
        **Regression.known_metrics(),
        "d2": partial(TweedieD2, power),
        deviance: partial(TweedieDeviance, power),
    }
