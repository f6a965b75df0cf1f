"""Data that are read from files: batches made in worker processes, the same for any number."""

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

_PURPOSE = "worker"


@runtime_checkable
class LazyDataset(Protocol):
    """Samples that are read when they are needed.

    ``batch`` runs in a worker process. When it starts, the global generators of torch (CPU),
    NumPy and Python are keyed by (seed, epoch, step), so random code in it is resumable; what
    must not depend on the batch draws with ``flambeau.random`` by sample and ``epoch``.
    """

    def __len__(self) -> int: ...

    def batch(self, positions: Sequence[int], epoch: int) -> Batch:
        """The samples at ``positions`` (0..n-1) with ``indices`` set; errors name the sample."""
        ...


class WorkerLoader(Loader):
    """Batches of an ``LazyDataset``, read ahead by worker processes that live on over epochs.

    Order and random numbers are the same for every ``num_workers`` and any start step. With
    ``num_workers=0`` the batches are read in this process, whose global generators stay as they
    were. For a CUDA device they come in page-locked memory.

    Raises:
        InputError: Reading failed; the message names the sample, and the worker's traceback is
            attached as a note. An error of flambeau's own keeps its type and its words.
        TrainingError: A worker process died.
    """

    def __init__(self, dataset: LazyDataset, options: LoaderOptions) -> None:
        if not len(dataset):
            raise InputError("A data set needs at least one sample, and got none.")
        self.dataset = dataset
        self.options = options
        self.world_size = options.world_size
        self._steps = count_steps(len(dataset), options)
        self._reader = _Reader(dataset, options)
        self._requests = _Requests(len(dataset), options)
        self._workers: list[DataLoader[Any]] = []  # none or one
        # A DataLoader that Python frees as part of a cycle has lost its queues by then, and waits
        # five seconds for each worker that never hears of the end; this is called before.
        weakref.finalize(self, self._workers.clear)
        self._busy = False

    @property
    def steps_per_epoch(self) -> int:
        return self._steps

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        # The workers serve one pass at a time; a second one inside it reads in this process,
        # which gives the same batches.
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
        """Ends the worker processes; the next pass starts new ones."""
        self._workers.clear()

    def _in_process(self, epoch: int, start_step: int) -> Iterator[Batch]:
        borrowed = TemporarySeed()
        requests = _Requests(len(self.dataset), self.options)
        requests.start(epoch, start_step)
        for request in requests:
            with borrowed.at(self._reader.key(request)):
                batch = self._reader.read(request)
            yield batch

    def _received(self, answers: Iterator[Batch | _Failure]) -> Iterator[Batch]:
        while True:
            try:
                answer = next(answers)
            except StopIteration:
                return
            except (RuntimeError, OSError, EOFError) as error:
                # DataLoader's own error when a process is gone (killed for memory, crashed), or
                # the broken pipe to it, whichever is noticed first.
                self.close()
                shut_down_workers(answers, error)
                del answers
                raise TrainingError(
                    f"A worker process died while reading data ({error}). Often memory ran out: "
                    "use fewer workers (num_workers), or num_workers=0 to see the cause."
                ) from error
            if isinstance(answer, _Failure):
                raise answer.error()
            yield answer

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
                # Its own, so that starting an epoch draws nothing from the global one.
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
    """The sampler: what each step of the epoch reads, from the step that ``start`` names."""

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
            mine = slice(*shard_bounds(step * size, min((step + 1) * size, self.n), self.options))
            positions: Any = order[mine].numpy().tolist()
            yield _Request(epoch, step, positions)


class _Reader:
    """What a worker holds: turns a request into a batch, or into what went wrong."""

    def __init__(self, dataset: LazyDataset, options: LoaderOptions) -> None:
        self.dataset = dataset
        self.seed = options.seed
        # Shares of one batch are different samples; a run of one process has the keys it had.
        self.who = (options.rank,) if options.rank else ()

    def key(self, request: _Request) -> int:
        return keyed.key(self.seed, _PURPOSE, request.epoch, request.step, *self.who)

    def read(self, request: _Request) -> Batch:
        if not request.positions:
            # A last batch with fewer samples than processes: nothing of the first sample's kind.
            return self.read(_Request(request.epoch, request.step, [0])).first(0)
        try:
            batch = self.dataset.batch(request.positions, request.epoch)
        except FlambeauError:
            raise
        except Exception as error:
            raise InputError(
                f"Reading the samples at {name_positions(request.positions)} failed: "
                f"{type(error).__name__}: {error}"
            ) from error
        if batch.weight is None:
            batch.weight = float(len(request.positions))
        batch.epoch = request.epoch
        return batch

    def __getitem__(self, request: _Request) -> Batch | _Failure:
        seed_globals(self.key(request))
        try:
            return self.read(request)
        except FlambeauError as error:
            # Not raised here: DataLoader would bury the message under the worker's traceback.
            return _Failure(type(error), str(error), traceback.format_exc())


@dataclass(frozen=True, slots=True)
class _Failure:
    kind: Callable[[str], FlambeauError]
    message: str
    trace: str

    def error(self) -> FlambeauError:
        error = self.kind(self.message)
        error.add_note(f"In a worker process:\n{self.trace}")
        return error


def _unchanged(answer: Batch | _Failure) -> Batch | _Failure:
    return answer


def name_positions(positions: Sequence[int]) -> str:
    """The positions for an error message: at most eight."""
    shown = ", ".join(map(str, positions[:8]))
    return f"{shown}, …" if len(positions) > 8 else shown
