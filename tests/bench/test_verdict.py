"""Pairs, invalid pairs, gates and verdicts on given figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flambeau.errors import ArgumentError
from flambeau_bench import pairing
from flambeau_bench.case import Case, Criterion, Size
from flambeau_bench.interval import Interval
from flambeau_bench.invalid_pairs import invalid_reasons
from flambeau_bench.measurement import Measurement
from flambeau_bench.pairing import measure_pairs, orders
from flambeau_bench.verdict import Outcome, compare_with_limit, judge

SIZE = Size("quick", {"steps": 10}, pairs=12, floor_pairs=12)


def outcome_of(case: Case) -> Outcome:
    [comparison] = case.comparisons(SIZE)
    [outcome] = judge(case, measure_pairs(case, comparison, SIZE))
    return outcome


def test_pairs_in_one_process_alternate() -> None:
    assert orders(5, shuffled=False) == ["AB", "BA", "AB", "BA", "AB"]


def test_pairs_in_new_processes_are_shuffled_and_balanced() -> None:
    found = orders(20, shuffled=True)
    assert sorted(found) == ["AB"] * 10 + ["BA"] * 10
    assert found != sorted(found)
    assert found != orders(20, shuffled=False)


def test_the_floor_is_measured_first_and_sides_alternate(toy: Any) -> None:
    case = toy()
    [comparison] = case.comparisons(SIZE)
    measured = measure_pairs(case, comparison, replace(SIZE, pairs=2, floor_pairs=1))
    warm_up, floor, pairs = case.calls[:2], case.calls[2:4], case.calls[4:]
    assert warm_up == [("by hand", 0), ("candidate", 0)]
    assert floor == [("by hand", 0), ("by hand", 0)]
    assert pairs == [("by hand", 0), ("candidate", 0), ("candidate", 1), ("by hand", 1)]
    assert len(measured.floor) == 1
    assert len(measured.pairs) == 2


@pytest.mark.parametrize(
    ("pairs", "floor_pairs", "fresh"), [(1, 1, False), (2, 1, True), (1, 0, True)]
)
def test_one_pair_with_noise_starts_no_processes(
    toy: Any,
    work: Measurement,
    monkeypatch: pytest.MonkeyPatch,
    pairs: int,
    floor_pairs: int,
    fresh: bool,
) -> None:
    """A count, such as the peak memory of a process, is right in a new process alone."""
    started: list[int] = []

    def in_processes(runs: Any) -> list[Measurement]:
        started.append(len(runs))
        return [work] * len(runs)

    monkeypatch.setattr(pairing, "measure_in_fresh_processes", in_processes)
    monkeypatch.setattr(toy, "fresh", True)
    case = toy()
    [comparison] = case.comparisons(SIZE)
    size = replace(SIZE, pairs=pairs, floor_pairs=floor_pairs)
    measured = measure_pairs(case, comparison, size)
    assert bool(started) == fresh
    assert bool(case.calls) != fresh
    assert len(measured.pairs) == pairs
    assert len(measured.floor) == (floor_pairs if pairs > 1 else 0)


def test_a_limit_is_met_or_missed(toy: Any) -> None:
    good = outcome_of(toy(5.0))
    assert (good.verdict, good.interval) == ("met", Interval(5.0, 5.0, 5.0, 12))
    assert good.floor == Interval(0.0, 0.0, 0.0, 12)
    assert outcome_of(toy(10.5)).verdict == "MISSED"


def test_one_pair_of_a_figure_with_noise_is_not_compared_with_its_limit(toy: Any) -> None:
    for overhead in (5.0, 10.5):
        case = toy(overhead)
        [comparison] = case.comparisons(SIZE)
        once = replace(SIZE, pairs=1, floor_pairs=1)
        [outcome] = judge(case, measure_pairs(case, comparison, once))
        assert outcome.verdict == "one pair"
        # A count has no noise, and no floor.
        [outcome] = judge(case, measure_pairs(case, comparison, replace(once, floor_pairs=0)))
        assert outcome.verdict == ("met" if overhead == 5.0 else "MISSED")


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"steps": 9}, "the candidate skipped steps"),
        ({"samples": 288}, "the candidate skipped samples"),
        ({"init_hash": "z"}, "initial weights differ"),
        ({"order_hash": "z"}, "batches differ"),
        ({"settings": {"threads": 2, "optimizer": "AdamW"}}, "settings differ in threads"),
        ({"settings": {"threads": 1}}, "settings differ in optimizer"),
    ],
)
def test_unequal_work_is_invalid_and_has_no_interval(
    wrong: dict[str, Any], reason: str, toy: Any
) -> None:
    outcome = outcome_of(toy(**wrong))
    assert outcome.verdict == "INVALID"
    assert outcome.interval is None
    assert len(outcome.invalid_pairs) == 12
    assert reason in outcome.invalid_pairs[0]


def test_a_baseline_that_skips_work_is_named(work: Measurement) -> None:
    assert "the baseline skipped steps" in invalid_reasons(replace(work, steps=3), work, {})


def test_allowed_differences_are_valid(work: Measurement) -> None:
    other = replace(work, order_hash="z", settings={"threads": 1, "optimizer": "SGD"})
    allowed = {"order_hash": "another shuffle", "settings.optimizer": "the plan's"}
    assert invalid_reasons(work, other, allowed) == ""
    assert "batches differ" in invalid_reasons(work, other, {"settings.optimizer": "the plan's"})


def test_tuples_and_lists_are_equal_settings(work: Measurement) -> None:
    assert (
        invalid_reasons(
            replace(work, settings={"betas": (0.9, 0.99)}),
            replace(work, settings={"betas": [0.9, 0.99]}),
            {},
        )
        == ""
    )


def test_a_failed_gate_has_no_interval(toy: Any) -> None:
    outcome = outcome_of(toy(quality={"losses": "other"}))
    assert outcome.verdict == "GATE FAILED"
    assert outcome.interval is None
    assert outcome.floor is None
    assert "losses differ in 12 of 12 pairs" in outcome.gate.reason


def test_a_few_invalid_pairs_are_dropped(toy: Any) -> None:
    class OnceShorter(toy):
        def measure(self, comparison: Any, side: str, size: Size, pair: int) -> Any:
            done = super().measure(comparison, side, size, pair)
            shorter = side == "candidate" and pair == 3
            return replace(done, figures={"slope_us": 1e6}, steps=1) if shorter else done

    outcome = outcome_of(OnceShorter(5.0))
    assert outcome.verdict == "met"
    assert list(outcome.invalid_pairs) == [3]
    assert outcome.interval == Interval(5.0, 5.0, 5.0, 11)


@pytest.mark.parametrize(("count", "verdict"), [(5, "met"), (6, "INVALID"), (7, "INVALID")])
def test_half_of_the_pairs_must_be_valid_and_one_more(count: int, verdict: str, toy: Any) -> None:
    class Shorter(toy):
        def measure(self, comparison: Any, side: str, size: Size, pair: int) -> Any:
            done = super().measure(comparison, side, size, pair)
            return replace(done, steps=1) if side == "candidate" and pair < count else done

    outcome = outcome_of(Shorter(5.0))  # 12 pairs
    assert outcome.verdict == verdict
    assert len(outcome.invalid_pairs) == count


@pytest.mark.parametrize(
    ("form", "number"),
    [("difference", 20.0), ("ratio", 1.2), ("speed-up", 1 / 1.2), ("value", 120)],
)
def test_forms_compute_their_number(form: Any, number: float, work: Measurement) -> None:
    slower = replace(work, figures={"slope_us": 120.0})
    assert Criterion("slope_us", form, "").value(work, slower) == pytest.approx(number)
    assert Criterion("slope_us", form, "", per=4).value(work, slower) == pytest.approx(number / 4)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ArgumentError, match="Did you mean 'ratio'"):
        Criterion("slope_us", "ration", "")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("criterion", "interval", "floor", "verdict"),
    [
        (Criterion("x", "difference", "", 10.0), (8, 7, 10), None, "met"),
        (Criterion("x", "difference", "", 10.0), (8, 7, 10.1), None, "MISSED"),
        (Criterion("x", "speed-up", "", 40.0, at_most=False), (50, 40, 60), None, "met"),
        (Criterion("x", "speed-up", "", 40.0, at_most=False), (50, 39, 60), None, "MISSED"),
        (Criterion("x", "ratio", ""), (50, 39, 60), None, "no limit"),
        (Criterion("x", "difference", "", within_floor=True), (1, 0.5, 2), (0, -1, 1), "met"),
        (Criterion("x", "difference", "", within_floor=True), (3, 1.5, 4), (0, -1, 1), "MISSED"),
        (Criterion("x", "difference", "", within_floor=True), (-3, -4, -2), (0, -1, 1), "met"),
    ],
)
def test_intervals_are_compared_with_limits(
    criterion: Criterion, interval: Any, floor: Any, verdict: str
) -> None:
    found = compare_with_limit(
        criterion, Interval(*interval, 11), None if floor is None else Interval(*floor, 11)
    )
    assert found == verdict
