"""What a run under a time budget does next: warm up, hold the rate, let it fall to zero, stop.

Pure functions of seconds and scores, so that a test needs no clock. A run is a list of segments;
each is cut into intervals, and each interval ends with an evaluation. The rate is held until the
remaining time is what the fall needs, or until holding no longer helps: so the schedule reaches its
end whatever the machine's speed turns out to be.

Source:
    The trapezoid of Xing et al., "A Walk with SGD" (https://arxiv.org/abs/1802.08770), whose length
    need not be known beforehand; Hägele et al. (https://arxiv.org/abs/2405.18392) find it as good
    as a cosine of the same length, with a fall over the last 20% and more.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from flambeau.training.optim.controller import Mode

Trend = Literal["improving", "worsening", "unknown"]

DECAY = 0.4
"""Share of the run in which the rate falls. Small networks on small data improvement from a long one."""

WARM_UP, START = 0.1, 0.04
"""Share of the run in which the rate rises, and the part of the peak with which it starts."""

_MIN_INTERVALS = 5
# An evaluation may take this share of a interval.
_EVALUATION = 0.25
# Kept back for restoring the best weights and writing the last lines.
_KEPT_BACK = 0.02
# Means of fewer scores are compared with nothing.
_MIN_SCORES = 3


@dataclass(frozen=True)
class Speed:
    """What was measured before the run.

    Attributes:
        step_s: Seconds of an optimizer step.
        evaluation_s: Seconds of an evaluation on all of valid.
        steps: Steps that were timed.
    """

    step_s: float
    evaluation_s: float
    steps: int


@dataclass(frozen=True)
class Segment:
    """IntervalLoader between which the rate moves along one straight line.

    Attributes:
        name: "head", "warm-up", "hold" or "decay"; in "head" the last group alone learns.
        start: Factor of the peak at the first step.
        end: Factor at the last step.
        intervals: How many.
    """

    name: str
    start: float
    end: float
    intervals: int

    def interval(self, index: int) -> tuple[float, float]:
        """Start and end of one interval."""
        if self.intervals == 1:
            return self.start, self.end
        return self._factor_at(index), self._factor_at(index + 1)

    def _factor_at(self, index: int) -> float:
        share = index / self.intervals
        return self.start * (1.0 - share) + self.end * share

    def completed(self, done: int) -> list[Segment]:
        """What was done of it, so that the same pieces come out again to the last bit."""
        if self.start == self.end:
            return [replace(self, intervals=done)] if done else []
        pieces = [self.interval(index) for index in range(done)]
        return [Segment(self.name, start, end, 1) for start, end in pieces]


def interval_steps(speed: Speed, steps_per_epoch: int, budget_s: float) -> int:
    """Optimizer steps between two evaluations: an epoch, unless time speaks for another length.

    Several epochs where the evaluation would take more than a quarter of the time, a part of one
    where fewer than five intervals would fit into the budget.
    """
    step_s = max(speed.step_s, 1e-9)
    epochs = 1
    longest = budget_s / _MIN_INTERVALS - speed.evaluation_s
    wanted = speed.evaluation_s * (1 - _EVALUATION) / _EVALUATION
    if wanted > steps_per_epoch * step_s:
        epochs = math.ceil(wanted / (steps_per_epoch * step_s))
    steps = epochs * steps_per_epoch
    if steps * step_s <= longest:
        return steps
    # A part of an epoch; where even that is mostly evaluation, as much training as evaluation.
    return max(1, min(steps, math.floor(max(longest, speed.evaluation_s) / step_s)))


def intervals_within(seconds: float, interval_s: float) -> int:
    """Whole intervals that fit."""
    return max(0, math.floor(seconds * (1 - _KEPT_BACK) / max(interval_s, 1e-9)))


def first_segments(fitting: int, wanted: int, *, head: bool) -> list[Segment]:
    """The plan with which a run starts.

    Args:
        fitting: IntervalLoader that fit into the budget.
        wanted: IntervalLoader after which the plan's number of epochs is reached.
        head: Whether the head learns alone first.
    """
    total = max(1, min(fitting, wanted))
    first = max(1, round(WARM_UP * total))
    segments = [Segment("head", START, 1.0, first)] if head and total > 1 else []
    fall = max(1, round(DECAY * total))
    warm = min(first, total - fall - sum(s.intervals for s in segments))
    if warm > 0:
        segments.append(Segment("warm-up", START, 1.0, warm))
    hold = total - fall - sum(s.intervals for s in segments)
    if hold > 0:
        segments.append(Segment("hold", 1.0, 1.0, hold))
    return [*segments, Segment("decay", 1.0, 0.0, fall)]


def next_segments(
    segments: Sequence[Segment], done: int, fitting: int, wanted: int, trend: Trend
) -> list[Segment]:
    """The segments that a run goes on with: those that are done, and what follows.

    Args:
        segments: The plan so far.
        done: IntervalLoader that are over.
        fitting: IntervalLoader that still fit into the budget.
        wanted: As for ``first_segments``: before them only harm ends the holding.
        trend: Whether holding the rate on "improving", "worsening", or neither is known.

    Returns:
        A list whose last segment ends at 0. Where nothing is left to do it has ``done`` intervals.
        A run that ends with much time left begins another cycle, unless the plan's epochs are made.
    """
    past, current, inside = _split(segments, done)
    if current is None:
        # The machine was measured too slow, and the rate fell too early: another, longer cycle.
        if trend == "worsening" or done >= wanted or fitting < max(_MIN_INTERVALS, done):
            return past
        return [*past, *first_segments(fitting, wanted - done, head=False)]
    rate, left = current.interval(inside)[0], current.intervals - inside
    if current.name == "decay" and inside:
        if fitting >= left:
            return list(segments)
        return [*past, *current.completed(inside), Segment("decay", rate, 0.0, max(1, fitting))]
    spare = spare_intervals(done, fitting)
    if current.name in ("head", "warm-up"):
        if spare > 0:
            return list(segments)
        return [*past, *current.completed(inside), Segment("decay", rate, 0.0, max(1, fitting))]
    if current.name == "decay":
        left = max(
            math.floor(wanted * (1 - DECAY)) - done, done // 4 if trend == "improving" else 0
        )
    if trend == "worsening":
        left = 0
    past = [*past, *(current.completed(inside) if current.name == "hold" else [])]
    if (left := min(left, spare)) > 0:
        past = _joined(past, Segment("hold", 1.0, 1.0, left))
        return [*past, Segment("decay", 1.0, 0.0, _decay_after(done + left))]
    fall = _decay_after(done)
    # One more than its share rather than a interval of the budget that nobody uses.
    fall = max(1, fitting) if fitting <= fall + 1 else fall
    return [*past, Segment("decay", rate, 0.0, fall)]


def spare_intervals(done: int, fitting: int) -> int:
    """Of those that fit, how many may come before the fall if it is to have its share."""
    return math.floor(fitting * (1 - DECAY) - done * DECAY)


def _decay_after(done: int) -> int:
    """IntervalLoader of a fall that ends a run of ``done`` before it."""
    return max(1, round(done * DECAY / (1 - DECAY)))


def _split(segments: Sequence[Segment], done: int) -> tuple[list[Segment], Segment | None, int]:
    """Segments that are over, the one in which interval ``done`` lies, and its place in there."""
    past: list[Segment] = []
    for segment in segments:
        if done < segment.intervals:
            return past, segment, done
        past.append(segment)
        done -= segment.intervals
    return past, None, 0


def _joined(past: list[Segment], segment: Segment) -> list[Segment]:
    if past and (past[-1].name, past[-1].start, past[-1].end) == ("hold", 1.0, 1.0):
        both = past[-1].intervals + segment.intervals
        return [*past[:-1], replace(segment, intervals=both)]
    return [*past, segment]


def score_noise(scores: Sequence[float]) -> float:
    """Standard deviation of a score around its trend, from the steps between neighbours."""
    finite = [score for score in scores if math.isfinite(score)]
    if len(finite) < 2:
        return 0.0
    steps = [b - a for a, b in pairwise(finite)]
    return math.sqrt(sum(step * step for step in steps) / (2 * len(steps)))


def improvement(scores: Sequence[float], mode: Mode) -> float | None:
    """By how many standard errors the last quarter of the scores is better than the one before.

    None where there are too few scores to tell.
    """
    width = max(_MIN_SCORES, len(scores) // 4)
    if len(scores) < 2 * width:
        return None
    recent, before = scores[-width:], scores[-2 * width : -width]
    better = (sum(before) - sum(recent)) / width
    if not math.isfinite(better):
        return -math.inf
    if mode == "max":
        better = -better
    error = score_noise(scores[-2 * width :]) * math.sqrt(2 / width)
    if error == 0.0:
        return math.copysign(math.inf, better) if better else 0.0
    return better / error
