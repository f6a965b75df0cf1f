"""The rules of a run under a time budget, on synthetic seconds and scores."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from flambeau.tuning.budget import (
    DECAY,
    Segment,
    Speed,
    first_segments,
    improvement,
    interval_steps,
    intervals_within,
    next_segments,
    score_noise,
    trend_of,
)


def rates(segments: list[Segment]) -> list[float]:
    """The factor at every boundary between intervals."""
    pieces = [s.interval(i) for s in segments for i in range(s.intervals)]
    for (_, end), (start, _) in pairwise(pieces):
        assert start == pytest.approx(end, abs=1e-12) or (end, start) == (0.0, 0.04)
    return [pieces[0][0], *(end for _, end in pieces)]


def total(segments: list[Segment]) -> int:
    return sum(segment.intervals for segment in segments)


def test_the_length_of_an_interval() -> None:
    assert interval_steps(Speed(0.1, 1.0, 50), 100, 180.0) == 100
    # An evaluation of 1 s may take a quarter: three seconds of training, 30 epochs of 0.1 s.
    assert interval_steps(Speed(0.01, 1.0, 50), 10, 180.0) == 300
    # An epoch of 100 s: a fifth of the budget less the evaluation is 35 s.
    assert interval_steps(Speed(0.1, 1.0, 50), 1000, 180.0) == 350
    # Evaluating takes longer than a fifth of the budget: half the time is training.
    assert interval_steps(Speed(0.1, 60.0, 50), 1000, 180.0) == 600
    assert interval_steps(Speed(500.0, 0.0, 2), 1000, 180.0) == 1


@pytest.mark.parametrize("fitting", [0, 1, 2, 3, 5, 8, 50, 10_000])
@pytest.mark.parametrize("head", [False, True])
def test_the_first_plan_warms_up_and_decays_to_zero(fitting: int, head: bool) -> None:
    segments = first_segments(fitting, 40, head=head)
    assert total(segments) == max(1, min(fitting, 40))
    assert segments[-1].end == 0.0
    if total(segments) > 3:
        names = ["head"] * head + ["warm-up", "hold", "decay"]
        assert [segment.name for segment in segments] == names[: len(segments)] or not head
        assert segments[-1].intervals == round(DECAY * total(segments))


def simulate(
    interval_s: list[float],
    budget_s: float,
    wanted: int,
    trends: str = "",
    measured_s: float | None = None,
) -> tuple[list[Segment], float]:
    """A run on a machine whose n-th interval takes ``interval_s[n]`` seconds (the last repeats)."""
    fitting = intervals_within(budget_s, measured_s or interval_s[0])
    segments, done, now_s, recent = first_segments(fitting, wanted, head=False), 0, 0.0, []
    while done < total(segments):
        took = interval_s[min(done, len(interval_s) - 1)]
        now_s, done, recent = now_s + took, done + 1, [*recent, took][-3:]
        fitting = intervals_within(budget_s - now_s, sum(recent) / len(recent))
        named = {"+": "improving", "-": "worsening", "?": "unmeasured"}
        trend = named.get(trends[done - 1 : done], "unknown")
        trend = "worsening" if "-" in trends[:done] else trend
        past = rates(segments)[: done + 1]
        segments = next_segments(segments, done, fitting, wanted, trend)
        assert rates(segments)[: done + 1] == past, "a completed interval changed"
    return segments, now_s


def test_constant_speed_gives_the_planned_run() -> None:
    segments, seconds = simulate([1.0], 200.0, 40)
    assert seconds == 40
    assert [(s.name, s.intervals) for s in segments] == [
        ("warm-up", 4),
        ("hold", 20),
        ("decay", 16),
    ]


def test_an_improving_run_uses_the_whole_budget() -> None:
    segments, seconds = simulate([1.0], 200.0, 40, "+" * 200)
    assert 190 <= seconds <= 200
    assert segments[-1].end == 0.0
    assert segments[-1].intervals == pytest.approx(DECAY * total(segments), abs=2)


@pytest.mark.parametrize("slower", [1.5, 3.0, 10.0])
@pytest.mark.parametrize("when", [1, 5, 20, 40, 55])
def test_a_machine_that_slows_down_still_ends_its_schedule(slower: float, when: int) -> None:
    segments, seconds = simulate([1.0] * when + [slower], 60.0, 1000, "+" * 100)
    assert segments[-1].end == 0.0
    # The budget is exceeded by one interval at most; the averaged speed is one interval late.
    assert seconds <= 60.0 + 2 * slower


def test_a_faster_machine_holds_the_rate_longer() -> None:
    segments, seconds = simulate([4.0, 4.0, 1.0], 60.0, 1000)
    assert 50 <= seconds <= 60
    assert total(segments) > 40


def test_an_underestimated_speed_adds_a_cycle() -> None:
    segments, seconds = simulate([1.0], 180.0, 1000, measured_s=150.0)
    assert [segment.name for segment in segments[:3]] == ["decay", "warm-up", "hold"]
    assert segments[-1].end == 0.0
    assert 140 <= seconds <= 180


def test_few_intervals_use_the_whole_budget() -> None:
    # An hour of a language model on a slow machine ended after 31 minutes, with 2 of 5 intervals
    # unused.
    segments, seconds = simulate([500.0, 750.0, 630.0], 3540.0, 60)
    assert total(segments) == 5
    assert seconds > 2900
    assert segments[-1] == Segment("decay", 1.0, 0.0, 3)


def test_only_a_worsening_trend_starts_the_decay_early() -> None:
    harmed, _ = simulate([1.0], 200.0, 40, "......-")
    assert [(s.name, s.intervals) for s in harmed] == [("warm-up", 4), ("hold", 3), ("decay", 5)]
    longer, _ = simulate([1.0], 200.0, 40, "." * 23 + "+")
    assert [(s.name, s.intervals) for s in longer] == [("warm-up", 4), ("hold", 26), ("decay", 20)]


def test_a_short_plan_goes_on_until_its_scores_have_a_trend() -> None:
    # Seven epochs of CIFAR-10 ended after 58 of 180 s, before there were scores to compare.
    known, _ = simulate([8.0], 180.0, 7)
    assert total(known) == 7
    measured, _ = simulate([8.0], 180.0, 7, "????????" + "+" * 20)
    assert total(measured) >= 20
    level, _ = simulate([8.0], 180.0, 7, "????????")
    assert 13 <= total(level) <= 15


def test_completed_intervals_keep_their_exact_factors() -> None:
    decay = Segment("decay", 1.0, 0.0, 7)
    for done in range(1, 7):
        assert [piece.interval(0) for piece in decay.completed(done)] == [
            decay.interval(i) for i in range(done)
        ]
    assert Segment("hold", 1.0, 1.0, 9).completed(4) == [Segment("hold", 1.0, 1.0, 4)]
    assert decay.completed(0) == []


def test_noise_is_the_deviation_around_a_trend() -> None:
    draws = random.Random(0)
    scores = [0.001 * i + draws.gauss(0, 0.05) for i in range(4000)]
    assert score_noise(scores) == pytest.approx(0.05, rel=0.05)
    assert score_noise([0.3]) == score_noise([]) == score_noise([math.nan, 1.0]) == 0.0


def test_improvement_is_in_standard_errors() -> None:
    draws = random.Random(1)
    flat = [[draws.gauss(0, 1) for _ in range(40)] for _ in range(2000)]
    improvements = [improvement(scores, "max") for scores in flat]
    # Of scores that only scatter, about a sixth looks better by one standard error.
    assert 0.13 <= sum(g > 1 for g in improvements) / 2000 <= 0.19
    rising = [0.01 * i + draws.gauss(0, 0.01) for i in range(40)]
    assert improvement(rising, "max") > 5
    assert improvement(rising, "min") < -5
    assert improvement([1.0] * 5, "max") is None
    assert improvement([1.0] * 8, "max") == 0.0
    assert improvement([1.0] * 5 + [math.nan], "max") == -math.inf


def ends_at(slope: float, seed: int, intervals: int = 100) -> int | None:
    """The interval after which a run ends whose loss and accuracy get worse by ``slope`` each."""
    generator, loss, accuracy = random.Random(seed), list[float](), list[float]()
    for interval in range(intervals):
        both = generator.gauss(0.0, 1.0)  # the fluctuations of loss and accuracy are correlated
        loss.append(slope * interval + both)
        accuracy.append(-slope * interval - 0.5 * both + generator.gauss(0.0, 0.75**0.5))
        if trend_of([(loss, "min"), (accuracy, "max")]) == "worsening":
            return interval + 1
    return None


def test_scores_that_only_fluctuate_do_not_end_a_run() -> None:
    """The run looks a hundred times, and must not take the noise of one look for a trend."""
    ended = [seed for seed in range(100) if ends_at(0.0, seed) is not None]
    assert len(ended) <= 5, ended


def test_scores_that_get_worse_end_a_run_soon() -> None:
    ends = [ends_at(0.3, seed) for seed in range(50)]
    assert all(end is not None and end <= 40 for end in ends), ends
