"""``cold-start``: what a fresh process pays before the first step."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, ClassVar

from flambeau.errors import TrainingError
from flambeau_bench.case import Case, Comparison, Gate, Question, Size
from flambeau_bench.measurement import Measurement

BY_HAND, TORCH, OURS = "by hand", "torch", "flambeau"

# A probe prints one JSON line. It holds what is measured and nothing else, so that no import of
# this package is in its times.
_IMPORT = """
import json, sys, time
wall, cpu = time.perf_counter(), time.process_time()
import {package}
took = {{"import_s": time.perf_counter() - wall, "import_cpu_s": time.process_time() - cpu,
         "modules": len(sys.modules)}}
print(json.dumps({{"figures": took, "version": {package}.__version__.partition("+")[0]}}))
"""


class ColdStart(Case):
    """Imports and first steps, each in a new process; once before, so that files are cached.

    "import" holds ``import flambeau`` against ``import torch``. "first step" holds a learner's
    first fit, from building it on, against an optimizer and a step by hand.
    """

    name: ClassVar = "cold-start"
    asks: ClassVar = "How long does a fresh process take to import, and to its first step?"
    sizes: ClassVar = {
        "quick": Size("quick", {}, pairs=5, floor_pairs=5),
        "cpu": Size("cpu", {}, pairs=15, floor_pairs=15),
        "gpu": Size("gpu", {}, pairs=11, floor_pairs=11, device="cuda"),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        return [
            Comparison(
                "import",
                TORCH,
                OURS,
                (
                    Question("import_cpu_s", "ratio", "× import torch, CPU time", limit=1.5),
                    Question("import_s", "ratio", "× import torch, wall time"),
                    Question("modules", "difference", "modules more than torch", limit=149.0),
                ),
            ),
            Comparison(
                "first step",
                BY_HAND,
                OURS,
                (
                    Question("first_step_cpu_ms", "ratio", "× by hand, to the first step's end", 2),
                    Question("build_cpu_ms", "value", "ms to build a learner"),
                    Question(
                        "second_setup_cpu_ms", "value", "ms to a second fit's first step", limit=1.0
                    ),
                ),
                {"order_hash": "one batch"},
            ),
        ]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        if comparison.variant == "import":
            answer = probe(sys.executable, "-c", _IMPORT.format(package=side))
        else:
            answer = probe(
                sys.executable, "-m", "flambeau_bench.cases.first_step", side, size.device
            )
        figures = answer.pop("figures")
        return Measurement(figures, steps=1, items=1, quality=answer)

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """The first loss must be the same; an import needs no gate."""
        if comparison.variant == "import":
            return Gate(True, "an import gives no result to check")
        unequal = sum(a.quality["loss"] != b.quality["loss"] for a, b in pairs)
        if unequal:
            return Gate(False, f"the first loss differs in {unequal} of {len(pairs)} pairs")
        return Gate(True, f"the first loss is bitwise equal in {len(pairs)} pairs")


def probe(*command: str) -> dict[str, Any]:
    """What a process prints in its last line, as JSON.

    Raises:
        TrainingError: It failed; with the end of what it said.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise TrainingError(
            f"A process of cold-start ended with {done.returncode}: {done.stderr[-2000:]}"
        )
    return json.loads(done.stdout.splitlines()[-1])


def milliseconds(since_s: float) -> float:
    """CPU milliseconds of this process since ``since_s``."""
    return (time.process_time() - since_s) * 1e3
