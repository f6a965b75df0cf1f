"""``CodeTimer``: which kind of code the time of a block is spent in, with Python's own profiler."""

from __future__ import annotations

import cProfile
import pstats
import re
import sys
import sysconfig
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, cast

_FILES = re.compile(r"\b(_io|_io\.\w+|io|posix|nt|mmap|socket)\b|fromfile|read_file")
"""Functions written in C that read files."""

_PYTHON = re.compile(
    r"built-in method (builtins|math|cmath|time\.perf|_random|_functools|itertools|_operator"
    r"|_struct|_bisect|_collections|_heapq|_statistics|_sre|_abc)\b"
    r"|of '(list|dict|str|bytes|bytearray|tuple|set|frozenset|int|float|range|_random\.Random"
    r"|re\.\w+|collections\.\w+|builtin_function_or_method)' objects"
)
"""Functions of the interpreter itself; numpy, torch and PIL have their own names."""

_LIBRARIES = ("torch", "torchvision", "numpy", "PIL", "pandas", "pyarrow", "tokenizers", "spacy")

Key = tuple[str, int, str]
"""File, line and name of a function, as in ``pstats``; a function written in C has the file "~"."""

Edge = tuple[int, int, float, float]
"""Calls (two counts), own seconds and cumulative seconds of a function under one of its callers."""

Stats = Mapping[Key, tuple[int, int, float, float, Mapping[Key, Edge]]]
"""Per function: calls (two counts), own seconds, cumulative seconds, and the callers."""


@dataclass(frozen=True)
class CodeTimes:
    """Where the time of a block was spent, as shares from 0 to 1; the rest is compiled code.

    Attributes:
        python: In user-defined Python functions and what they use of the interpreter. Python code
            of flambeau and of the libraries below it does not count.
        files: In functions that read files.
        slowest: The user-defined function with the most time, with file and line; empty if none.
        slowest_share: Its share, with the compiled code that it calls.
    """

    python: float = 0.0
    files: float = 0.0
    slowest: str = ""
    slowest_share: float = 0.0


class CodeTimer:
    """Profiles blocks of this thread with ``cProfile``, and divides their time by kind of code.

    The cost of the profiler itself, which is the same for every call, is measured and subtracted.
    Where another profiler or debugger is active, nothing is recorded.
    """

    def __init__(self) -> None:
        self._profile = cProfile.Profile()

    @contextmanager
    def timed(self) -> Generator[None]:
        """Profile the block."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def start(self) -> None:
        """Start profiling this thread."""
        try:
            self._profile.enable()
        except ValueError:  # another profiling tool is active
            self._profile = cProfile.Profile()

    def stop(self) -> None:
        """Stop profiling this thread."""
        self._profile.disable()

    def times(self) -> CodeTimes:
        """Return the shares of the time of all blocks."""
        self._profile.create_stats()
        recorded = cast("Any", self._profile).stats
        if not recorded:
            return CodeTimes()
        stats = cast("Stats", cast("Any", pstats.Stats(self._profile)).stats)
        return code_times(stats, _seconds_per_call())


def code_times(stats: Stats, call_s: float = 0.0) -> CodeTimes:
    """Return the shares of the time by kind of code.

    Args:
        stats: The statistics of ``pstats``.
        call_s: Seconds that the profiler adds to each call.
    """
    users = _user_shares(stats)
    python = files = total = 0.0
    own: dict[Key, float] = {}
    for key, (_, calls, recorded_s, _, callers) in stats.items():
        seconds = max(0.0, recorded_s - calls * call_s)
        total += seconds
        is_c = key[0] == "~"
        if is_c and _FILES.search(key[2]):
            files += seconds
        elif not is_c or _PYTHON.search(key[2]):
            python += seconds * users[key]
        if _is_users(key):
            own[key] = own.get(key, 0.0) + seconds
        else:
            for caller, (_, _, _, inside_s) in callers.items():
                if _is_users(caller):
                    own[caller] = own.get(caller, 0.0) + inside_s
    if not total:
        return CodeTimes()
    slowest = max(own, key=lambda key: own[key], default=None)
    named = "" if slowest is None else f"{slowest[2]} ({Path(slowest[0]).name}:{slowest[1]})"
    most = 0.0 if slowest is None else min(1.0, own[slowest] / total)
    return CodeTimes(python / total, files / total, named, most)


def _user_shares(stats: Stats) -> dict[Key, float]:
    """Return for each function which share of its time it runs for user-defined functions.

    It is 1 for user-defined functions and 0 for those of libraries. A function of the standard
    library or of the interpreter has the mean of its callers, by the time it takes for each.
    """
    shares = {key: float(_is_users(key)) for key in stats}
    follow = [key for key in stats if _follows_callers(key)]
    for _ in range(8):  # calls inside the standard library are rarely deeper
        for key in follow:
            callers = stats[key][4]
            weights = {caller: edge[2] for caller, edge in callers.items()}
            whole = sum(weights.values())
            if whole:
                found = sum(weights[each] * shares.get(each, 0.0) for each in weights)
                shares[key] = found / whole
    return shares


def _is_users(key: Key) -> bool:
    """Return whether a function is defined by the user: in no library and with a file."""
    return not _follows_callers(key) and not is_library(key[0])


def _follows_callers(key: Key) -> bool:
    file = key[0]
    return file == "~" or file.startswith(("<string>", "<frozen")) or _is_standard(file)


@cache
def _is_standard(file: str) -> bool:
    folder = sysconfig.get_paths()["stdlib"]
    return file.startswith(folder) and "site-packages" not in file


@cache
def is_library(file: str) -> bool:
    """Return whether a file belongs to flambeau, its domains or a library below them."""
    for folder in Path(file).parents:
        name = folder.name
        if name in _LIBRARIES or name == "flambeau" or name.startswith("flambeau_"):
            start = getattr(sys.modules.get(name), "__file__", None)
            if start is not None and Path(start).parent == folder:
                return True
    return False


@cache
def _seconds_per_call() -> float:
    """Return the seconds that cProfile adds to the own time of a function per call."""

    def nothing() -> None:
        pass

    def many() -> None:
        for _ in range(5_000):
            nothing()

    started = time.perf_counter()
    many()
    plain_s = time.perf_counter() - started
    timer = cProfile.Profile()
    try:
        timer.runcall(many)
    except ValueError:  # another profiling tool is active
        return 0.0
    stats = cast("Stats", cast("Any", pstats.Stats(timer)).stats)
    profiled_s = sum(entry[2] for entry in stats.values())
    return max(0.0, (profiled_s - plain_s) / 5_000)
