"""Runs in processes of their own, which may be killed, and what they leave behind."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

JOBS = Path(__file__).with_name("jobs.py")
PATIENCE_S = 120.0
Outside = Callable[[dict[str, Any]], None]


class Server:
    """Runs a job after the other, each in a fresh child of one process.

    Attributes:
        jobs: The module of the jobs, for what they write.
    """

    def __init__(self) -> None:
        spec = importlib.util.spec_from_file_location("survival_jobs", JOBS)
        assert spec is not None
        assert spec.loader is not None
        self.jobs = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.jobs)
        self.process = subprocess.Popen(
            [sys.executable, str(JOBS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        )

    def run(self, job: dict[str, Any], outside: Outside | None = None) -> int:
        """The exit code of the job; ``outside(job)`` may do something to it while it runs."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        if outside is not None:
            outside(job)
        return json.loads(self.process.stdout.readline())["exit"]

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(PATIENCE_S)
        self.process.stdout.close()


@pytest.fixture(scope="session")
def here() -> Iterator[Server]:
    """A server for quick tests, without workers.

    Not a child of the tests' own process: after a test whose backward pass started torch's threads,
    the children of that process could not train.
    """
    if not hasattr(os, "fork"):
        pytest.skip("processes are made by fork, which this system does not have")
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="session")
def servers() -> Iterator[Callable[[int], list[Server]]]:
    """``servers(n)`` are n processes that take jobs at the same time."""
    if not hasattr(os, "fork"):
        pytest.skip("processes are made by fork, which this system does not have")
    started: list[Server] = []

    def get(n: int) -> list[Server]:
        while len(started) < n:
            started.append(Server())
        return started[:n]

    yield get
    for server in started:
        server.close()


def send_after(lines: int, number: int, *, group: bool = False) -> Outside:
    """Sends a signal to a job once it has taken ``lines`` micro-batches."""

    def outside(job: dict[str, Any]) -> None:
        folder = Path(job["folder"])
        order, pid = folder / f"order-{job['number']}.txt", folder / f"pid-{job['number']}"
        ended = [folder / "end", folder / f"error-{job['number']}.txt"]
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and not any(path.exists() for path in ended):
            if order.exists() and order.read_text().count("\n") >= lines:
                (os.killpg if group else os.kill)(int(pid.read_text()), number)
                return
            time.sleep(0.001)

    return outside


@pytest.fixture(scope="session")
def after() -> Callable[..., Outside]:
    """``after(lines, signal)`` is for ``Server.run``."""
    return send_after


def first_difference(one: Any, other: Any, path: str = "") -> str | None:
    """Where two trees of values and tensors are not the same to the bit; None if they are."""
    if isinstance(one, torch.Tensor | np.ndarray):
        mine, theirs = torch.as_tensor(one), torch.as_tensor(other)
        same = mine.dtype == theirs.dtype and mine.shape == theirs.shape
        # As bytes: NaN equals itself and -0.0 is not 0.0.
        if same and mine.numel():
            same = bool(torch.equal(_bytes(mine), _bytes(theirs)))
        return None if same else path
    if isinstance(one, dict) and isinstance(other, dict):
        if list(one) != list(other):
            return f"{path}: {list(one)} and {list(other)}"
        # The one thing of a run that the clock decides.
        pairs = [(f"{path}/{k}", v, other[k]) for k, v in one.items() if k != "seconds"]
    elif isinstance(one, list | tuple) and type(one) is type(other):
        if len(one) != len(other):
            return f"{path}: {len(one)} and {len(other)} entries"
        pairs = [(f"{path}/{i}", a, b) for i, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        same = type(one) is type(other) and repr(one) == repr(other)  # NaN too; floats to the bit
        return None if same else f"{path}: {one!r} and {other!r}"
    return next((found for p, a, b in pairs if (found := first_difference(a, b, p))), None)


def _bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@pytest.fixture(scope="session")
def difference() -> Callable[[Any, Any], str | None]:
    """``difference(tree, other)``: where they differ first, or None."""
    return first_difference
