"""Clocks, and the slope between a short run and one five times as long."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from flambeau.errors import InputError

Clock = Callable[[], float]

LONGER = 5
"""The long run of a slope has this many times the steps of the short one."""


def clock_for(device: torch.device) -> Clock:
    """Seconds of this process's CPU time; of wall time behind all queued work on an accelerator.

    On a busy machine wall time was seen at 3–4 times CPU time, so that it says little about a
    loop. On an accelerator the host's CPU time counts waiting too, and the queue must be drained.
    """
    return time.process_time if device.type == "cpu" else wall_clock_for(device)


def wall_clock_for(device: torch.device) -> Clock:
    """Seconds of wall time, behind all queued work on an accelerator."""
    if device.type == "cpu":
        return time.perf_counter

    def drained() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return drained


def process_and_children_s() -> float:
    """CPU seconds of this process and of its children that have ended (worker processes)."""
    import resource  # POSIX only: a case that needs it fails elsewhere, the others run

    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch computes with ``count`` threads inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def settled_heap() -> Iterator[None]:
    """Inside the block the garbage collector looks at new objects only.

    A full collection walks everything that torch has loaded (0.3 s of CPU time, 2-core EPYC), and
    which side pays for it is chance. Young garbage is collected as ever, in the time of its side.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass(frozen=True)
class Slope:
    """What a step costs, and what a run costs besides.

    Attributes:
        per_step_us: Microseconds a step.
        fixed_ms: Milliseconds a run, whatever its length.
    """

    per_step_us: float
    fixed_ms: float


def slope(seconds_of: Callable[[int], float], steps: int) -> Slope:
    """The line through the times of ``steps`` and of five times as many steps.

    A mean over one run would count the fixed cost of a fit as a cost of its steps.

    Args:
        seconds_of: Runs so many steps and says how long it took.
        steps: Of the short run.

    Raises:
        InputError: ``steps`` is not positive.
    """
    if steps < 1:
        raise InputError(f"A slope needs at least one step, not {steps}.")
    gc.collect()  # what one side has left must not be collected in the other's time
    short = seconds_of(steps)
    gc.collect()
    long = seconds_of(LONGER * steps)
    per_step = (long - short) / ((LONGER - 1) * steps)
    return Slope(per_step * 1e6, (short - per_step * steps) * 1e3)
