"""One run in a process of its own, for what a warm process would hide: imports, caches, threads."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flambeau.errors import TrainingError
from flambeau_bench.case import Size
from flambeau_bench.measurement import Measurement


def measure_in_fresh_process(
    case: str, variant: str, side: str, size: Size, pair: int
) -> Measurement:
    """The measurement of ``side``, made by a new Python.

    Raises:
        TrainingError: The process failed; with the end of what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "measurement.json"
        task = {"case": case, "variant": variant, "side": side, "size": asdict(size), "pair": pair}
        command = [sys.executable, "-m", "flambeau_bench.fresh", json.dumps(task), str(answer)]
        # The folder is the working one too: a run that writes leaves nothing behind.
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode or not answer.is_file():
            raise TrainingError(
                f"The side {side!r} of {case} ({variant}) ended with {done.returncode}: "
                f"{done.stderr[-2000:]}"
            )
        return Measurement.from_json(json.loads(answer.read_text(encoding="utf-8")))


def main(task: str, answer: str) -> None:
    """What the new process does: measures and writes the measurement to the file ``answer``."""
    # Not before: a case of imports starts from a process that has as few as can be.
    from flambeau_bench.cases import CASES

    asked: dict[str, Any] = json.loads(task)
    case, size = CASES[asked["case"]], Size(**asked["size"])
    [comparison] = [c for c in case.comparisons(size) if c.variant == asked["variant"]]
    measured = case.measure(comparison, asked["side"], size, asked["pair"])
    Path(answer).write_text(json.dumps(measured.as_json()), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
