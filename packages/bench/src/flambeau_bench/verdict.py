"""Turn pairs into verdicts: drop invalid pairs, check quality, compare intervals with limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flambeau_bench.case import Case, Criterion, Gate
from flambeau_bench.interval import Interval, median_interval
from flambeau_bench.pairing import MeasuredPairs, Pair

VERDICTS = ("met", "MISSED", "no limit", "one pair", "GATE FAILED", "INVALID")


@dataclass(frozen=True)
class Outcome:
    """The result for one criterion.

    Attributes:
        criterion: The criterion that was computed.
        gate: The quality condition: whether speeds may be reported.
        interval: Median and 95% interval; None if ``gate`` failed or too many pairs are invalid.
        floor: The same interval for pairs of two baseline runs; None without such pairs, or if the
            criterion uses the candidate alone.
        verdict: One of ``VERDICTS``.
        invalid_pairs: Number of a dropped pair → why it is invalid.
    """

    criterion: Criterion
    gate: Gate
    interval: Interval | None
    floor: Interval | None
    verdict: str
    invalid_pairs: dict[int, str]


def judge(case: Case, measured: MeasuredPairs) -> list[Outcome]:
    """Return an outcome for each criterion of the comparison."""
    valid = valid_pairs(measured.pairs)
    invalid = {pair.number: pair.invalid for pair in measured.pairs if pair.invalid}
    criteria = measured.comparison.criteria
    # Half of the pairs or more: a systematic error, not a few accidents.
    if not valid or 2 * len(invalid) >= len(measured.pairs):
        gate = Gate(False, f"{len(invalid)} of {len(measured.pairs)} pairs are invalid")
        return [Outcome(criterion, gate, None, None, "INVALID", invalid) for criterion in criteria]
    gate = case.gate(measured.comparison, [(pair.baseline, pair.candidate) for pair in valid])
    outcomes: list[Outcome] = []
    for criterion in criteria:
        if not gate.passed:
            outcomes.append(Outcome(criterion, gate, None, None, "GATE FAILED", invalid))
            continue
        interval = median_interval([criterion.value(p.baseline, p.candidate) for p in valid])
        floor = _floor(criterion, valid_pairs(measured.floor))
        verdict = compare_with_limit(criterion, interval, floor)
        if measured.has_noise and len(valid) == 1 and verdict != "no limit":
            verdict = "one pair"  # it has no interval
        outcomes.append(Outcome(criterion, gate, interval, floor, verdict, invalid))
    return outcomes


def valid_pairs(pairs: Sequence[Pair]) -> list[Pair]:
    """Return the pairs whose two sides did the same work."""
    return [pair for pair in pairs if not pair.invalid]


def compare_with_limit(criterion: Criterion, interval: Interval, floor: Interval | None) -> str:
    """Return "met", "MISSED" or "no limit".

    The limit is met if the whole interval is at or below an upper limit, or at or above a lower
    one.
    """
    if criterion.within_floor:
        largest = max(abs(floor.low), abs(floor.high)) if floor is not None else 0.0
        # A difference within the noise floor counts as 0.
        return "met" if interval.low <= largest else "MISSED"
    limit = criterion.limit
    if limit is None:
        return "no limit"
    met = interval.high <= limit if criterion.at_most else interval.low >= limit
    return "met" if met else "MISSED"


def _floor(criterion: Criterion, pairs: Sequence[Pair]) -> Interval | None:
    # The value of the candidate alone has no counterpart in pairs of the baseline.
    if not pairs or criterion.form == "value":
        return None
    return median_interval([criterion.value(pair.baseline, pair.candidate) for pair in pairs])
