"""Clocks, and the slope between a short run and one five times as long."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from flambeau.errors import InputError

SecondsClock = Callable[[], float]
"""Returns seconds since an arbitrary start: only differences have a meaning."""

LONG_FACTOR = 5
"""The long run of a slope has this many times the steps of the short one."""


def clock_for(device: torch.device) -> SecondsClock:
    """Return a clock of CPU time of this process; of wall time on an accelerator.

    On a busy machine wall time was 3–4 times the CPU time, so it says little about a loop. On an
    accelerator the CPU time includes waiting, and the clock synchronises the device first.
    """
    return time.process_time if device.type == "cpu" else wall_clock_for(device)


def wall_clock_for(device: torch.device) -> SecondsClock:
    """Return a clock of wall time that synchronises an accelerator first."""
    if device.type == "cpu":
        return time.perf_counter

    def synchronised() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return synchronised


def process_and_children_s() -> float:
    """Return CPU seconds of this process and of its finished children (worker processes)."""
    import resource  # POSIX only: elsewhere only the cases that need it fail

    own, children = (
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Set the number of threads that torch uses inside the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def frozen_heap() -> Iterator[None]:
    """Restrict the garbage collector to objects that are created inside the block.

    A full collection visits everything that torch has loaded (0.3 s of CPU time, 2-core EPYC) and
    would fall on either side by chance. New objects are collected as usual, in the time of the
    side that creates them.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@dataclass(frozen=True)
class Slope:
    """The cost of a step and the fixed cost of a run.

    Attributes:
        per_step_us: Microseconds per step.
        fixed_ms: Milliseconds per run that do not depend on the number of steps.
    """

    per_step_us: float
    fixed_ms: float


def slope(seconds_of: Callable[[int], float], steps: int) -> Slope:
    """Return the line through the times of ``steps`` steps and of five times as many.

    The mean of one run would count the fixed cost of a fit as a cost of its steps.

    Args:
        seconds_of: Runs the given number of steps and returns the seconds that they took.
        steps: Steps of the short run.

    Raises:
        InputError: ``steps`` is not positive.
    """
    if steps < 1:
        raise InputError(f"A slope needs at least one step, not {steps}.")
    gc.collect()  # so that garbage of one side is not collected in the time of the other
    short = seconds_of(steps)
    gc.collect()
    long = seconds_of(LONG_FACTOR * steps)
    per_step = (long - short) / ((LONG_FACTOR - 1) * steps)
    return Slope(per_step * 1e6, (short - per_step * steps) * 1e3)
