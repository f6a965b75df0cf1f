"""Streaming metrics: sums that stay on the device until the score is asked for.

An object with ``update(outputs, targets)``, ``compute()`` and ``reset()`` is a metric, so those of
torchmetrics fit as they are; ``score`` is the one place where a result becomes a number.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from flambeau.errors import ArgumentError, nearest


@runtime_checkable
class Metric(Protocol):
    """Takes batches one by one and gives one number for all of them."""

    def update(self, outputs: Any, targets: Any, /) -> None:
        """Takes in one batch; reads nothing from the device."""
        ...

    def compute(self) -> float | Tensor:
        """The number over everything since the last reset, as a float or a tensor with one."""
        ...

    def reset(self) -> None:
        """Forgets everything."""
        ...


def score(metric: Metric) -> float:
    """What the metric has found, as a float; reads the device.

    Raises:
        ArgumentError: The metric computes something else than one number.
    """
    value: Any = metric.compute()
    if isinstance(value, int | float) or (isinstance(value, Tensor) and value.numel() == 1):
        return float(value)
    what = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"{value!r:.80}"
    raise ArgumentError(
        f"{type(metric).__name__}.compute() gave {what}, but a metric is one number. "
        "Average it, or make one metric for each number."
    )


MetricFactory = Callable[[], Metric]
MetricChoice = Sequence[str] | Mapping[str, Metric]


def fresh_metrics(wanted: MetricChoice, known: Mapping[str, MetricFactory]) -> dict[str, Metric]:
    """New metrics by name: known names are made, metrics that are given are copied and reset.

    Raises:
        ArgumentError: A name is not known.
    """
    if isinstance(wanted, Mapping):
        given = {name: copy.deepcopy(metric) for name, metric in wanted.items()}
        for metric in given.values():
            metric.reset()
        return given
    for name in wanted:
        if name not in known:
            raise ArgumentError(f"There is no metric {name!r} here. {nearest(name, known)}")
    return {name: known[name]() for name in wanted}


class SumMetric:
    """The base of metrics whose state is a few tensors.

    Attributes:
        sums: By name, on the device of the first batch: int64 counts and float64 sums (float32 on
            mps, which has no float64). Empty before the first batch. Those of several processes
            go together with ``merge``.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def reset(self) -> None:
        """Forgets everything."""
        self.sums = {}

    def merge(self, sums: Mapping[str, Tensor]) -> None:
        """Takes in the ``sums`` of the same metric over other samples."""
        for name, value in sums.items():
            self.add(name, value)

    def add(self, name: str, value: Tensor) -> None:
        """Adds ``value`` to the sum ``name``; for subclasses."""
        value = value.detach()
        wide = as_real(value) if value.is_floating_point() else value.to(torch.int64)
        old = self.sums.get(name)
        # Never in place and never the caller's tensor: neither may change the other later.
        self.sums[name] = wide.clone() if old is None else old + wide.to(old.device)

    def _ratio(self, top: str, bottom: str) -> float:
        """``sums[top] / sums[bottom]``; nan when nothing was counted."""
        if not self.sums:
            return float("nan")
        return float((as_real(self.sums[top]) / as_real(self.sums[bottom])).item())


class MeanLoss(SumMetric):
    """The weighted mean of losses that come as (sum, weight); nan before the first one."""

    def update(self, total: Tensor, weight: Tensor | float, /) -> None:
        """Takes in a summed loss, 0-d, and how much it counts."""
        if not isinstance(weight, Tensor):
            weight = torch.full((), weight, dtype=real_dtype(total.device), device=total.device)
        self.add("total", total)
        self.add("weight", as_real(weight))

    def compute(self) -> float:
        """The sum of the losses over the sum of the weights."""
        return self._ratio("total", "weight")


class ShareMetric(SumMetric):
    """The base of metrics that are a share: right ones of all that count."""

    def add_right(self, right: Tensor, kept: Tensor | None = None) -> None:
        """Counts a bool tensor, only where ``kept`` if that is given; for subclasses."""
        self.add("right", (right if kept is None else right & kept).sum())
        self.add("count", size_of(right) if kept is None else kept.sum())

    def compute(self) -> float:
        """0..1; nan when nothing was counted."""
        return self._ratio("right", "count")


# ---------------------------------------------------------------- on the device


def real_dtype(device: torch.device) -> torch.dtype:
    """The widest float of the device."""
    return torch.float32 if device.type == "mps" else torch.float64


def as_real(value: Tensor) -> Tensor:
    """``value`` in the widest float that its device has."""
    return value.to(real_dtype(value.device))


def size_of(value: Tensor) -> Tensor:
    """The number of elements as a 0-d int64 tensor on the device of ``value``."""
    return torch.full((), value.numel(), dtype=torch.int64, device=value.device)
