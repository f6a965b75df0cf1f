"""Metrics over several processes: each rank updates them with its share of the samples.

All ranks get the score over all samples. Sums and counts are added over the ranks, means never are.
A metric without sums receives the updates of every rank, in sample order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from torch import Tensor

from flambeau.distributed import processes
from flambeau.nested import to_cpu


class Metric(Protocol):
    """The methods of a metric that this module calls; see ``flambeau.task.metrics.Metric``."""

    def update(self, *arguments: Any) -> None:
        """Add one batch."""
        ...

    def compute(self) -> Any:
        """Return the score of all batches since the last ``reset``."""
        ...

    def reset(self) -> None:
        """Discard the state of all batches."""
        ...


@runtime_checkable
class MergeableMetric(Metric, Protocol):
    """A metric whose state is a few tensors that can be merged over ranks.

    These tensors are sums, which ``merge`` adds (``SumMetric``), or all outputs and targets, which
    ``merge`` concatenates (the ranking metrics in ``probability_metrics``).
    """

    @property
    def sums(self) -> Mapping[str, Tensor]:
        """The tensors by name."""
        ...

    def merge(self, sums: Mapping[str, Tensor]) -> None:
        """Merge the tensors of another rank into those of this one."""
        ...


class UpdateLog:
    """Records the updates of a metric without sums until the updates of all ranks are gathered.

    Args:
        metric: A metric that has not been updated yet.
    """

    def __init__(self, metric: Metric) -> None:
        self.metric = metric
        self.updates: list[tuple[Any, ...]] = []

    def update(self, *arguments: Any) -> None:
        """Store the arguments of the update on the CPU."""
        self.updates.append(to_cpu(arguments))

    def compute(self) -> Any:
        """Return the metric's score."""
        return self.metric.compute()

    def reset(self) -> None:
        """Discard the recorded updates and reset the metric."""
        self.updates = []
        self.metric.reset()


def make_syncable(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metrics that a rank updates; a metric without sums is wrapped in ``UpdateLog``."""
    return {
        name: metric
        if isinstance(metric, MergeableMetric) or _syncs_itself(metric)
        else UpdateLog(metric)
        for name, metric in metrics.items()
    }


def synced_scores(metrics: Mapping[str, Any], score: Callable[[Any], float]) -> dict[str, float]:
    """Return the scores over the samples of all ranks; the result is the same on all ranks.

    A collective call: every rank must make it, with the same metric names.

    Args:
        metrics: The result of ``make_syncable``, after the updates of this rank.
        score: Returns the score of a metric as a number.
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
            # By batch, then by rank: the order of the samples.
            for batch in range(max(map(len, by_rank))):
                for updates in by_rank:
                    if batch < len(updates):
                        metric.metric.update(*updates[batch])
    # CPUs of different machines may round differently, but all ranks need identical scores.
    return group.broadcast({name: score(metric) for name, metric in metrics.items()})


def _state(metric: object) -> Any:
    if isinstance(metric, MergeableMetric):
        return {name: value.cpu() for name, value in metric.sums.items()}
    return metric.updates if isinstance(metric, UpdateLog) else None


def _syncs_itself(metric: object) -> bool:
    """Return whether ``compute`` synchronizes over ranks, as torchmetrics' metrics do."""
    return bool(getattr(metric, "sync_on_compute", False))
