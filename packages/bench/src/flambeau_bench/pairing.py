"""Interleaved pairs of runs, so that changes of the machine's speed affect both sides equally."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flambeau_bench.case import Case, Comparison, Size
from flambeau_bench.fresh_process import FreshRun, measure_in_fresh_processes
from flambeau_bench.invalid_pairs import invalid_reasons
from flambeau_bench.measurement import Measurement
from flambeau_bench.progress import Progress
from flambeau_bench.timing import frozen_heap

Measure = Callable[[Sequence[str], int], Sequence[Measurement]]
"""``measure(sides, pair)`` runs each side once, in the order of ``sides`` or in time slices."""


@dataclass(frozen=True)
class Pair:
    """A pair: one run of each side (baseline and candidate).

    Attributes:
        number: Starts at 0.
        order: "AB" if the baseline ran first, else "BA".
        baseline: Measurement of the baseline.
        candidate: Measurement of the candidate.
        invalid: Why the pair must not be used; empty if it is valid.
    """

    number: int
    order: str
    baseline: Measurement
    candidate: Measurement
    invalid: str


@dataclass(frozen=True)
class MeasuredPairs:
    """All pairs of a comparison.

    Attributes:
        comparison: What was compared.
        floor: Pairs of the baseline with itself, measured first; they show the noise of the
            machine. A single pair is compared with no limit, so it needs none.
        pairs: Pairs of the baseline with the candidate.
        has_noise: Whether the figures vary from run to run; counts do not.
    """

    comparison: Comparison
    floor: tuple[Pair, ...]
    pairs: tuple[Pair, ...]
    has_noise: bool


def measure_pairs(
    case: Case, comparison: Comparison, size: Size, log: Callable[[str], None] = lambda line: None
) -> MeasuredPairs:
    """Measure the noise floor, then the comparison; ``log`` receives lines of progress."""
    # A new process takes seconds, and a single pair of a figure with noise decides nothing.
    fresh = case.fresh and (size.pairs > 1 or not size.floor_pairs)

    def measure(sides: Sequence[str], pair: int) -> Sequence[Measurement]:
        if fresh:
            return measure_in_fresh_processes(
                [FreshRun(case.name, comparison.variant, side, size, pair) for side in sides]
            )
        return [case.measure(comparison, side, size, pair) for side in sides]

    sides = (comparison.baseline, comparison.candidate)
    with frozen_heap():
        if not fresh:
            # The first run of a side fills caches and causes page faults that later runs avoid.
            measure(sides, 0)
        floor_pairs = size.floor_pairs if size.pairs > 1 else 0
        progress = Progress(log, floor_pairs + size.pairs)

        def run(sides: Sequence[str], count: int) -> tuple[Pair, ...]:
            found: list[Pair] = []
            for number, order in enumerate(orders(count, shuffled=case.fresh)):
                found.append(_pair(measure, comparison, sides, number, order))
                progress.pair_done()
            return tuple(found)

        floor = run(sides[:1] * 2, floor_pairs)
        pairs = run(sides, size.pairs)
    return MeasuredPairs(comparison, floor, pairs, has_noise=size.floor_pairs > 0)


def _pair(
    measure: Measure, comparison: Comparison, sides: Sequence[str], number: int, order: str
) -> Pair:
    if order == "AB":
        baseline, candidate = measure(sides, number)
    else:
        candidate, baseline = measure(sides[::-1], number)
    invalid = invalid_reasons(baseline, candidate, comparison.may_differ)
    return Pair(number, order, baseline, candidate, invalid)


def orders(count: int, *, shuffled: bool) -> Sequence[str]:
    """Return the order of the sides in each pair: "AB", "BA", "AB" …, or balanced at random."""
    if not shuffled:
        return ["AB" if number % 2 == 0 else "BA" for number in range(count)]
    # A fixed seed makes the order known to tests.
    both = [*("AB",) * -(-count // 2), *("BA",) * (count // 2)]
    random.Random(0).shuffle(both)
    return both
