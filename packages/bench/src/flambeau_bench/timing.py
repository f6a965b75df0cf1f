"""Clocks, and the cost of a step computed from a short run and a run five times as long."""

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
    """Return a clock of the CPU time of this process; for an accelerator, of wall time.

    On a busy machine wall time was 3–4 times the CPU time, so it says little about a loop. With an
    accelerator, CPU time would include waiting; the wall clock synchronises the device before it is
    read.
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

    A full collection visits everything that torch has loaded (0.3 s of CPU time, 2-core EPYC); by
    chance it would add to the time of one side or the other. New objects are collected as usual, in
    the time of the side that creates them.
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
    """Return cost per step and fixed cost, from a run and a run with five times as many steps.

    Dividing the time of one run by its steps would count the fixed cost as a cost of the steps.

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
