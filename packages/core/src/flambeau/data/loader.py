"""``Loader``: the protocol of the loaders that the training loop reads.

``MemoryLoader`` (``memory_loader.py``) gathers a batch from tensors in memory with one
``index_select`` per tensor; ``WorkerLoader`` (``worker_loader.py``) reads samples in worker
processes. A domain may implement this protocol with another loader.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.errors import InputError

_MOST_EMPTY = 100  # consecutive epochs without a batch


@runtime_checkable
class Loader(Protocol):
    """A source of batches that can start at any step; an epoch always has the same order.

    A loader that divides every batch among the ranks (``LoaderOptions.rank``) sets an attribute
    ``world_size``; without it the loader supports a single process only.

    A loader whose epochs differ in length has a method ``steps_in(epoch)``. One whose batches
    continue each other sets ``is_stream = True``: row i of a batch is followed by row i of the
    next. Its batches are then never divided into smaller ones, and the state that the model
    carries (``context.carry``) is kept within an epoch.
    """

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches in an epoch; in the first one, if epochs differ."""
        ...

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        """Yield the batches ``start_step, start_step + 1, …`` of ``epoch``.

        A resumed run starts at the batch after the last one that the loop used, so the loader may
        prefetch any number of batches.
        """
        ...


def not_resumable_reason(loader: Loader) -> str:
    """Return why ``loader`` cannot repeat its batches in a new process; empty if it can.

    The reason is read from the loader's attribute of the same name.
    """
    return str(getattr(loader, "not_resumable_reason", ""))


def steps_in(loader: Loader, epoch: int) -> int:
    """Return the number of batches in an epoch: ``loader.steps_in``, else ``steps_per_epoch``."""
    count: Callable[[int], int] | None = getattr(loader, "steps_in", None)
    return loader.steps_per_epoch if count is None else count(epoch)


def has_length(loader: Loader) -> bool:
    """Return whether the number of batches in an epoch is known: the loader's ``has_length``."""
    return bool(getattr(loader, "has_length", True))


def is_stream(loader: Loader) -> bool:
    """Return whether the batches of ``loader`` continue each other: its ``is_stream``."""
    return bool(getattr(loader, "is_stream", False))


def continues_epoch(loader: Loader, epoch: int) -> bool:
    """Return whether ``epoch`` continues the epoch before, so that carried state is kept.

    This is the result of the loader's method ``continues(epoch)``, which a loader has if it divides
    the long epochs of a stream into shorter ones; False without this method.
    """
    continues: Callable[[int], bool] | None = getattr(loader, "continues", None)
    return continues is not None and continues(epoch)


class StepCounts:
    """The number of optimizer steps in each epoch, which may differ between epochs.

    Args:
        in_epoch: Steps in every epoch, or a function of the epoch.

    Example:
        >>> counts = StepCounts(lambda epoch: 10 + epoch)
        >>> counts.of(2), counts.between(0, 3)
        (12, 33)
    """

    def __init__(self, in_epoch: int | Callable[[int], int]) -> None:
        self._in_epoch = in_epoch
        self._before = [0]  # steps before each epoch

    @classmethod
    def of_loader(cls, loader: Loader, accumulate: int = 1) -> StepCounts:
        """Return the counts of the steps that use ``accumulate`` batches each."""
        if not hasattr(loader, "steps_in"):
            return cls(-(-loader.steps_per_epoch // accumulate))
        return cls(lambda epoch: -(-steps_in(loader, epoch) // accumulate))

    def of(self, epoch: int) -> int:
        """Return the steps in an epoch."""
        return self._in_epoch if isinstance(self._in_epoch, int) else self._in_epoch(epoch)

    def between(self, first: int, end: int) -> int:
        """Return the steps in the epochs from ``first`` to ``end - 1``."""
        if isinstance(self._in_epoch, int):
            return (end - first) * self._in_epoch
        before = self._before
        while len(before) <= end:
            before.append(before[-1] + self._in_epoch(len(before) - 1))
        return before[end] - before[first]

    def find(self, step: int) -> tuple[int, int]:
        """Return the epoch that contains a step, and the index of the step in this epoch.

        Args:
            step: Number of the step, counted from the start of epoch 0.

        Raises:
            InputError: Too many consecutive epochs have no steps.
        """
        if isinstance(self._in_epoch, int):
            return divmod(step, self._in_epoch)
        while self._before[-1] <= step:
            n = len(self._before)
            self.between(0, n)
            if self._before[-1] == self._before[max(0, n - _MOST_EMPTY)] and n > _MOST_EMPTY:
                raise InputError(
                    f"The loader has no batches in the epochs {n - _MOST_EMPTY} to {n - 1}. Check "
                    "its steps_in(epoch)."
                )
        epoch = bisect_right(self._before, step) - 1
        return epoch, step - self._before[epoch]


class NonEmptyBatches(Loader):
    """A loader that skips the batches in which this rank has no samples.

    Args:
        loader: A loader that divides every batch among the ranks (``LoaderOptions.rank``).
    """

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        self.world_size = loader_world_size(loader)

    @property
    def steps_per_epoch(self) -> int:
        return self.loader.steps_per_epoch

    def steps_in(self, epoch: int) -> int:
        """Return the number of batches in an epoch, over all ranks."""
        return steps_in(self.loader, epoch)

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        return (batch for batch in self.loader.batches(epoch, start_step) if len(batch))


@dataclass(frozen=True)
class LoaderOptions:
    """The options with which a data set creates its loader.

    Attributes:
        batch_size: Samples in a batch, over all ranks.
        shuffle: Use a new random order in every epoch (train) instead of the order of the samples.
        seed: Seed of the order.
        drop_last: Drop the last batch if it is smaller than the others.
        num_workers: Worker processes for data read from files; 0 reads in this process.
        device: Device on which the batches are used; data in memory may be stored there.
        keep_on_device: Store data in memory on ``device``; None decides by their size.
        rank: Rank of this process; it gets its share of every batch.
        world_size: Number of processes that divide each batch.
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
    """A set of samples that creates its own loader."""

    def __len__(self) -> int: ...

    def loader(self, options: LoaderOptions) -> Loader:
        """Return a loader over these samples."""
        ...


def epoch_order(
    n: int, options: LoaderOptions, epoch: int, *, dtype: torch.dtype = torch.int64
) -> Tensor:
    """Return positions 0..n-1 in the order of ``epoch``: ``(n,)``, equal on all machines.

    ``dtype`` has no influence on the order; int32 needs half of the memory.
    """
    if not options.shuffle:
        return torch.arange(n, dtype=dtype)
    draws = keyed.generator(options.seed, "shuffle", epoch)
    return torch.randperm(n, generator=draws, dtype=dtype)


def shard_bounds(first: int, end: int, options: LoaderOptions) -> tuple[int, int]:
    """Return start and end of this rank's part of a batch at positions first to end - 1.

    The shares are consecutive, and their sizes differ by at most one sample. If the batch has
    fewer samples than there are ranks, some shares are empty.

    >>> [shard_bounds(8, 11, LoaderOptions(4, rank=rank, world_size=2)) for rank in (0, 1)]
    [(8, 9), (9, 11)]
    """
    n = end - first
    rank, world_size = options.rank, options.world_size
    return first + n * rank // world_size, first + n * (rank + 1) // world_size


def loader_world_size(loader: Loader) -> int:
    """Return how many ranks divide the batches of ``loader``: its ``world_size``, 1 by default."""
    return int(getattr(loader, "world_size", 1))


def count_steps(n: int, options: LoaderOptions) -> int:
    """Return the number of batches in an epoch of ``n`` samples."""
    if options.drop_last:
        return n // options.batch_size
    return -(-n // options.batch_size)
