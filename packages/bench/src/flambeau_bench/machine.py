"""Describe the machine and the commit of a measurement."""

from __future__ import annotations

import os
import platform
from functools import cache
from pathlib import Path
from typing import Any

import torch

from flambeau.machine import output_of, processor


def host() -> dict[str, Any]:
    """Return processor, cores, versions and the load of the last minute, which slows runs."""
    return {
        "cpu": processor(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def device(kind: str) -> dict[str, Any]:
    """Return name, count, memory, CUDA version and state of the GPUs; for the CPU only its name."""
    if kind != "cuda":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "count": torch.cuda.device_count(),
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        **_gpu_state(),
    }


@cache
def commit() -> dict[str, Any]:
    """Return the commit of the code and whether files were changed since; None outside of git."""
    here = Path(__file__).parent
    sha = output_of("git", "-C", str(here), "rev-parse", "HEAD")
    if not sha:
        return {"git_sha": None, "dirty": None}
    changed = output_of("git", "-C", str(here), "status", "--porcelain", "--untracked-files=no")
    return {"git_sha": sha, "dirty": bool(changed)}


def _gpu_state() -> dict[str, str]:
    """Return clock, power and temperature from the driver; empty if it does not report them."""
    fields = ("clocks.sm", "power.draw", "temperature.gpu", "driver_version")
    query = f"--query-gpu={','.join(fields)}"
    line = output_of("nvidia-smi", query, "--format=csv,noheader", "-i0") or ""
    values = [value.strip() for value in line.split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else {}
