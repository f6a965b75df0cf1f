"""Processes that take turns, so that what a shared machine does meets both sides of a pair alike.

Two runs of a minute, one after the other, meet a machine that may be a third slower in the second
minute. By turns each runs for a second while the other is stopped; the time for which a process
was stopped is told to its clock.
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

TURN_S = 1.0
"""Long beside what a cold cache costs at its start, short beside the moods of a machine."""

STOPPED_FILE = "FLAMBEAU_BENCH_STOPPED"
"""The environment variable that tells a process that takes turns where its stopped time is."""

_SECONDS = struct.Struct("d")


def running_s() -> float:
    """Seconds of wall time that this process has had: without those for which it was stopped."""
    own = _own_stopped_time()
    return time.perf_counter() if own is None else own.running_s()


@cache
def _own_stopped_time() -> StoppedTime | None:
    path = os.environ.get(STOPPED_FILE)
    return StoppedTime(Path(path)) if path else None


def can_take_turns() -> bool:
    """Whether processes can be stopped here (POSIX)."""
    return hasattr(signal, "SIGSTOP")


class StoppedTime:
    """Seconds for which a process was stopped, in a file that it shares with whoever stops it.

    Args:
        path: Made by the first of the two, with 0 seconds.
    """

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(_SECONDS.pack(0.0))
        with path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _SECONDS.size)

    def seconds(self) -> float:
        """Until now."""
        return _SECONDS.unpack_from(self._shared)[0]

    def add(self, seconds: float) -> None:
        """Before the process goes on."""
        _SECONDS.pack_into(self._shared, 0, self.seconds() + seconds)

    def running_s(self) -> float:
        """Wall time less the time stopped: what the process has had, from some moment on."""
        while True:
            before = self.seconds()
            now = time.perf_counter()
            # Stopped between the two readings, they would not belong together.
            if self.seconds() == before:
                return now - before


class Turn:
    """A process that shares the machine with others, each for a second.

    It leads a process group in our session: its workers are stopped with it, and where we are
    killed the system hangs a stopped group up, which ends it, or lets it run to its end where
    hang-ups are ignored (nohup).

    Args:
        command: Starts it.
        folder: In which it works; its stopped time is kept there.
        said: Gets what it says about errors.

    Attributes:
        process: With workers that it starts.
        stopped: What its clock reads.
    """

    def __init__(self, command: Sequence[str], folder: Path, said: IO[bytes] | None = None) -> None:
        path = folder / "stopped"
        self.stopped = StoppedTime(path)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
            cwd=folder,
            env={**os.environ, STOPPED_FILE: str(path)},
            process_group=0,
        )
        self._since = time.perf_counter()

    def run(self, seconds: float | None) -> None:
        """Lets the process go on, for so long or to its end."""
        self.stopped.add(time.perf_counter() - self._since)
        _signal(self.process, signal.SIGCONT)
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.stop()

    def stop(self) -> None:
        """Lets nothing of the process run."""
        _signal(self.process, signal.SIGSTOP)
        self._since = time.perf_counter()

    @property
    def over(self) -> bool:
        """Whether the process has ended."""
        return self.process.poll() is not None


def take_turns(started: Sequence[Callable[[], Turn]], seconds: float = TURN_S) -> list[int | None]:
    """Starts all and runs them to their ends, in turn; at an error none is left behind.

    Returns:
        What each ended with; once one has failed, None for those that were ended because of it.
    """
    turns: list[Turn] = []
    try:
        for start in started:
            turns.append(start())
            turns[-1].stop()
        while waiting := [turn for turn in turns if not turn.over]:
            for turn in waiting:
                turn.run(seconds if len(waiting) > 1 else None)
                if turn.process.returncode:
                    return [each.process.poll() for each in turns]
        return [turn.process.returncode for turn in turns]
    finally:
        for turn in turns:
            # Of one that is over, too: its workers may not be.
            _signal(turn.process, signal.SIGKILL)
            turn.process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    # Over already: nobody is left in its group, or (macOS) only what nobody has waited for yet.
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
