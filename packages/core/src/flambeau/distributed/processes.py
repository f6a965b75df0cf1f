"""The process group of a run and the values that its ranks exchange.

``torchrun`` or ``flambeau launch`` starts the processes and sets RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT; ``torch.distributed`` connects them. Python objects are sent over gloo, tensors over
the backend of their device.
"""

from __future__ import annotations

import atexit
import importlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist

from flambeau.errors import TrainingError

TIMEOUT_S = 600.0
"""Default timeout, in seconds, for communication with the other processes."""

_RENDEZVOUS_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FAILED = "flambeau/failed"
_STORE_TIMEOUT = timedelta(seconds=5)

T = TypeVar("T")

# torch exports these without complete types.
_dist = cast("Any", dist)


@dataclass(frozen=True)
class ProcessGroup:
    """The process group of the run, as seen by this process.

    Every method except ``leave`` and ``translate_error`` is a collective call: all ranks must make
    it.

    Attributes:
        rank: Rank of this process, 0 to ``world_size - 1``.
        world_size: Number of processes, at least 2.
        local_world_size: Number of processes on this machine.
    """

    rank: int
    world_size: int
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is rank 0, which shows progress and writes files."""
        return self.rank == 0

    def sum_over_ranks(self, numbers: Sequence[float]) -> list[float]:
        """Return each number summed over the ranks; the result is the same on all ranks."""
        values = torch.tensor(numbers, dtype=torch.float64)
        try:
            _dist.all_reduce(values)
        except RuntimeError as error:
            raise self.translate_error(error) from error
        return cast("list[float]", cast("Any", values).tolist())

    def all_gather(self, value: T) -> list[T]:
        """Return the value of every rank, in rank order. Tensors should be on the CPU."""
        values: list[Any] = [None] * self.world_size
        try:
            _dist.all_gather_object(values, value)
        except RuntimeError as error:
            raise self.translate_error(error) from error
        return values

    def broadcast(self, value: T, rank: int = 0) -> T:
        """Return the value of one rank."""
        holder: list[Any] = [value]
        try:
            _dist.broadcast_object_list(holder, src=rank)
        except RuntimeError as error:
            raise self.translate_error(error) from error
        return holder[0]

    def run_on_main(self, work: Callable[[], T]) -> T:
        """Run ``work`` on rank 0 and return its result on every rank; see ``run_on``."""
        return self.run_on(0, work)

    def run_on(self, rank: int, work: Callable[[], T]) -> T:
        """Run ``work`` on one rank and return its result on every rank.

        Raises:
            TrainingError: ``work`` failed; ``rank`` raises the original error instead.
        """
        result: tuple[T | None, str] = None, ""
        if self.rank == rank:
            try:
                result = work(), ""
            except BaseException as error:
                self.broadcast((None, f"{type(error).__name__}: {error}"), rank)
                raise
        value, failure = self.broadcast(result, rank)
        if failure:
            raise TrainingError(f"Process {rank} failed: {failure}")
        return cast("T", value)

    def leave(self, error: BaseException | None) -> None:
        """Close the connections, so that the other ranks do not wait for this rank.

        Args:
            error: Why this process ends, reported to the other ranks; None if another rank caused
                the end.
        """
        if error is not None:
            # A process group that the script created may use another store than the environment's.
            with suppress(RuntimeError, KeyError, ValueError):
                _store().set(_FAILED, f"process {self.rank} raised {type(error).__name__}: {error}")
        if dist.is_initialized():
            dist.destroy_process_group()

    def translate_error(self, error: BaseException) -> BaseException:
        """Return ``error`` if this process caused it, else an error that names the cause."""
        if not isinstance(error, RuntimeError) or isinstance(error, TrainingError):
            return error
        reason = ""
        with suppress(RuntimeError, KeyError, ValueError):
            store = _store()
            if store.check([_FAILED]):
                reason = store.get(_FAILED).decode()
        if not reason and not _is_communication_error(error):
            return error
        return TrainingError(
            f"Process {self.rank} lost the connection to the other processes of the run: "
            + (reason or f"one of them exited or did not respond for {TIMEOUT_S:.0f} s ({error})")
            + ". See the output of that process, then continue from the last checkpoint with "
            "resume, on any number of processes."
        )


def current() -> ProcessGroup | None:
    """Return the initialized process group; None if the run has only one process."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    world_size = dist.get_world_size()
    if world_size < 2:
        return None
    return ProcessGroup(dist.get_rank(), world_size, _local_world_size(world_size))


def run_on_main(work: Callable[[], T]) -> T:
    """Run ``work`` on rank 0 (without a group: here) and return its result on every rank."""
    group = current()
    return work() if group is None else group.run_on_main(work)


def all_gather(value: T) -> list[T]:
    """Return the value of every rank, in rank order; ``[value]`` without a process group."""
    group = current()
    return [value] if group is None else group.all_gather(value)


def initialize(timeout_s: float = TIMEOUT_S) -> ProcessGroup | None:
    """Initialize the process group if the environment variables of ``torchrun`` are set.

    A process group that the script initialized itself is used unchanged. Each process uses the GPU
    of its local rank; if there are fewer GPUs than processes, they share GPUs and use gloo.

    Args:
        timeout_s: Timeout in seconds for initialization and for every later collective call.

    Returns:
        The process group, or None in a run of one process.

    Raises:
        TrainingError: An environment variable is missing, or the group has no backend for the CPU.
    """
    if dist.is_available() and dist.is_initialized():
        if dist.get_world_size() > 1 and "gloo" not in str(_dist.get_backend_config()):
            raise TrainingError(
                f"The process group of this script has only the backend {dist.get_backend()!r}, "
                "but flambeau sends Python objects over gloo. Create the group with "
                'init_process_group("cpu:gloo,cuda:nccl"), or let flambeau create it.'
            )
        return current()
    if int(os.environ.get("WORLD_SIZE") or 1) < 2:
        return None
    missing = [name for name in _RENDEZVOUS_VARIABLES if not os.environ.get(name)]
    if missing:
        raise TrainingError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set, so "
            "this process cannot connect to the others. Start the script with `flambeau launch` "
            "or `torchrun`, or unset WORLD_SIZE to run a single process."
        )
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK") or os.environ["RANK"]) % gpus)
    enough = gpus >= _local_world_size(int(os.environ["WORLD_SIZE"]))
    backend = "cpu:gloo,cuda:nccl" if enough else "gloo"
    # Its functions take the process group that exists at their import as a default. DDP imports it,
    # and after the group is created that would keep the group and its threads until the process
    # exits, which can then abort ("terminate called without an active exception").
    importlib.import_module("torch.distributed.nn.functional")
    _dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    atexit.register(_close)
    return current()


def _local_world_size(world_size: int) -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE") or world_size)


def _close() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _store() -> Any:
    """Return a new connection to the rendezvous store of the process group."""
    return _dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=_STORE_TIMEOUT,
        wait_for_workers=False,
    )


def _is_communication_error(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, _dist.DistError) or "gloo" in text or "nccl" in text
