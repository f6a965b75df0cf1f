"""``peers-overhead``: what a step, a fit, an import and the first step cost in other libraries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from flambeau_bench.case import Comparison, Criterion, Gate, Size
from flambeau_bench.measurement import Measurement
from flambeau_bench.peers.live_side import LiveSide
from flambeau_bench.peers.peer_case import PeerCase, Row, observed_work
from flambeau_bench.timing import LONG_FACTOR, slope

_PER_STEP = Criterion("slope_us", "difference", "µs/step")
_FIXED = (
    Criterion("fixed_ms", "difference", "ms/fit"),
    Criterion("build_ms", "difference", "ms to build"),
)
_BELOW = Criterion("slope_us", "difference", "µs/step", limit=0.0)
_START = (
    Criterion("import_cpu_s", "difference", "s CPU to import"),
    Criterion("first_fit_cpu_s", "difference", "s CPU to the first step"),
    Criterion("modules", "difference", "modules"),
)

COLD = "cold start"

ROWS: tuple[Row, ...] = (
    Row(
        "default callbacks",
        "default callbacks",
        "default",
        True,
        (_PER_STEP, *_FIXED),
        (_BELOW, *_FIXED),
        {},
    ),
    Row("fast setting", "default callbacks", "fast", True, (_PER_STEP, *_FIXED), (_BELOW,), {}),
    Row("user optimizer", "user optimizer", "default", True, (_PER_STEP,), (_BELOW,), {}),
    Row("user loader", "user loader", "default", True, (_PER_STEP,), (_BELOW,), {}),
    Row(COLD, "default callbacks", "default", False, _START, _START, {}),
)
"""The rows. "default callbacks" has batches ready in memory and SGD at a constant rate; the others
change one thing each."""

_COLD_ROUNDS = 11  # a start takes seconds, and its CPU time varies less than a step's
_ALLOWED_LOSS = 1e-4  # relative; fused and for-loop forms of SGD round differently


class PeersOverhead(PeerCase):
    """Compare fits of an MLP 32-64-1 on batches of 32 rows in other libraries.

    All sides train the same network from the same weights on the same batches, in fp32 with one
    thread, and evaluate it once at the end. The cost of a step is the slope between a fit of n and
    of 5n steps in CPU time; "build" is the time to make trainer and optimizer. Each side draws its
    usual progress bar on a terminal. In "cold start" each measurement is a new process that imports
    the library and fits for one step.
    """

    name: ClassVar = "peers-overhead"
    question: ClassVar = "What do a step, a fit and a start cost in other libraries?"
    sizes: ClassVar = {
        "quick": Size("quick", {"steps": 5}, pairs=3, floor_pairs=3),
        "cpu": Size("cpu", {"steps": 20}, pairs=51, floor_pairs=51),
    }

    def rows(self, size: Size) -> Sequence[Row]:
        return ROWS

    def rounds(self, row: Row, size: Size) -> int:
        return size.pairs if row.live else min(size.pairs, _COLD_ROUNDS)

    def measurement(self, side: LiveSide, row: Row, size: Size, number: int) -> Measurement:
        return _slope(side, size["steps"]) if row.live else _start(side)

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require equal losses on the valid batch after training, up to rounding."""
        losses = [(float(a.quality["loss"]), float(b.quality["loss"])) for a, b in pairs]
        furthest = max(abs(a - b) / max(abs(a), 1e-12) for a, b in losses)
        return Gate(
            furthest <= _ALLOWED_LOSS,
            f"losses after training equal within {furthest:.1g} in {len(pairs)} rounds",
        )


def _slope(side: LiveSide, steps: int) -> Measurement:
    """Measure a short and a long fit; before the first measurement one is observed, not timed."""
    watched = side.watched_facts({"steps": LONG_FACTOR * steps})
    answers: list[dict[str, Any]] = []

    def seconds_of(count: int) -> float:
        answers.append(side.run({"steps": count}))
        return answers[-1]["fit_cpu_s"]

    line = slope(seconds_of, steps)
    figures = {
        "slope_us": line.per_step_us,
        "fixed_ms": line.fixed_ms,
        "build_ms": min(answer["build_cpu_s"] for answer in answers) * 1e3,
    }
    facts = [answer["facts"] for answer in answers]
    return Measurement(
        figures, **observed_work(watched, facts[-1]), versions=side.ready["versions"]
    )


def _start(side: LiveSide) -> Measurement:
    """Measure imports and the first step of a new process; the observed run comes after it."""
    answer = side.run({"steps": 1})
    figures = {
        **side.ready["imports"],
        "first_fit_cpu_s": answer["since_start_cpu_s"],
        "first_fit_s": answer["since_start_s"],
    }
    watched = side.watched_facts({"steps": 1})
    work = observed_work(watched, answer["facts"])
    return Measurement(figures, **work, versions=side.ready["versions"])
