"""Run processes in alternating time slices, so that a shared machine slows them equally.

If one run of a minute follows another, the machine may be a third slower during the second run. In
time slices each process runs for a second while the others are paused. The time for which a process
was paused is subtracted from its clock.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import IO

SLICE_S = 1.0
"""Seconds per slice: long compared with the cost of cold caches at its start, short compared with
the time in which the machine's speed changes."""

STOPPED_TIME_FILE = "FLAMBEAU_BENCH_STOPPED"
"""Environment variable with the path of the file in which a process finds its paused time."""

_SECONDS = struct.Struct("d")


def running_s() -> float:
    """Return wall time of this process in seconds, without the time for which it was paused."""
    stopped = _stopped_time()
    return time.perf_counter() if stopped is None else stopped.running_s()


@cache
def _stopped_time() -> StoppedTime | None:
    path = os.environ.get(STOPPED_TIME_FILE)
    return StoppedTime(Path(path)) if path else None


def can_stop_processes() -> bool:
    """Return whether this system can pause and resume processes (POSIX)."""
    return hasattr(signal, "SIGSTOP")


class StoppedTime:
    """Seconds for which a process was paused, in a file shared with the process that pauses it.

    Args:
        path: The file; the first of the two processes creates it with 0 seconds.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_SECONDS.pack(0.0))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _SECONDS.size)

    def seconds(self) -> float:
        """Return the paused seconds so far."""
        return _SECONDS.unpack_from(self._shared)[0]

    def add(self, seconds: float) -> None:
        """Add the seconds of a pause; call this before the process continues."""
        _SECONDS.pack_into(self._shared, 0, self.seconds() + seconds)

    def running_s(self) -> float:
        """Return wall time minus paused time; only the difference of two values is meaningful."""
        while True:
            before = self.seconds()
            now = time.perf_counter()
            # A pause between the two readings would make them inconsistent.
            if self.seconds() == before:
                return now - before


class SlicedProcess:
    """A process that this process pauses and resumes.

    It leads a process group in the session of this process, so that its workers are paused with it.
    If this process is killed, the system sends SIGHUP to a paused group, which ends the group; if
    SIGHUP is ignored (nohup), the group continues to its end.

    Args:
        command: Command line of the process.
        folder: Working directory of the process; the file with its paused time is there.
        stderr: Receives the stderr of the process.

    Attributes:
        process: The process; its workers are in its process group.
        stopped: The time for which it was paused.
    """

    def __init__(
        self, command: Sequence[str], folder: Path, stderr: IO[bytes] | None = None
    ) -> None:
        path = folder / "stopped"
        self.stopped = StoppedTime(path)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=stderr,
            cwd=folder,
            env={**os.environ, STOPPED_TIME_FILE: str(path)},
            process_group=0,
        )
        self._since = time.perf_counter()

    def run(self, seconds: float | None) -> None:
        """Continue the process for ``seconds``, then pause it; None continues it to its end."""
        self.stopped.add(time.perf_counter() - self._since)
        _signal(self.process, signal.SIGCONT)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()

    def stop(self) -> None:
        """Pause the process and its workers."""
        _signal(self.process, signal.SIGSTOP)
        self._since = time.perf_counter()

    @property
    def finished(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None


def run_in_slices(
    starts: Sequence[Callable[[], SlicedProcess]], seconds: float = SLICE_S
) -> list[int | None]:
    """Start all processes and run them alternately to their ends; kill all processes on an error.

    Returns:
        The exit codes. If one process fails, the others are killed and their exit code is None.
    """
    processes: list[SlicedProcess] = []
    try:
        for start in starts:
            processes.append(start())
            processes[-1].stop()
        while unfinished := [each for each in processes if not each.finished]:
            for each in unfinished:
                each.run(seconds if len(unfinished) > 1 else None)
                if each.process.returncode:
                    return [other.process.poll() for other in processes]
        return [each.process.returncode for each in processes]
    finally:
        for each in processes:
            # Also if it has ended: its workers may still run.
            _signal(each.process, signal.SIGKILL)
            each.process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # The group may be empty already, or (macOS) contain only processes that await their parent.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
