"""Metrics over several processes: each saw its share of the samples, all get the score of all.

Sums and counts go together; a metric without sums gets every process's updates, in the order of the
samples. Never means of means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

from torch import Tensor

from flambeau.distributed import processes
from flambeau.task.metrics import Metric, SumMetric, score


class Kept:
    """Stands for a metric that has no sums to add up: keeps its updates until they are gathered.

    Args:
        metric: Fresh.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.updates: list[tuple[Any, ...]] = []

    def update(self, *arguments: Any) -> None:
        """Keeps what the metric would have got, on the CPU."""
        self.updates.append(_on_cpu(arguments))

    def compute(self) -> float | Tensor:
        """What the metric gives."""
        return self.metric.compute()

    def reset(self) -> None:
        """Forgets everything."""
        self.updates = []
        self.metric.reset()


def mergeable(metrics: Mapping[str, Metric]) -> dict[str, Metric]:
    """The metrics to update in each process, from fresh ones."""
    return {
        name: metric if isinstance(metric, SumMetric) or _merges_itself(metric) else Kept(metric)
        for name, metric in metrics.items()
    }


def scores_of_all(metrics: Mapping[str, Metric]) -> dict[str, float]:
    """The scores over the samples of all processes, the same everywhere; from ``mergeable``.

    Every process calls it, with the same names.
    """
    everyone = processes.current()
    if everyone is None:
        return {name: score(metric) for name, metric in metrics.items()}
    told = everyone.gather({name: _state(metric) for name, metric in metrics.items()})
    for name, metric in metrics.items():
        states = [theirs[name] for theirs in told]
        if isinstance(metric, SumMetric):
            metric.reset()
            for sums in states:
                metric.merge(sums)
        elif isinstance(metric, Kept):
            # Batch by batch, each in the order of its shares: the order of the samples.
            for turn in range(max(map(len, states))):
                for updates in states:
                    if turn < len(updates):
                        metric.metric.update(*updates[turn])
    # Another machine's processor may round otherwise, and a run must not part over that.
    return everyone.from_main({name: score(metric) for name, metric in metrics.items()})


def _state(metric: Metric) -> Any:
    if isinstance(metric, SumMetric):
        return {name: value.cpu() for name, value in metric.sums.items()}
    return metric.updates if isinstance(metric, Kept) else None


def _merges_itself(metric: Metric) -> bool:
    """Whether ``compute`` asks the other processes, as the metrics of torchmetrics do."""
    return bool(getattr(metric, "sync_on_compute", False))


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, Mapping):
        parts = cast("Mapping[Any, Any]", value)
        return {name: _on_cpu(part) for name, part in parts.items()}
    if isinstance(value, tuple | list):
        items = cast("tuple[Any, ...] | list[Any]", value)
        parts = [_on_cpu(part) for part in items]
        # A named tuple takes its parts one by one.
        return type(items)(*parts) if hasattr(items, "_fields") else type(items)(parts)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: _on_cpu(getattr(value, field.name)) for field in fields(value)}
        return replace(cast("Any", value), **parts)
    return value
