"""Which device a run uses, and what that device can do."""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from contextlib import contextmanager

import torch

_MEMORY_WORDS = re.compile(r"can't allocate memory|not enough memory|out of memory", re.IGNORECASE)


def best_device() -> torch.device:
    """The first accelerator that torch sees, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def has_fast_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products run faster than fp32 there (tensor cores, AVX512-bf16, AMX)."""
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
    """Whether memory ran out: an accelerator's, or main memory by torch, NumPy or Python."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    # torch raises a bare RuntimeError where the CPU's allocator, or mps, has no more to give.
    return isinstance(error, RuntimeError) and _MEMORY_WORDS.search(str(error)) is not None


def available_memory_bytes() -> int:
    """Main memory that can be taken now without swapping, or 0 where it cannot be read."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (OSError, ValueError):
        return 0


def free_memory_bytes(device: torch.device) -> int:
    """Memory of an accelerator that can be taken now, or 0 where that cannot be known."""
    if device.type == "cuda":
        # A plan may name a device that this machine does not have.
        return torch.cuda.mem_get_info(device)[0] if torch.cuda.is_available() else 0
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return 0


@contextmanager
def num_threads(count: int) -> Generator[None]:
    """torch computes with ``count`` threads inside the block, then with as many as before."""
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
    """Cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
