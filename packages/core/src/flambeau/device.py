"""Device of a run: default choice, capabilities, memory and threads."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager

import torch

_OUT_OF_MEMORY = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)


def best_device() -> torch.device:
    """Return the first accelerator that torch finds, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Return whether bf16 matrix products are fast (tensor cores, AVX512-bf16, AMX)."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "cpu":
        return "bf16" in torch.backends.cpu.get_cpu_capability().lower() or _cpu_flag("avx512_bf16")
    return False


def _cpu_flag(flag: str) -> bool:
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="ignore") as file:
            return any(flag in line.split() for line in file if line.startswith("flags"))
    except OSError:
        return False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether ``error`` reports that memory of the device or of the host ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # For the CPU and for mps torch raises a plain RuntimeError.
    return isinstance(error, RuntimeError) and _OUT_OF_MEMORY.search(str(error)) is not None


def available_memory_bytes() -> int:
    """Return the bytes of main memory that are available without swapping; 0 if unknown."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (OSError, ValueError):
        return 0


def free_memory_bytes(device: torch.device) -> int:
    """Return the free bytes in the memory of an accelerator; 0 if unknown."""
    if device.type == "cuda":
        # A plan may name a device that this machine lacks.
        return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else 0
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0


@contextmanager
def num_threads(count: int) -> Generator[None]:
    """Set the number of torch threads to ``count`` in the block, and restore it afterwards."""
    before = torch.get_num_threads()
    if count == before:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def finish_queue(device: torch.device) -> None:
    """Wait until an accelerator has finished everything that was launched on it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
