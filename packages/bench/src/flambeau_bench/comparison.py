"""Compare two runs of the same cases: which candidates became slower or faster beyond the noise."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flambeau.report.rank_test import mann_whitney_p
from flambeau_bench.interval import median_interval
from flambeau_bench.records import Record
from flambeau_bench.verdict_table import markdown_table, number

P = 0.001
"""A change is reported only if it is less probable than this without a change."""

MIN_EFFECT = 0.03
"""Smaller changes of the ratio are not reported, however certain."""

VERDICTS = ("slower", "faster", "no change", "too few pairs")

_TIMES, _RATES = ("_us", "_ms", "_s", "_ns"), ("_per_s",)


@dataclass(frozen=True)
class Change:
    """What changed in one figure of one variant from run A to run B.

    Attributes:
        case: The case.
        variant: Its variant.
        figure: The figure, in whose unit more is slower, except rates ("_per_s").
        before: Median ratio of candidate to baseline in A: each pair is compared with the
            hand-written side of the same run, so a slower machine changes nothing.
        after: The same in B.
        noise: The larger noise floor of both runs, as a fraction.
        p: Two-sided p-value of the Mann–Whitney test of the ratios.
        pairs: Numbers of pairs in A and B.
        verdict: One of ``VERDICTS``; "too few pairs" if not even ratios that are all larger in one
            run than in the other would have a p-value below ``P``.
    """

    case: str
    variant: str
    figure: str
    before: float
    after: float
    noise: float
    p: float
    pairs: tuple[int, int]
    verdict: str


def compare_runs(before: Sequence[Record], after: Sequence[Record]) -> list[Change]:
    """Return the changes of all figures that both runs have, as times or rates.

    Args:
        before: Records of run A.
        after: Records of run B.
    """
    first, second = _ratios(before), _ratios(after)
    floors = [_ratios(records, phase="floor") for records in (before, after)]
    found: list[Change] = []
    for key in first:
        if key in second:
            noise = max(_noise(floor.get(key, ())) for floor in floors)
            found.append(_change(key, first[key], second[key], noise))
    return found


def _change(
    key: tuple[str, str, str], first: Sequence[float], second: Sequence[float], noise: float
) -> Change:
    before, after = float(np.median(first)), float(np.median(second))
    p = mann_whitney_p(first, second)
    pairs = len(first), len(second)
    slower = after / before - 1.0
    if key[2].endswith(_RATES):
        slower = before / after - 1.0
    verdict = "no change"
    if not can_show_a_change(*pairs):
        verdict = "too few pairs"
    elif p < P and abs(slower) > max(noise, MIN_EFFECT):
        verdict = "slower" if slower > 0.0 else "faster"
    return Change(*key, before, after, noise, p, pairs, verdict)


def can_show_a_change(n: int, m: int) -> bool:
    """Return whether the least p-value that ``n`` and ``m`` pairs can give is below ``P``."""
    return math.comb(n + m, n) > 2.0 / P


def enough_pairs() -> int:
    """Return the least number of pairs in both runs with which a change can be reported."""
    return next(count for count in itertools.count(1) if can_show_a_change(count, count))


def changes_as_markdown(changes: Iterable[Change]) -> str:
    """Return the changes as a Markdown table."""
    columns = ("case", "variant", "figure", "ratio A", "ratio B", "change", "noise", "p", "verdict")
    rows = [
        (
            *(change.case, change.variant, change.figure),
            *(number(change.before), number(change.after)),
            f"{change.after / change.before - 1.0:+.1%}",
            f"{change.noise:.1%}",
            f"{change.p:.1g}",
            change.verdict,
        )
        for change in changes
    ]
    return markdown_table(columns, rows)


def _noise(ratios: Sequence[float]) -> float:
    """Return how far the interval of the baseline against itself reaches from 1."""
    if not ratios:
        return 0.0
    interval = median_interval(ratios)
    return max(abs(interval.low - 1.0), abs(interval.high - 1.0))


def _ratios(
    records: Sequence[Mapping[str, Any]], phase: str = "pairs"
) -> dict[tuple[str, str, str], list[float]]:
    """Return candidate / baseline of each valid pair, by case, variant and figure."""
    sides = {
        (record["case"], record["variant"]): (record["baseline"], record["candidate"])
        for record in records
        if record["kind"] == "result"
    }
    pairs: dict[tuple[str, str, int], list[Mapping[str, Any]]] = {}
    for record in records:
        if record["kind"] == "run" and record["phase"] == phase and record["figures"]:
            key = record["case"], record["variant"], record["pair"]
            pairs.setdefault(key, []).append(record)
    found: dict[tuple[str, str, str], list[float]] = {}
    for (case, variant, _), runs in pairs.items():
        if len(runs) != 2 or (case, variant) not in sides:
            continue
        baseline, candidate = runs
        if baseline["side"] != sides[case, variant][0]:
            baseline, candidate = candidate, baseline
        for figure in baseline["figures"]:
            a, b = baseline["figures"][figure], candidate["figures"].get(figure)
            # A fixed cost from a slope may be negative: such figures have no ratio.
            if figure.endswith(_TIMES + _RATES) and a and b and a > 0.0 and b > 0.0:
                found.setdefault((case, variant, figure), []).append(b / a)
    return found
