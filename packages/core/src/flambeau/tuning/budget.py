"""The schedule of a run with a time budget: warm-up, hold, decay to zero, end.

These are pure functions of seconds and scores, so tests need no clock. A run is a list of segments;
each consists of intervals, and each interval ends with an evaluation. The learning rate is held at
its peak until only the time for the decay remains, or until the scores no longer improve. The
schedule therefore ends in time, even if the speed of the machine changes.

Source:
    The trapezoidal schedule of Xing et al., "A Walk with SGD"
    (https://arxiv.org/abs/1802.08770), whose length need not be known in advance; Hägele et al.
    (https://arxiv.org/abs/2405.18392) find it as good as a cosine of the same length, with a decay
    over at least the last 20%.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from flambeau.task.metrics import Mode

Trend = Literal["improving", "worsening", "unknown", "unmeasured"]
"""Trend of the scores at the peak learning rate; "unmeasured" if there are too few of them."""

LONGEST = "epochs_with_budget"
"""Entry in the evidence of the plan's "epochs": the number of epochs up to which a run with a time
budget is useful, if it is larger than the plan's own number."""

DECAY = 0.4
"""Share of the run in which the learning rate decays; it is large, because small networks on small
data need a long decay."""

WARM_UP, START = 0.1, 0.04
"""Share of the run in which the learning rate rises, and the initial fraction of its peak."""

_MIN_INTERVALS = 5
# Largest share of an interval that its evaluation may take.
EVALUATION = 0.25
# Share of the budget reserved for restoring the best weights and writing results.
KEPT_BACK = 0.02
# Means of fewer scores are not compared.
_MIN_SCORES = 3
# Differences of scores, in standard errors, that count as better and as worse. A run looks at them
# after each interval: at -2 a quarter of the runs with fluctuating scores would end early, at -3
# one in 50. Scores that do get worse are then noticed some ten intervals later.
_BETTER, _WORSE = 1.0, -3.0


@dataclass(frozen=True)
class Speed:
    """Durations that were measured before the run.

    Attributes:
        step_s: Seconds per optimizer step.
        evaluation_s: Seconds per evaluation of the whole validation part.
        steps: Number of steps that were timed.
    """

    step_s: float
    evaluation_s: float
    steps: int


@dataclass(frozen=True)
class Segment:
    """A segment of a run: consecutive intervals with a linearly changing learning rate.

    Attributes:
        name: "head", "warm-up", "hold" or "decay"; in "head" only the last group trains.
        start: Factor of the peak at the first step.
        end: Factor of the peak at the last step.
        intervals: Number of intervals.
    """

    name: str
    start: float
    end: float
    intervals: int

    def interval(self, index: int) -> tuple[float, float]:
        """Return the factors of the peak learning rate at the start and the end of an interval."""
        if self.intervals == 1:
            return self.start, self.end
        return self._factor_at(index), self._factor_at(index + 1)

    def _factor_at(self, index: int) -> float:
        share = index / self.intervals
        return self.start * (1.0 - share) + self.end * share

    def completed(self, done: int) -> list[Segment]:
        """Return the first ``done`` intervals of the segment, with unchanged learning rates."""
        if self.start == self.end:
            return [replace(self, intervals=done)] if done else []
        pieces = [self.interval(index) for index in range(done)]
        return [Segment(self.name, start, end, 1) for start, end in pieces]


def interval_steps(speed: Speed, steps_per_epoch: int, budget_s: float) -> int:
    """Return the steps of an interval (from one evaluation to the next), by default an epoch.

    An interval is longer than an epoch if evaluation would otherwise take more than a quarter of
    the time. It is shorter if otherwise fewer than five intervals would fit into the budget.
    """
    step_s = max(speed.step_s, 1e-9)
    epochs = 1
    longest = budget_s / _MIN_INTERVALS - speed.evaluation_s
    wanted = speed.evaluation_s * (1 - EVALUATION) / EVALUATION
    if wanted > steps_per_epoch * step_s:
        epochs = math.ceil(wanted / (steps_per_epoch * step_s))
    steps = epochs * steps_per_epoch
    if steps * step_s <= longest:
        return steps
    # Part of an epoch; at least half of the interval is training.
    return max(1, min(steps, math.floor(max(longest, speed.evaluation_s) / step_s)))


def whole_pieces(steps: int, steps_per_epoch: int) -> int:
    """Return the length of an interval of a stream: an epoch, or a part of an epoch.

    All parts of an epoch have this length, or one step less.

    >>> whole_pieces(30, 10), whole_pieces(4, 10), whole_pieces(7, 10)
    (10, 4, 5)
    """
    pieces = -(-steps_per_epoch // min(steps, steps_per_epoch))
    return -(-steps_per_epoch // pieces)


def intervals_within(seconds: float, interval_s: float) -> int:
    """Return the number of whole intervals that fit into the time."""
    return max(0, math.floor(seconds * (1 - KEPT_BACK) / max(interval_s, 1e-9)))


def first_segments(fitting: int, wanted: int, *, head: bool) -> list[Segment]:
    """Return the segments with which a run starts.

    Args:
        fitting: Number of intervals that fit into the budget.
        wanted: Number of intervals that complete the plan's epochs.
        head: Whether the head trains alone first.
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
    """Return the updated segments of a run: the completed and the following ones.

    Args:
        segments: The segments so far.
        done: Number of completed intervals.
        fitting: Number of intervals that still fit into the budget.
        wanted: As for ``first_segments``. Before this number of intervals, only a "worsening" trend
            ends the "hold" segment.
        trend: Trend of the scores at the peak rate. While it is "improving" or "unmeasured", the
            run stays at the peak rate as long as the budget permits.

    Returns:
        The segments; the last one ends at 0. If the run is complete, they have ``done`` intervals
        in total. A run whose decay ends with much time left starts another cycle, unless it has
        completed the plan's epochs.
    """
    past, current, inside = _split(segments, done)
    if current is None:
        # The speed was underestimated, so the decay came too early: add another, longer cycle.
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
        more = {"improving": done // 4, "unmeasured": 1}.get(trend, 0)
        left = max(math.floor(wanted * (1 - DECAY)) - done, more)
    if trend == "worsening":
        left = 0
    past = [*past, *(current.completed(inside) if current.name == "hold" else [])]
    is_limited = left > spare  # by the time
    if (left := min(left, spare)) > 0:
        past = _joined(past, Segment("hold", 1.0, 1.0, left))
        return [*past, Segment("decay", 1.0, 0.0, _decay_after(done + left))]
    fall = _decay_after(done)
    # More intervals than its share, rather than leave them unused.
    fall = max(1, fitting) if is_limited or fitting <= fall + 1 else fall
    return [*past, Segment("decay", rate, 0.0, fall)]


def spare_intervals(done: int, fitting: int) -> int:
    """Return how many of the ``fitting`` intervals can precede a decay of full length."""
    return math.floor(fitting * (1 - DECAY) - done * DECAY)


def _decay_after(done: int) -> int:
    """Return the length of a decay that follows ``done`` intervals."""
    return max(1, round(done * DECAY / (1 - DECAY)))


def _split(segments: Sequence[Segment], done: int) -> tuple[list[Segment], Segment | None, int]:
    """Return the completed segments, the segment of interval ``done``, and the index within it."""
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
    """Return the standard deviation of scores around their trend, from successive differences."""
    finite = [score for score in scores if math.isfinite(score)]
    if len(finite) < 2:
        return 0.0
    steps = [b - a for a, b in pairwise(finite)]
    return math.sqrt(sum(step * step for step in steps) / (2 * len(steps)))


def improvement(scores: Sequence[float], mode: Mode) -> float | None:
    """Return by how many standard errors the last quarter of the scores beats the previous quarter.

    None if there are too few scores.
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


def trend_of(series: Sequence[tuple[Sequence[float], Mode]]) -> Trend:
    """Return the trend of a run's scores: of one that improves, or of all that get worse.

    Args:
        series: The values of each score at the peak learning rate, and which of them are better.
    """
    found = [improvement(scores, mode) for scores, mode in series]
    known = [each for each in found if each is not None]
    if not known:
        return "unmeasured"
    if any(each > _BETTER for each in known):
        return "improving"
    return "worsening" if all(each < _WORSE for each in known) else "unknown"
