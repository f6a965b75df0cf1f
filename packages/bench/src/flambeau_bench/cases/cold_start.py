"""``cold-start``: the time that a new process takes before and during its first step."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from flambeau.errors import TrainingError
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size
from flambeau_bench.measurement import Measurement

BY_HAND, TORCH, FLAMBEAU = "by hand", "torch", "flambeau"

# The program prints one line of JSON. It imports only what is measured, so that no import of this
# package is in its times.
_IMPORT = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
import {package}
took = {{"import_s": time.perf_counter() - wall, "import_cpu_s": time.process_time() - cpu,
         "modules": len(sys.modules)}}
print(json.dumps({{"figures": took, "version": {package}.__version__.partition("+")[0]}}))
"""


class ColdStart(Case):
    """Compare imports and first steps in new processes; an untimed run fills the file cache first.

    "import" compares ``import flambeau`` with ``import torch``. "first step" compares building a
    learner and making its first step with building an optimizer and making a step by hand, whose
    import of torch's compiler takes seconds; the suite "quick" leaves it out.
    """

    name: ClassVar = "cold-start"
    question: ClassVar = "How long does a new process take to import, and to its first step?"
    sizes: ClassVar = {
        "quick": Size("quick", {}, pairs=1, floor_pairs=1),
        "cpu": Size("cpu", {}, pairs=15, floor_pairs=15),
        "gpu": Size("gpu", {}, pairs=11, floor_pairs=11, device="cuda"),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        variants = [
            Comparison(
                "import",
                TORCH,
                FLAMBEAU,
                (
                    Criterion("import_cpu_s", "ratio", "× import torch, CPU time", limit=1.5),
                    Criterion("import_s", "ratio", "× import torch, wall time"),
                    Criterion("modules", "difference", "modules more than torch", limit=149.0),
                ),
            ),
            Comparison(
                "first step",
                BY_HAND,
                FLAMBEAU,
                (
                    Criterion("first_step_cpu_ms", "ratio", "× by hand, to the end of step 1", 2.0),
                    Criterion("build_cpu_ms", "value", "ms to build a learner"),
                    Criterion(
                        "second_setup_cpu_ms",
                        "value",
                        "ms to the first step of a second fit",
                        limit=1.0,
                    ),
                ),
                {"order_hash": "one batch"},
            ),
        ]
        return variants[:1] if size.name == "quick" else variants

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        if comparison.variant == "import":
            result = run_and_read_json(sys.executable, "-c", _IMPORT.format(package=side))
        else:
            result = run_and_read_json(
                sys.executable, "-m", "flambeau_bench.cases.first_step", side, size.device
            )
        figures = result.pop("figures")
        return Measurement(figures, steps=1, samples=1, quality=result)

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require equal losses of the first step; the variant "import" has no requirement."""
        if comparison.variant == "import":
            return Gate(True, "an import has no result to compare")
        unequal = sum(a.quality["loss"] != b.quality["loss"] for a, b in pairs)
        if unequal:
            return Gate(False, f"the first loss differs in {unequal} of {len(pairs)} pairs")
        return Gate(True, f"the first loss is bitwise equal in {len(pairs)} pairs")


def run_and_read_json(*command: str) -> dict[str, Any]:
    """Run a command and return the last line of its stdout, parsed as JSON.

    Raises:
        TrainingError: The command failed; the message has the end of its stderr.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainingError(
            f"A process of cold-start failed with exit code {done.returncode}: "
            f"{done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def cpu_ms_since(started_s: float) -> float:
    """Return the CPU milliseconds of this process since ``started_s``."""
    return (time.process_time() - started_s) * 1e3
