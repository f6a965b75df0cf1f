"""``LiveSide``: a side that runs in a separate process and answers requests, one after another."""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self, cast

import flambeau_bench
from flambeau.errors import TrainingError
from flambeau_bench.peers.environment import own_environment, python_of
from flambeau_bench.peers.peer import Peer
from flambeau_bench.side.protocol import STARTED, Job

LIMIT_S = 3600.0
"""A side that sends no message for this many seconds has failed."""

_ROWS, _COLUMNS = 24, 100
_READER_S = 5.0


class SideError(TrainingError):
    """A side failed or cannot do a job; the message is the reason, with the end of its stderr.

    Args:
        message: The reason.
        side: Name of the side.
    """

    def __init__(self, message: str, side: str) -> None:
        super().__init__(message)
        self.side = side


def command_of(peer: Peer, program: Path, job: Job) -> list[str]:
    """Return the command line that starts a side."""
    return [python_of(peer), str(program), json.dumps(asdict(job))]


def environment_of(peer: Peer, job: Job, folder: Path) -> dict[str, str]:
    """Return the environment variables of a side.

    In another interpreter the side imports ``flambeau_bench.side`` from a compiled copy in
    ``folder``, which has nothing else of this environment.
    """
    variables = {**own_environment(), STARTED: repr(time.time())}
    if job.threads:
        variables |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(job.threads))
    if job.device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = ""  # some libraries choose an accelerator themselves
    if peer.is_project:
        variables["PYTHONPATH"] = str(copy_side_modules(peer, folder))
    return variables


def copy_side_modules(peer: Peer, folder: Path) -> Path:
    """Copy what a side may import of this package to ``folder/modules``; return that folder.

    The copy is compiled for the interpreter of the peer. flambeau imports the modules of this
    installation, which are compiled, so the other sides must not compile them at their start.
    """
    target = folder / "modules"
    if not target.exists():
        source = Path(flambeau_bench.__file__).parent
        shutil.copytree(
            source / "side",
            target / "flambeau_bench" / "side",
            ignore=shutil.ignore_patterns("__pycache__"),
        )
        for name in ("__init__.py", "time_slices.py"):
            shutil.copy(source / name, target / "flambeau_bench" / name)
        compile_all = [python_of(peer), "-m", "compileall", "-q", str(target)]
        subprocess.run(compile_all, check=True, env=own_environment())
    return target


class LiveSide:
    """A running side.

    Args:
        peer: The library.
        program: Its program.
        job: What it is asked to do.
        folder: Its working directory, which must exist; its stderr is written to a file there.

    Attributes:
        peer: The library.
        ready: Its first message: versions and import times.

    Raises:
        SideError: It ended, or gave no message in time.
    """

    def __init__(self, peer: Peer, program: Path, job: Job, folder: Path) -> None:
        self.peer, self._name = peer, peer.name
        self._log = folder / "stderr.txt"
        self._partial = b""
        self._watched: dict[str, dict[str, Any]] = {}
        with _terminal(self._log) as (terminal, self._reader):
            self._process = subprocess.Popen(
                command_of(peer, program, job),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=terminal,
                cwd=folder,
                env=environment_of(peer, job, folder),
            )
        self._requests = cast("IO[bytes]", self._process.stdin)
        self._answers = cast("IO[bytes]", self._process.stdout)
        try:
            self.ready = self._first_message()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request and return its answer.

        Raises:
            SideError: The side ended, or said that it cannot do this job.
        """
        with contextlib.suppress(BrokenPipeError):  # the reading reports why it ended
            self._requests.write(json.dumps(request).encode() + b"\n")
            self._requests.flush()
        return self._read("measured")

    def watched_facts(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the facts of a run that is observed and not timed; made once per request."""
        key = json.dumps(request, sort_keys=True)
        if key not in self._watched:
            self._watched[key] = self.run({**request, "watch": True})["facts"]
        return self._watched[key]

    def close(self) -> None:
        """End the process."""
        for stream in (self._requests, self._answers):
            with contextlib.suppress(OSError):
                stream.close()
        try:
            self._process.wait(timeout=10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not None:
            # The last lines, such as the error, may not be in the file before it has ended. It does
            # not end while a process that the side left behind holds the terminal.
            self._reader.join(timeout=_READER_S)

    def _first_message(self) -> dict[str, Any]:
        # A library that prints while it is imported does so before the program sets stdout aside.
        while True:
            line = self._line()
            with contextlib.suppress(SideError):
                if parse_message(line, self._name)["event"] == "ready":
                    return parse_message(line, self._name)

    def _read(self, event: str) -> dict[str, Any]:
        message = parse_message(self._line(), self._name)
        if message["event"] == "absent":
            raise SideError(f"{self._name} cannot do this: {message['reason']}", self._name)
        if message["event"] != event:
            self.close()
            raise SideError(
                f"{self._name} sent {message['event']!r} where {event!r} was due.", self._name
            )
        return message

    def _line(self) -> bytes:
        stream = self._answers
        with selectors.DefaultSelector() as selector:
            selector.register(stream, selectors.EVENT_READ)
            end = time.monotonic() + LIMIT_S
            while b"\n" not in self._partial:
                if not selector.select(max(0.0, end - time.monotonic())):
                    self.close()
                    raise SideError(f"{self._name} gave no answer for {LIMIT_S:.0f} s.", self._name)
                read = os.read(stream.fileno(), 1 << 16)
                if not read:
                    self.close()
                    raise SideError(
                        f"{self._name} ended with exit code {self._process.returncode}: "
                        f"{stderr_tail(self._log)}",
                        self._name,
                    )
                self._partial += read
        line, _, self._partial = self._partial.partition(b"\n")
        return line


def parse_message(line: bytes | str, name: str) -> dict[str, Any]:
    """Return a message of a side.

    Raises:
        SideError: The line is not a JSON object with an ``event``.
    """
    try:
        message = json.loads(line)
    except ValueError as error:
        raise SideError(
            f"{name} wrote a line that is not valid JSON: {line[:200]!r} ({error}).", name
        ) from error
    if not isinstance(message, dict) or "event" not in message:
        raise SideError(f"{name} wrote a line without an event: {line[:200]!r}.", name)
    return message


def stderr_tail(path: Path) -> str:
    """Return the end of a side's stderr."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return text[-1500:].strip() or "its stderr is empty."


@contextmanager
def _terminal(log: Path) -> Iterator[tuple[int, threading.Thread | None]]:
    """Return a descriptor of a terminal, and the thread that appends to ``log`` what is written.

    A user sees progress bars, and libraries draw them on a terminal only. Where there are no
    pseudo-terminals (Windows), the descriptor is that of the file.
    """
    try:
        import fcntl
        import pty
        import struct
        import termios
    except ImportError:
        with log.open("ab") as file:
            yield file.fileno(), None
        return
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, _COLUMNS, 0, 0))
    reader = threading.Thread(target=_drain, args=(master, log), daemon=True)
    reader.start()
    try:
        yield slave, reader
    finally:
        os.close(slave)


def _drain(master: int, log: Path) -> None:
    # Reading fails once the last process that has the terminal has ended (EIO on Linux).
    with contextlib.suppress(OSError), log.open("ab") as file:
        while data := os.read(master, 1 << 16):
            file.write(data)
            file.flush()
    os.close(master)
