"""Starts the scenarios in processes that meet over gloo on this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

SCENARIOS = Path(__file__).with_name("scenarios.py")
TIMEOUT_S = 240


def environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What torchrun sets; gloo, also where there are GPUs."""
    return os.environ | {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


def run(folder: Path, *names: str, world_size: int = 2) -> dict[str, list[dict[str, Any]]]:
    """Each scenario's outcome on each process, all in one start of the processes."""
    port = free_port()
    command = [sys.executable, str(SCENARIOS), str(folder), *names]
    running = [
        subprocess.Popen(
            command,
            env=environment(rank, world_size, port),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        printed = [process.communicate(timeout=TIMEOUT_S)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    text = "\n".join(printed)
    assert not any(process.returncode for process in running), text
    assert "Warning" not in text, text
    return {name: [load(folder, name, r, world_size) for r in range(world_size)] for name in names}


def load(folder: Path, name: str, rank: int, world_size: int) -> dict[str, Any]:
    path = folder / f"{name}.{rank}-of-{world_size}.pt"
    found: dict[str, Any] = torch.load(path, weights_only=False)
    assert "traceback" not in found, f"process {rank} of {world_size}:\n{found['traceback']}"
    return found
