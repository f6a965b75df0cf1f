"""Describe the machine, and the commit of the code in a folder."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch


@cache
def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def machine_facts(device: torch.device) -> dict[str, Any]:
    """Return host, processor, cores, the device of the run, and versions, as JSON values."""
    is_cuda = device.type == "cuda"
    return {
        "host": socket.gethostname(),
        "system": platform.system(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name(device) if is_cuda else str(device),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def git_state(folder: Path) -> Mapping[str, Any] | None:
    """Return commit, branch and number of changed files of the repository that contains a folder.

    Untracked files are not counted; the number is None if it takes more than 10 s. The result is
    None outside of git, or without the command. It is asked anew each time, because the user of a
    notebook may commit between two fits.

    Args:
        folder: A folder; its repository is described.
    """
    commit = output_of("git", "-C", str(folder), "rev-parse", "HEAD")
    if not commit:
        return None
    branch = output_of("git", "-C", str(folder), "rev-parse", "--abbrev-ref", "HEAD")
    changed = output_of(
        "git", "-C", str(folder), "status", "--porcelain", "--untracked-files=no", "--", ":/"
    )
    n_changed = None if changed is None else len(changed.splitlines())
    return {"commit": commit, "branch": branch, "changed_files": n_changed}


def output_of(*command: str) -> str | None:
    """Return the stdout of a command; None if it fails, is missing or takes more than 10 s."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
