"""Measure in new processes the costs that a warm process hides: imports, caches, threads."""

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
from flambeau_bench.time_slices import SlicedProcess, can_stop_processes, run_in_slices

_STDERR, _MEASUREMENT = "stderr.txt", "measurement.json"


@dataclass(frozen=True)
class FreshRun:
    """One run in a new process: a side of a variant of a case."""

    case: str
    variant: str
    side: str
    size: Size
    pair: int


def measure_in_fresh_processes(runs: Sequence[FreshRun]) -> list[Measurement]:
    """Return the measurement of each run, each made by a new Python process.

    On a CPU the processes alternate in slices of a second. An accelerator continues with queued
    work while its process is stopped, so there the processes run one after the other.

    Raises:
        TrainingError: A process failed; the message has the end of its stderr.
    """
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(number) for number in range(len(runs))]
        for folder in folders:
            # The working directory of its process, so that files a run writes are removed.
            folder.mkdir()
        placed = list(zip(runs, folders, strict=True))
        if can_stop_processes() and all(run.size.device == "cpu" for run in runs):
            codes = run_in_slices([partial(_start, run, folder) for run, folder in placed])
            for code, (run, folder) in zip(codes, placed, strict=True):
                if code is not None:
                    _check(run, folder, code)
        else:
            for run, folder in placed:
                with (folder / _STDERR).open("wb") as stderr:
                    command = _command(run, folder)
                    quiet = subprocess.DEVNULL
                    done = subprocess.run(
                        command, stdout=quiet, stderr=stderr, cwd=folder, check=False
                    )
                _check(run, folder, done.returncode)
        return [_read(folder) for folder in folders]


def _command(run: FreshRun, folder: Path) -> list[str]:
    module = "flambeau_bench.fresh_process"
    return [sys.executable, "-m", module, json.dumps(asdict(run)), str(folder)]


def _start(run: FreshRun, folder: Path) -> SlicedProcess:
    with (folder / _STDERR).open("wb") as stderr:
        return SlicedProcess(_command(run, folder), folder, stderr)


def _check(run: FreshRun, folder: Path, code: int) -> None:
    if code or not (folder / _MEASUREMENT).is_file():
        stderr = (folder / _STDERR).read_text(encoding="utf-8", errors="replace")
        raise TrainingError(
            f"The process that measures {run.side!r} in {run.case} ({run.variant}) failed with "
            f"exit code {code}: {stderr[-2000:] or 'its stderr is empty.'}"
        )


def _read(folder: Path) -> Measurement:
    return Measurement.from_json(json.loads((folder / _MEASUREMENT).read_text(encoding="utf-8")))


def main(run_json: str, folder: str) -> None:
    """Measure a run in this process and write the measurement into ``folder``."""
    # Imported here: a case that measures imports needs a process with as few as possible.
    from flambeau_bench.cases import CASES

    run: dict[str, Any] = json.loads(run_json)
    case, size = CASES[run["case"]], Size(**run["size"])
    [comparison] = [c for c in case.comparisons(size) if c.variant == run["variant"]]
    measured = case.measure(comparison, run["side"], size, run["pair"])
    written = json.dumps(measured.as_json())
    (Path(folder) / _MEASUREMENT).write_text(written, encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
