"""Read data in worker processes; the batches are the same for any number of workers."""

from __future__ import annotations

import traceback
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast, runtime_checkable

import torch
from torch.utils.data import DataLoader

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, LoaderOptions, count_steps, epoch_order, shard_bounds
from flambeau.data.worker_signals import ignore_stop_signals
from flambeau.errors import FlambeauError, InputError, TrainingError
from flambeau.global_rng import TemporarySeed, seed_globals
from flambeau.torch_internals import shut_down_workers
from flambeau.wording import name_some

_PURPOSE = "worker"


@runtime_checkable
class LazyDataset(Protocol):
    """A data set whose samples are read when a batch needs them.

    ``batch`` runs in a worker process. Before each call the global generators of torch (CPU),
    NumPy and Python are seeded by (seed, epoch, step), so that random code in it can be resumed.
    Random numbers that must not depend on the batch are drawn with ``flambeau.random`` from the
    sample number and ``epoch``.
    """

    def __len__(self) -> int: ...

    def batch(self, positions: Sequence[int], epoch: int) -> Batch:
        """Return a batch of the samples at ``positions`` (0..n-1), with ``indices`` set.

        Error messages should name the sample.
        """
        ...


class WorkerLoader(Loader):
    """A loader over a ``LazyDataset`` that prefetches batches in persistent worker processes.

    Order and random numbers do not depend on ``num_workers`` or the start step. With
    ``num_workers=0`` the batches are read in this process, and the state of its global generators
    is restored. For a CUDA device the batches are in pinned memory.

    Raises:
        InputError: Reading failed; the message names the sample, and the worker's traceback is
            attached as a note. A ``FlambeauError`` keeps its type and message.
        TrainingError: A worker process died.
    """

    def __init__(self, dataset: LazyDataset, options: LoaderOptions) -> None:
        if not len(dataset):
            raise InputError("The data set is empty. A loader needs at least one sample.")
        self.dataset = dataset
        self.options = options
        self.world_size = options.world_size
        self._steps = count_steps(len(dataset), options)
        self._reader = _Reader(dataset, options)
        self._requests = _Requests(len(dataset), options)
        self._workers: list[DataLoader[Any]] = []  # at most one
        # A DataLoader that is freed as part of a reference cycle has already lost its queues: it
        # cannot notify the workers and waits five seconds for each. This finalizer runs earlier.
        weakref.finalize(self, self._workers.clear)
        self._busy = False

    @property
    def steps_per_epoch(self) -> int:
        return self._steps

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        # The workers serve one pass at a time. A second, nested pass reads the same batches in
        # this process.
        if self.options.num_workers == 0 or self._busy:
            yield from self._in_process(epoch, start_step)
            return
        self._busy = True
        try:
            self._requests.start(epoch, start_step)
            yield from self._received(iter(self._start_workers()))
        finally:
            self._busy = False

    def close(self) -> None:
        """End the worker processes; the next pass over the loader starts new processes."""
        self._workers.clear()

    def _in_process(self, epoch: int, start_step: int) -> Iterator[Batch]:
        temporary_seed = TemporarySeed()
        requests = _Requests(len(self.dataset), self.options)
        requests.start(epoch, start_step)
        for request in requests:
            with temporary_seed.at(self._reader.key(request)):
                batch = self._reader.read(request)
            yield batch

    def _received(self, results: Iterator[Batch | _Failure]) -> Iterator[Batch]:
        while True:
            try:
                result = next(results)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                # DataLoader's error for a worker that died (out of memory, crashed), or the broken
                # pipe to it, whichever is detected first.
                self.close()
                shut_down_workers(results, error)
                del results
                raise TrainingError(
                    f"A worker process died while reading data ({error}). A common cause is too "
                    "little memory: reduce num_workers, or set num_workers=0 to see the cause."
                ) from error
            if isinstance(result, _Failure):
                raise result.error()
            yield result

    def _start_workers(self) -> DataLoader[Any]:
        if not self._workers:
            workers = DataLoader(
                cast(Any, self._reader),
                batch_size=None,
                sampler=self._requests,
                num_workers=self.options.num_workers,
                collate_fn=cast(Any, _unchanged),
                persistent_workers=True,
                worker_init_fn=ignore_stop_signals,
                pin_memory=self.options.device.type == "cuda",
                # A separate generator, so that starting an epoch does not draw from the global one.
                generator=torch.Generator(),
            )
            self._workers.append(workers)
        return self._workers[0]


@dataclass(frozen=True, slots=True)
class _Request:
    epoch: int
    step: int
    positions: list[int]


class _Requests:
    """A sampler that yields one request per step, from the epoch and step set by ``start``."""

    def __init__(self, n: int, options: LoaderOptions) -> None:
        self.n = n
        self.options = options
        self.epoch = 0
        self.start_step = 0

    def start(self, epoch: int, start_step: int) -> None:
        self.epoch, self.start_step = epoch, start_step

    def __iter__(self) -> Iterator[_Request]:
        epoch, size = self.epoch, self.options.batch_size
        order = epoch_order(self.n, self.options, epoch)
        for step in range(self.start_step, count_steps(self.n, self.options)):
            own = slice(*shard_bounds(step * size, min((step + 1) * size, self.n), self.options))
            positions: Any = order[own].numpy().tolist()
            yield _Request(epoch, step, positions)


class _Reader:
    """The object that runs in a worker: reads the batch of a request, or reports its failure."""

    def __init__(self, dataset: LazyDataset, options: LoaderOptions) -> None:
        self.dataset = dataset
        self.seed = options.seed
        # Each rank has a separate key, except rank 0, whose keys equal those of a single process.
        self.rank_key = (options.rank,) if options.rank else ()

    def key(self, request: _Request) -> int:
        return keyed.key(self.seed, _PURPOSE, request.epoch, request.step, *self.rank_key)

    def read(self, request: _Request) -> Batch:
        if not request.positions:
            # A last batch with fewer samples than ranks: an empty batch, shaped as sample 0.
            return self.read(_Request(request.epoch, request.step, [0])).first(0)
        try:
            batch = self.dataset.batch(request.positions, request.epoch)
        except FlambeauError:
            raise
        except Exception as error:
            raise InputError(
                f"Reading the samples at positions {name_positions(request.positions)} failed: "
                f"{type(error).__name__}: {error}"
            ) from error
        if batch.weight is None:
            batch.weight = batch.sample_count()
        batch.epoch = request.epoch
        return batch

    def __getitem__(self, request: _Request) -> Batch | _Failure:
        seed_globals(self.key(request))
        try:
            return self.read(request)
        except FlambeauError as error:
            # Not raised here: DataLoader would put the worker's traceback before the message.
            return _Failure(type(error), str(error), traceback.format_exc())


@dataclass(frozen=True, slots=True)
class _Failure:
    kind: Callable[[str], FlambeauError]
    message: str
    trace: str

    def error(self) -> FlambeauError:
        error = self.kind(self.message)
        error.add_note(f"Traceback of the worker process:\n{self.trace}")
        return error


def _unchanged(result: Batch | _Failure) -> Batch | _Failure:
    return result


def name_positions(positions: Sequence[int]) -> str:
    """Return at most eight of the positions, as text for an error message."""
    return name_some(positions, most=8)
