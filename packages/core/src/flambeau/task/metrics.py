"""Streaming metrics: sums that stay on the device until the score is computed.

Any object with ``update(outputs, targets)``, ``compute()`` and ``reset()`` is a metric, for example
the metrics of torchmetrics; ``score`` converts a result to a number.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from flambeau.checked_arguments import as_plain
from flambeau.errors import ArgumentError, FlambeauWarning, InputError
from flambeau.task.numerics import as_real, per_sample, real_scalar, size_of

Mode = Literal["min", "max"]
"""Whether smaller or larger values of a score are better."""


@runtime_checkable
class Metric(Protocol):
    """A number over all batches with which it was updated.

    Two attributes are optional. ``higher_is_better`` (as in torchmetrics) is True if larger values
    are better and False if smaller values are; it is needed wherever scores are compared.
    ``takes_weights`` is True if ``update`` has a third parameter for the sample weights.
    """

    def update(self, outputs: Any, targets: Any, /) -> None:
        """Add one batch; must not read values from the device."""
        ...

    def compute(self) -> float | Tensor:
        """Return the value since the last reset, as a float or a tensor with one element."""
        ...

    def reset(self) -> None:
        """Discard all batches added so far."""
        ...


MetricFactory = Callable[[], Metric]


def mode_of_metric(metric: Metric) -> Mode | None:
    """Return "max" or "min" by the metric's attribute ``higher_is_better``; None if unknown.

    Raises:
        ArgumentError: The attribute is neither True nor False nor None.
    """
    higher: object = as_plain(getattr(metric, "higher_is_better", None))
    if higher is None:
        return None
    if not isinstance(higher, bool):
        raise ArgumentError(
            f"{type(metric).__name__}.higher_is_better is {higher!r:.40}, but must be True (larger "
            "values are better), False (smaller values are better) or None (unknown)."
        )
    return "max" if higher else "min"


def score(metric: Metric) -> float:
    """Return the metric's value as a float; reads the device.

    Raises:
        ArgumentError: The metric does not compute a single number.
    """
    value: Any = metric.compute()
    if isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1):
        return float(value)
    what = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.80}"
    raise ArgumentError(
        f"{type(metric).__name__}.compute() returned {what}, but a metric must be one number. "
        "Return the mean, or define one metric for each number."
    )


def update_metric(
    name: str,
    metric: Any,
    outputs: Any,
    targets: Tensor,
    weights: Tensor | None,
    known: Mapping[str, MetricFactory] = MappingProxyType({}),
) -> None:
    """Update a metric with a batch, weighted by sample if there are weights.

    Args:
        name: Name of the metric, for the error.
        metric: Any ``Metric``. Its attribute ``takes_weights`` says whether ``update`` has a third
            parameter for the sample weights.
        outputs: Outputs of the model.
        targets: Targets of the batch.
        weights: Sample weights ``(batch,)``, or None.
        known: Metrics that can be chosen by name, for the error.

    Raises:
        InputError: There are weights, and the metric does not take them.
    """
    if weights is None:
        metric.update(outputs, targets)
        return
    check_takes_weights(name, metric, known)
    metric.update(outputs, targets, weights)


def check_takes_weights(name: str, metric: Any, known: Mapping[str, MetricFactory]) -> None:
    """Raise an InputError if a metric does not use sample weights.

    Args:
        name: Name of the metric, for the error.
        metric: Any ``Metric``.
        known: Metrics that can be chosen by name; the error names those that use weights.
    """
    if getattr(metric, "takes_weights", False):
        return
    able = [each for each, make in known.items() if getattr(make(), "takes_weights", False)]
    advice = f"Choose metrics that use them: {', '.join(able)}. " if able else ""
    if not type(metric).__module__.startswith("flambeau."):
        advice = (
            "Give its update a third parameter for the weights (batch,) and set its attribute "
            f"takes_weights = True. {advice}"
        )
    raise InputError(
        f"The samples have weights, but the metric {name!r} ({type(metric).__name__}) does not use "
        f"them, so its score would count every sample once. {advice}".rstrip()
    )


class SumMetric:
    """The base class of metrics whose state consists of a few sums.

    Attributes:
        sums: Sums by name, on the device of the first batch: int64 counts and float64 sums (float32
            on mps, which has no float64). Empty before the first batch. Sums of several processes
            are combined with ``merge``.
        higher_is_better: Whether larger values are better; None if unknown.
    """

    higher_is_better: bool | None = None

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def reset(self) -> None:
        """Discard all batches added so far."""
        self.sums = {}

    def arguments(self) -> Mapping[str, Any]:
        """Return the JSON values from which the constructor rebuilds the metric in an export."""
        return {}

    def merge(self, sums: Mapping[str, Tensor]) -> None:
        """Add ``sums``, which the same metric computed over other samples."""
        for name, value in sums.items():
            self.add(name, value)

    def add(self, name: str, value: Tensor) -> None:
        """Add ``value`` to the sum ``name``; for subclasses."""
        value = value.detach()
        wide = as_real(value) if value.is_floating_point() else value.to(torch.int64)
        old = self.sums.get(name)
        # Neither in place nor the caller's tensor: later changes must not affect the other.
        self.sums[name] = wide.clone() if old is None else old + wide.to(old.device)

    def note_nan(
        self, outputs: Tensor, kept: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        """Record whether an output is nan; for subclasses.

        The score is then nan; otherwise a nan could count as the predicted class. Outputs of
        ignored targets and of samples of weight 0 are not examined.

        Args:
            outputs: ``(batch, classes, …)``.
            kept: bool ``(batch, …)``: the targets that are not ignored; None counts all.
            weights: Sample weights ``(batch,)``, or None.
        """
        found = outputs.detach().isnan().any(dim=1)
        if kept is not None:
            found = found & kept
        if weights is not None:
            found = found & per_sample(weights > 0, found)
        self.add("nan", found.any().to(torch.int64))

    @property
    def is_undefined(self) -> bool:
        """Whether nothing was added, or some outputs were nan; reads the device."""
        return not self.sums or ("nan" in self.sums and bool(self.sums["nan"]))

    def _ratio(self, top: str, bottom: str) -> float:
        """Return ``sums[top] / sums[bottom]``; nan if nothing was counted or outputs were nan."""
        if self.is_undefined:
            return float("nan")
        return float((as_real(self.sums[top]) / as_real(self.sums[bottom])).item())


class StoringMetric:
    """The base class of metrics that need all outputs and targets at once.

    They are kept on their device in their own dtypes until ``reset``: 40 MB for 10,000 samples of
    1,000 classes in float32.
    """

    higher_is_better: bool | None = None

    def __init__(self) -> None:
        self._batches: list[tuple[Tensor, Tensor, Tensor | None]] = []

    @property
    def sums(self) -> dict[str, Tensor]:
        """All outputs, targets and weights by name, to be merged over processes like sums.

        "weights" is missing if no batch has weights.
        """
        if not self._batches:
            return {}
        outputs, targets, weights = zip(*self._batches, strict=True)
        found = {"outputs": torch.cat(outputs), "targets": torch.cat(targets)}
        if any(each is not None for each in weights):
            filled = (_or_ones(w, y) for w, y in zip(weights, targets, strict=True))
            found["weights"] = torch.cat(list(filled))
        return found

    def merge(self, sums: Mapping[str, Tensor]) -> None:
        """Add the ``sums`` of the same metric over other samples."""
        if sums:
            self._batches.append((sums["outputs"], sums["targets"], sums.get("weights")))

    def reset(self) -> None:
        """Discard all batches added so far."""
        self._batches = []

    def keep(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        """Add a batch; for subclasses."""
        # A compiled model may write its next outputs into the same memory.
        kept = None if weights is None else weights.detach().clone()
        self._batches.append((outputs.detach().clone(), targets.detach().clone(), kept))


def _or_ones(weights: Tensor | None, targets: Tensor) -> Tensor:
    if weights is not None:
        return weights
    return torch.ones(len(targets), device=targets.device)


class MeanLoss(SumMetric):
    """The weighted mean of losses given as (sum, weight); nan before the first batch."""

    higher_is_better = False

    def update(self, total: Tensor, weight: Tensor | float, /) -> None:
        """Add a summed loss, 0-d, and its weight."""
        self.add("total", total)
        self.add("weight", real_scalar(weight, total.device))

    def compute(self) -> float:
        """Return the sum of the losses divided by the sum of the weights."""
        return self._ratio("total", "weight")


def refuse_weight_zero(metrics: Mapping[str, Any], *, in_run: bool) -> None:
    """Raise an InputError if the samples of an evaluation have the total weight 0.

    Args:
        metrics: The metrics by name, with "loss".
        in_run: Whether the samples are the validation samples of a run.
    """
    weight = metrics["loss"].sums.get("weight")
    if weight is not None and not weight:
        which = "validation samples" if in_run else "samples of this part"
        raise InputError(
            f"Loss and metrics are undefined, because the {which} have the total weight 0: every "
            "sample_weight is 0, or every target is ignored (ignore_index). Use other samples, or "
            "train without a validation part."
        )


def warn_of_undefined(scores: Mapping[str, float]) -> None:
    """Warn about metrics that are nan although the loss is a number."""
    names = [name for name, value in scores.items() if math.isnan(value)]
    if "loss" in names or not names:
        return
    warnings.warn(
        f"[undefined-score] {', '.join(names)} cannot be computed from these samples, so the score "
        "is nan. Either there are too few samples (R² of one sample, a class without samples), or "
        "the metric ignores all targets (its ignore_index is not that of the loss), or some "
        "outputs are nan. Choose other metrics, or more samples.",
        FlambeauWarning,
        stacklevel=3,
    )


class ShareMetric(SumMetric):
    """The base class of metrics that are a share: correct elements divided by counted elements.

    A subclass that computes a share of errors must set ``higher_is_better = False``.
    """

    higher_is_better = True
    takes_weights = True

    def add_correct(
        self, correct: Tensor, kept: Tensor | None = None, weights: Tensor | None = None
    ) -> None:
        """Count the elements, and the correct ones; for subclasses.

        Args:
            correct: Whether each element is correct, bool ``(batch, …)``.
            kept: Which elements count, bool of the same shape; None counts all.
            weights: Sample weights ``(batch,)``; None counts every element once.
        """
        if weights is not None:
            each = per_sample(as_real(weights), correct).expand(correct.shape)
            each = each if kept is None else each * kept
            self.add("correct", (each * correct).sum())
            self.add("count", each.sum())
            return
        self.add("correct", (correct if kept is None else correct & kept).sum())
        self.add("count", size_of(correct) if kept is None else kept.sum())

    def compute(self) -> float:
        """Return the share, 0..1; nan if nothing was counted."""
        return self._ratio("correct", "count")
