"""Pairs of runs, interleaved, so that whatever the machine does meets both sides alike."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flambeau_bench.case import Case, Comparison, Size
from flambeau_bench.fresh import FreshRun, measure_in_fresh_processes
from flambeau_bench.measurement import Measurement
from flambeau_bench.progress import Progress
from flambeau_bench.timing import settled_heap
from flambeau_bench.void import why_void

Measure = Callable[[Sequence[str], int], Sequence[Measurement]]
"""``measure(sides, pair)``: one of each side, in this order or by turns."""


@dataclass(frozen=True)
class Pair:
    """Both sides once.

    Attributes:
        number: From 0.
        order: "AB" where the baseline ran first, else "BA".
        baseline: What it took the baseline.
        candidate: What it took the candidate.
        void: Why the pair must not be used; empty where it may.
    """

    number: int
    order: str
    baseline: Measurement
    candidate: Measurement
    void: str


@dataclass(frozen=True)
class Measured:
    """All pairs of a comparison.

    Attributes:
        comparison: What was compared.
        floor: The baseline against itself, measured first; the noise of this machine just now.
        pairs: The baseline against the candidate.
    """

    comparison: Comparison
    floor: tuple[Pair, ...]
    pairs: tuple[Pair, ...]


def measure_pairs(
    case: Case, comparison: Comparison, size: Size, tell: Callable[[str], None] = lambda text: None
) -> Measured:
    """Runs the noise floor, then the comparison; ``tell`` hears on the way how far it is."""

    def measure(sides: Sequence[str], pair: int) -> Sequence[Measurement]:
        if case.fresh:
            return measure_in_fresh_processes(
                [FreshRun(case.name, comparison.variant, side, size, pair) for side in sides]
            )
        return [case.measure(comparison, side, size, pair) for side in sides]

    sides = (comparison.baseline, comparison.candidate)
    with settled_heap():
        if not case.fresh:
            # The first run of a side pays for caches and page faults that later ones find ready.
            measure(sides, 0)
        progress = Progress(tell, size.floor_pairs + size.pairs)

        def run(sides: Sequence[str], count: int) -> tuple[Pair, ...]:
            found: list[Pair] = []
            for number, order in enumerate(orders(count, shuffled=case.fresh)):
                found.append(_pair(measure, comparison, sides, number, order))
                progress.pair_done()
            return tuple(found)

        floor = run(sides[:1] * 2, size.floor_pairs)
        pairs = run(sides, size.pairs)
    return Measured(comparison, floor, pairs)


def _pair(
    measure: Measure, comparison: Comparison, sides: Sequence[str], number: int, order: str
) -> Pair:
    if order == "AB":
        baseline, candidate = measure(sides, number)
    else:
        candidate, baseline = measure(sides[::-1], number)
    void = why_void(baseline, candidate, comparison.may_differ)
    return Pair(number, order, baseline, candidate, void)


def orders(count: int, *, shuffled: bool) -> Sequence[str]:
    """Which side goes first in each pair: A B, B A, A B … in one process, else at random."""
    if not shuffled:
        return ["AB" if number % 2 == 0 else "BA" for number in range(count)]
    # Keyed, so that a test can say what comes; as many of each as can be.
    both = [*("AB",) * -(-count // 2), *("BA",) * (count // 2)]
    random.Random(0).shuffle(both)
    return both
