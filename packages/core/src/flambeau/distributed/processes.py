"""The processes of one run: who they are, and what they tell each other.

``torchrun`` or ``flambeau launch`` starts them and sets RANK, WORLD_SIZE and where to meet;
``torch.distributed`` connects them. Plain values travel over gloo, tensors over the backend of
their device.
"""

from __future__ import annotations

import atexit
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
"""How long a process waits for the others before it gives up."""

_MEETING_PLACE = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FAILED = "flambeau/failed"
_STORE_TIMEOUT = timedelta(seconds=5)

T = TypeVar("T")

# torch exports these without complete types.
_dist = cast("Any", dist)


@dataclass(frozen=True)
class ProcessGroup:
    """This process among those of the run. Every method but ``leave`` is called by all of them.

    Attributes:
        rank: Number of this process, 0 to ``world_size - 1``.
        world_size: How many there are, at least 2.
        local_world_size: How many of them are on this machine.
    """

    rank: int
    world_size: int
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this is process 0, which shows progress and writes files."""
        return self.rank == 0

    def sum_over_ranks(self, numbers: Sequence[float]) -> list[float]:
        """The sum over the processes of each number; the same list everywhere."""
        values = torch.tensor(numbers, dtype=torch.float64)
        try:
            _dist.all_reduce(values)
        except RuntimeError as error:
            raise self.translate_error(error) from error
        return cast("list[float]", cast("Any", values).tolist())

    def all_gather(self, value: T) -> list[T]:
        """Every process's value, in the order of the ranks. Tensors should be on the CPU."""
        values: list[Any] = [None] * self.world_size
        try:
            _dist.all_gather_object(values, value)
        except RuntimeError as error:
            raise self.translate_error(error) from error
        return values

    def broadcast(self, value: T) -> T:
        """The value that process 0 has."""
        holder: list[Any] = [value]
        try:
            _dist.broadcast_object_list(holder, src=0)
        except RuntimeError as error:
            raise self.translate_error(error) from error
        return holder[0]

    def run_on_main(self, work: Callable[[], T]) -> T:
        """What ``work`` gives on process 0; the others wait for it.

        Raises:
            TrainingError: It failed there; process 0 raises its own error.
        """
        answer: tuple[T | None, str] = None, ""
        if self.is_main:
            try:
                answer = work(), ""
            except BaseException as error:
                self.broadcast((None, f"{type(error).__name__}: {error}"))
                raise
        value, failure = self.broadcast(answer)
        if failure:
            raise TrainingError(f"Process 0 could not do its part: {failure}")
        return cast("T", value)

    def leave(self, error: BaseException | None) -> None:
        """Closes the connections on which the others wait.

        Args:
            error: Why this process ends, to tell the others; None where they know.
        """
        if error is not None:
            # A group that the script has made need not have met where the environment says.
            with suppress(RuntimeError, KeyError, ValueError):
                _store().set(_FAILED, f"process {self.rank} raised {type(error).__name__}: {error}")
        if dist.is_initialized():
            dist.destroy_process_group()

    def translate_error(self, error: BaseException) -> BaseException:
        """``error`` where it is this process's own, else one that says what others reported."""
        if not isinstance(error, RuntimeError) or isinstance(error, TrainingError):
            return error
        reason = ""
        with suppress(RuntimeError, KeyError, ValueError):
            store = _store()
            if store.check([_FAILED]):
                reason = store.get(_FAILED).decode()
        if not reason and not _is_of_the_network(error):
            return error
        return TrainingError(
            f"Process {self.rank} lost the other processes of the run: "
            + (reason or f"one of them ended, or did not answer for {TIMEOUT_S:.0f} s ({error})")
            + ". See what that process has printed; then continue from the last checkpoint with "
            "resume, on any number of processes."
        )


def current() -> ProcessGroup | None:
    """The processes that this one has joined; None where it is alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return None
    world_size = dist.get_world_size()
    if world_size < 2:
        return None
    return ProcessGroup(dist.get_rank(), world_size, _local_world_size(world_size))


def run_on_main(work: Callable[[], T]) -> T:
    """``work()`` on process 0, for which the others wait; alone just ``work()``."""
    group = current()
    return work() if group is None else group.run_on_main(work)


def all_gather(value: T) -> list[T]:
    """Return the value of every process, in the order of the ranks; alone a list of one."""
    group = current()
    return [value] if group is None else group.all_gather(value)


def initialize(timeout_s: float = TIMEOUT_S) -> ProcessGroup | None:
    """Meets the other processes, where the environment says that there are any.

    A process group that the script has made itself is used as it is. Each process takes the GPU
    of its local rank; where there are fewer GPUs than processes they share them, over gloo.

    Args:
        timeout_s: How long to wait for the others, now and later.

    Returns:
        The processes, or None for a script that runs alone.

    Raises:
        TrainingError: The environment is incomplete, or the group has no backend for the CPU.
    """
    if dist.is_available() and dist.is_initialized():
        if dist.get_world_size() > 1 and "gloo" not in str(_dist.get_backend_config()):
            raise TrainingError(
                f"The process group of this script has the backend {dist.get_backend()!r} alone, "
                "but plain values travel over gloo. Make it with "
                'init_process_group("cpu:gloo,cuda:nccl"), or leave it to flambeau.'
            )
        return current()
    if int(os.environ.get("WORLD_SIZE") or 1) < 2:
        return None
    missing = [name for name in _MEETING_PLACE if not os.environ.get(name)]
    if missing:
        raise TrainingError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']}, but {', '.join(missing)} is not set, so "
            "this process cannot find the others. Start the script with `flambeau launch` or "
            "`torchrun`, or unset WORLD_SIZE to run it alone."
        )
    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK") or os.environ["RANK"]) % gpus)
    enough = gpus >= _local_world_size(int(os.environ["WORLD_SIZE"]))
    backend = "cpu:gloo,cuda:nccl" if enough else "gloo"
    _dist.init_process_group(backend, timeout=timedelta(seconds=timeout_s))
    atexit.register(_close)
    return current()


def _local_world_size(world_size: int) -> int:
    return int(os.environ.get("LOCAL_WORLD_SIZE") or world_size)


def _close() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def _store() -> Any:
    """A connection of its own to the place where the processes met."""
    return _dist.TCPStore(
        os.environ["MASTER_ADDR"],
        int(os.environ["MASTER_PORT"]),
        is_master=False,
        timeout=_STORE_TIMEOUT,
        wait_for_workers=False,
    )


def _is_of_the_network(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, _dist.DistError) or "gloo" in text or "nccl" in text
