"""Metrics over several processes: each process sees its share, all get the score of every sample.

Sums and counts are added up, never means. A metric without sums gets the updates of every process,
in the order of the samples.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from flambeau.distributed import processes
from flambeau.nested import to_cpu


class Metric(Protocol):
    """What is needed of a metric here; ``flambeau.task.metrics.Metric`` describes it."""

    def update(self, *arguments: Any) -> None:
        """Add one batch."""
        ...

    def compute(self) -> Any:
        """Return the score of all batches since the last ``reset``."""
        ...

    def reset(self) -> None:
        """Forget every batch."""
        ...


@runtime_checkable
class MergeableMetric(Metric, Protocol):
    """A metric whose state is sums, which can be added up over processes (``SumMetric``)."""

    @property
    def sums(self) -> Mapping[str, Tensor]:
        """The sums by name."""
        ...

    def merge(self, sums: Mapping[str, Tensor]) -> None:
        """Add the sums of another process."""
        ...


class UpdateLog:
    """Replaces a metric without sums: keeps its updates until they are gathered.

    Args:
        metric: A fresh metric.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.updates: list[tuple[Any, ...]] = []

    def update(self, *arguments: Any) -> None:
        """Keep the arguments of the update, on the CPU."""
        self.updates.append(to_cpu(arguments))

    def compute(self) -> Any:
        """Return the score of the metric."""
        return self.metric.compute()

    def reset(self) -> None:
        """Forget every update."""
        self.updates = []
        self.metric.reset()


def make_syncable(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics to update in each process, made from fresh ones."""
    return {
        name: metric
        if isinstance(metric, MergeableMetric) or _syncs_itself(metric)
        else UpdateLog(metric)
        for name, metric in metrics.items()
    }


def synced_scores(metrics: Mapping[str, Any], score: Callable[[Any], float]) -> dict[str, float]:
    """Return the scores over the samples of all processes; the same in each of them.

    Every process must call it, with the same names.

    Args:
        metrics: As ``make_syncable`` returned them, after the updates of this process.
        score: Turns the result of a metric into a number.
    """
    group = processes.current()
    if group is None:
        return {name: score(metric) for name, metric in metrics.items()}
    states = group.all_gather({name: _state(metric) for name, metric in metrics.items()})
    for name, metric in metrics.items():
        by_rank = [state[name] for state in states]
        if isinstance(metric, MergeableMetric):
            metric.reset()
            for sums in by_rank:
                metric.merge(sums)
        elif isinstance(metric, UpdateLog):
            # Batch by batch, and within a batch rank by rank: the order of the samples.
            for batch in range(max(map(len, by_rank))):
                for updates in by_rank:
                    if batch < len(updates):
                        metric.metric.update(*updates[batch])
    # Processors of different machines may round differently, but all ranks must decide alike.
    return group.broadcast({name: score(metric) for name, metric in metrics.items()})


def _state(metric: object) -> Any:
    if isinstance(metric, MergeableMetric):
        return {name: value.cpu() for name, value in metric.sums.items()}
    return metric.updates if isinstance(metric, UpdateLog) else None


def _syncs_itself(metric: object) -> bool:
    """Return whether ``compute`` gathers over the processes, as metrics of torchmetrics do."""
    return bool(getattr(metric, "sync_on_compute", False))
