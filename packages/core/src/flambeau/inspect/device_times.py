"""``DeviceTimer``: seconds in which an accelerator computes, copies and is waited for."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch.profiler import ProfilerActivity, profile

from flambeau.atomic_write import storage_errors
from flambeau.device import finish_queue

Interval = tuple[float, float]
"""Start and end in microseconds."""


@dataclass(frozen=True)
class DeviceTimes:
    """Seconds over all recorded steps.

    Attributes:
        busy_s: At least one kernel or copy runs on the device.
        copy_s: Only copies between host and device run.
        wait_s: The host waits for the device.
        kernels: Number of kernels.
        exchange_s: Only an exchange with other processes (NCCL) runs.
    """

    busy_s: float = 0.0
    copy_s: float = 0.0
    wait_s: float = 0.0
    kernels: int = 0
    exchange_s: float = 0.0


class DeviceTimer:
    """Records blocks with torch.profiler.

    Args:
        device: The device to record, besides the host.
    """

    def __init__(self, device: torch.device) -> None:
        activities = [ProfilerActivity.CPU]
        if device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)
        self._profile = profile(activities=activities)

    def start(self) -> None:
        """Start recording."""
        self._profile.start()

    def stop(self) -> None:
        """Stop recording; the device must be idle."""
        self._profile.stop()

    def times(self) -> DeviceTimes:
        """Return what was recorded."""
        return device_times(cast("Iterable[Any]", self._profile.events() or ()))

    def write(self, path: Path) -> None:
        """Write the trace, which chrome://tracing and ui.perfetto.dev show.

        Raises:
            StorageError: The file cannot be written.
        """
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._profile.export_chrome_trace(str(path))
            except Exception:
                path.unlink(missing_ok=True)  # a part of the trace
                raise


def device_times(events: Iterable[Any]) -> DeviceTimes:
    """Return the times of profiler events (``torch.autograd.profiler_util.FunctionEvent``)."""
    kernels: list[Interval] = []
    copies: list[Interval] = []
    exchanges: list[Interval] = []
    wait_us = 0.0
    for event in events:
        interval = event.time_range.start, event.time_range.end
        if event.device_type.name == "CPU":
            if event.name.startswith("cuda") and "Synchronize" in event.name:
                wait_us += interval[1] - interval[0]
        elif not event.is_user_annotation:  # the range of a block of the host, gaps included
            between_host = "HtoD" in event.name or "DtoH" in event.name
            if event.name.startswith("nccl"):
                exchanges.append(interval)
            else:
                (copies if between_host else kernels).append(interval)
    busy_us = _covered(kernels + copies + exchanges)
    copy_us = busy_us - _covered(kernels + exchanges)
    exchange_us = busy_us - _covered(kernels + copies)
    seconds = (each * 1e-6 for each in (busy_us, copy_us, wait_us))
    return DeviceTimes(*seconds, kernels=len(kernels), exchange_s=exchange_us * 1e-6)


def _covered(intervals: Sequence[Interval]) -> float:
    """Return the length of the union of the intervals."""
    covered, end = 0.0, float("-inf")
    for first, last in sorted(intervals):
        covered += max(0.0, last - max(first, end))
        end = max(end, last)
    return covered


def copy_bytes_per_s(device: torch.device, n_bytes: int) -> float:
    """Return how many bytes per second a copy of ``n_bytes`` reads and writes on the device.

    Small tensors stay in a cache, which is faster than the memory.
    """
    count = min(max(n_bytes, 1 << 16), 1 << 26) // 4
    values = torch.empty(count, device=device)
    target = torch.empty_like(values)
    repeats = max(1, (1 << 22) // count)
    seconds: list[float] = []
    for _ in range(4):
        started = _clock(device)
        for _ in range(repeats):
            target.copy_(values)
        seconds.append((_clock(device) - started) / repeats)
    return 2 * values.nbytes / max(1e-9, min(seconds))


def operator_s(device: torch.device) -> float:
    """Return the seconds that the host takes to call an operator on one value, with autograd."""
    value = torch.zeros(1, device=device, requires_grad=True)
    seconds: list[float] = []
    with torch.enable_grad():
        for _ in range(3):
            started = _clock(device)
            for _ in range(200):
                torch.add(value, 1.0)
            seconds.append(_clock(device) - started)
    return min(seconds) / 200


def _clock(device: torch.device) -> float:
    finish_queue(device)
    return time.perf_counter()
