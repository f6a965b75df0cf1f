"""Runs in processes of their own, for what a warm process would hide: imports, caches, threads."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from flambeau.errors import TrainingError
from flambeau_bench.case import Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.turns import Turn, can_take_turns, take_turns

_SAID, _MEASUREMENT = "said.txt", "measurement.json"


@dataclass(frozen=True)
class FreshRun:
    """One run: the side of a case's variant that a new process measures."""

    case: str
    variant: str
    side: str
    size: Size
    pair: int


def measure_in_fresh_processes(runs: Sequence[FreshRun]) -> list[Measurement]:
    """The measurement of each run, made by a new Python.

    On a CPU the processes take turns of a second. What an accelerator has queued goes on while its
    process is stopped, so there they follow one another.

    Raises:
        TrainingError: A process failed; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(number) for number in range(len(runs))]
        for folder in folders:
            # The working one of its process: a run that writes leaves nothing behind.
            folder.mkdir()
        placed = list(zip(runs, folders, strict=True))
        if can_take_turns() and all(run.size.device == "cpu" for run in runs):
            codes = take_turns([partial(_turn, run, folder) for run, folder in placed])
            for code, (run, folder) in zip(codes, placed, strict=True):
                if code is not None:
                    _check(run, folder, code)
        else:
            for run, folder in placed:
                with (folder / _SAID).open("wb") as said:
                    command = _command(run, folder)
                    quiet = subprocess.DEVNULL
                    done = subprocess.run(
                        command, stdout=quiet, stderr=said, cwd=folder, check=False
                    )
                _check(run, folder, done.returncode)
        return [_answer(folder) for folder in folders]


def _command(run: FreshRun, folder: Path) -> list[str]:
    return [sys.executable, "-m", "flambeau_bench.fresh", json.dumps(asdict(run)), str(folder)]


def _turn(run: FreshRun, folder: Path) -> Turn:
    with (folder / _SAID).open("wb") as said:
        return Turn(_command(run, folder), folder, said)


def _check(run: FreshRun, folder: Path, code: int) -> None:
    if code or not (folder / _MEASUREMENT).is_file():
        said = (folder / _SAID).read_text(encoding="utf-8", errors="replace")
        raise TrainingError(
            f"The side {run.side!r} of {run.case} ({run.variant}) ended with {code}: "
            f"{said[-2000:] or 'it said nothing.'}"
        )


def _answer(folder: Path) -> Measurement:
    return Measurement.from_json(json.loads((folder / _MEASUREMENT).read_text(encoding="utf-8")))


def main(asked: str, folder: str) -> None:
    """What the new process does: measures and writes the measurement into ``folder``."""
    # Not before: a case of imports starts from a process that has as few as can be.
    from flambeau_bench.cases import CASES

    run: dict[str, Any] = json.loads(asked)
    case, size = CASES[run["case"]], Size(**run["size"])
    [comparison] = [c for c in case.comparisons(size) if c.variant == run["variant"]]
    measured = case.measure(comparison, run["side"], size, run["pair"])
    written = json.dumps(measured.as_json())
    (Path(folder) / _MEASUREMENT).write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
