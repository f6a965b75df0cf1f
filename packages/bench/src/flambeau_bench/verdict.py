"""From pairs to verdicts: void pairs out, gate first, then the interval against the bar."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flambeau_bench.case import Case, Gate, Question
from flambeau_bench.interval import Interval, median_interval
from flambeau_bench.pairing import Measured, Pair

VERDICTS = ("met", "MISSED", "no bar", "GATE FAILED", "VOID")


@dataclass(frozen=True)
class Outcome:
    """The answer to one question.

    Attributes:
        question: What was asked.
        gate: Whether a speed may be told.
        interval: Median and 95% interval; None where the gate failed or too many pairs are void.
        floor: The same of the baseline against itself; None for counts.
        verdict: One of ``VERDICTS``.
        voided: Why pairs were left out, by number.
    """

    question: Question
    gate: Gate
    interval: Interval | None
    floor: Interval | None
    verdict: str
    voided: dict[int, str]


def judge(case: Case, measured: Measured) -> list[Outcome]:
    """An outcome for every question of the comparison."""
    good = usable(measured.pairs)
    voided = {pair.number: pair.void for pair in measured.pairs if pair.void}
    questions = measured.comparison.questions
    # Pairs that are void by half and more are no accident of a few.
    if not good or 2 * len(voided) > len(measured.pairs):
        gate = Gate(False, f"{len(voided)} of {len(measured.pairs)} pairs are void")
        return [Outcome(question, gate, None, None, "VOID", voided) for question in questions]
    gate = case.gate(measured.comparison, [(pair.baseline, pair.candidate) for pair in good])
    outcomes: list[Outcome] = []
    for question in questions:
        if not gate.passed:
            outcomes.append(Outcome(question, gate, None, None, "GATE FAILED", voided))
            continue
        interval = median_interval([question.of(p.baseline, p.candidate) for p in good])
        floor = _floor(question, usable(measured.floor))
        verdict = verdict_of(question, interval, floor)
        outcomes.append(Outcome(question, gate, interval, floor, verdict, voided))
    return outcomes


def usable(pairs: Sequence[Pair]) -> list[Pair]:
    """The pairs that are not void."""
    return [pair for pair in pairs if not pair.void]


def verdict_of(question: Question, interval: Interval, floor: Interval | None) -> str:
    """Whether the whole interval is on the good side of the bar: "met", "MISSED" or "no bar"."""
    if question.within_floor:
        reach = max(abs(floor.low), abs(floor.high)) if floor is not None else 0.0
        # What cannot be told from the baseline against itself is nothing.
        return "met" if interval.low <= reach else "MISSED"
    if question.limit is None:
        return "no bar"
    good = interval.high <= question.limit if question.at_most else interval.low >= question.limit
    return "met" if good else "MISSED"


def _floor(question: Question, pairs: Sequence[Pair]) -> Interval | None:
    # A value of the candidate alone has no counterpart to be compared with.
    if not pairs or question.form == "value":
        return None
    return median_interval([question.of(pair.baseline, pair.candidate) for pair in pairs])
