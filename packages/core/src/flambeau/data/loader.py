"""``Loader``: what the loop reads batches from. Two kinds serve nearly everyone.

``MemoryLoader`` (``gather.py``) holds the data in memory and makes a batch with one
``index_select`` a tensor; ``WorkerLoader`` (``workers.py``) reads files in worker processes.
Both, and those of domains, keep one protocol.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.batch import Batch


@runtime_checkable
class Loader(Protocol):
    """Batches of an epoch from any step on, always in the same order for the same epoch.

    A loader that gives this process its share of every batch (``LoaderOptions.rank``) says so in an
    attribute ``world_size``; one without it serves runs of a single process.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Batches in an epoch."""
        ...

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """The batches ``start_step, start_step + 1, …`` of ``epoch``.

        The position is what the loop has consumed, so a loader may read ahead as far as it likes.
        """
        ...


def not_resumable_reason(loader: Loader) -> str:
    """Why ``loader`` cannot give the same batches in a new process; empty where it can.

    A loader that cannot says so in an attribute of this name.
    """
    return str(getattr(loader, "not_resumable_reason", ""))


class NonEmptyBatches(Loader):
    """A loader without the batches that have no sample for this process.

    Args:
        loader: Gives shares (``LoaderOptions.rank``), which may be empty.
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.world_size = loader_world_size(loader)

    @property
    def steps_per_epoch(self) -> int:
        return self.loader.steps_per_epoch

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        return (batch for batch in self.loader.batches(epoch, start_step) if len(batch))


@dataclass(frozen=True)
class LoaderOptions:
    """How a data set is cut into batches.

    Attributes:
        batch_size: Samples in a batch.
        shuffle: A new order every epoch (train), or the order of the samples (valid, test).
        seed: Keys the order.
        drop_last: Leave out a last batch that is smaller than the others.
        num_workers: Worker processes for data that are read from files; 0 reads in this process.
        device: Where the batches will be used; data in memory may be kept there.
        keep_on_device: Whether they are; None decides by their size.
        rank: Which of the run's processes this is; it gets its share of every batch.
        world_size: How many processes share each batch.
    """

    batch_size: int
    shuffle: bool = False
    seed: int = 0
    drop_last: bool = False
    num_workers: int = 0
    device: torch.device = torch.device("cpu")
    rank: int = 0
    world_size: int = 1
    keep_on_device: bool | None = None


@runtime_checkable
class Dataset(Protocol):
    """Samples that know which loader serves them best."""

    def __len__(self) -> int: ...

    def loader(self, options: LoaderOptions) -> Loader:
        """A loader over these samples."""
        ...


def epoch_order(n: int, options: LoaderOptions, epoch: int) -> Tensor:
    """Positions 0..n-1 in the order of ``epoch``: int64 ``(n,)``, the same on every machine."""
    if not options.shuffle:
        return torch.arange(n)
    return torch.randperm(n, generator=keyed.generator(options.seed, "shuffle", epoch))


def shard_bounds(first: int, end: int, options: LoaderOptions) -> tuple[int, int]:
    """The positions ``first`` to ``end`` of one batch that this process takes.

    The shares of the processes follow one another and differ by one sample at most; they are empty
    where a batch has fewer samples than there are processes.

    >>> [shard_bounds(8, 11, LoaderOptions(4, rank=rank, world_size=2)) for rank in (0, 1)]
    [(8, 9), (9, 11)]
    """
    n = end - first
    rank, world_size = options.rank, options.world_size
    return first + n * rank // world_size, first + n * (rank + 1) // world_size


def loader_world_size(loader: Loader) -> int:
    """How many processes share the batches of ``loader``: its ``world_size``, 1 without one."""
    return int(getattr(loader, "world_size", 1))


def count_steps(n: int, options: LoaderOptions) -> int:
    """Batches that ``n`` samples make."""
    if options.drop_last:
        return n // options.batch_size
    return -(-n // options.batch_size)
