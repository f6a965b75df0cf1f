"""What a result was measured on: host, device, versions and commit."""

from __future__ import annotations

import os
import platform
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import torch


def host() -> dict[str, Any]:
    """Processor, cores and the load of the last minute, beside which wall times must be read."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": platform.system(),
        "python": platform.python_version(),
    }


def device(kind: str) -> dict[str, Any]:
    """The accelerator's name, number, CUDA version and clock; the name alone for the CPU."""
    if kind != "cuda":
        return {"name": "cpu"}
    properties = torch.cuda.get_device_properties(0)
    return {
        "name": properties.name,
        "count": torch.cuda.device_count(),
        "memory_bytes": properties.total_memory,
        "cuda": torch.version.cuda,
        **_graphics_state(),
    }


@cache
def commit() -> dict[str, Any]:
    """The commit that the code is of and whether it was changed since; empty outside of git."""
    here = Path(__file__).parent
    sha = _answer("git", "-C", str(here), "rev-parse", "HEAD")
    if not sha:
        return {"git_sha": None, "dirty": None}
    changed = _answer("git", "-C", str(here), "status", "--porcelain", "--untracked-files=no")
    return {"git_sha": sha, "dirty": bool(changed)}


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.machine())


def _graphics_state() -> dict[str, str]:
    """Clock, power and temperature as the driver tells them; empty where it does not."""
    fields = ("clocks.sm", "power.draw", "temperature.gpu", "driver_version")
    line = _answer("nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader", "-i0")
    values = [value.strip() for value in line.split(",")]
    return dict(zip(fields, values, strict=True)) if len(values) == len(fields) else {}


def _answer(*command: str) -> str:
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip() if answer.returncode == 0 else ""
