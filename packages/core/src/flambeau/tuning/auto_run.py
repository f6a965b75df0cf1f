"""``AutoRun``: a run that plans itself under a time budget, and one that repeats such a run.

It decides at each interval's end what follows (``budget.py`` has the rules), and keeps what it
realised as plain values, from which the same run can be made again without a clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self, TypeVar

from flambeau import random as keyed
from flambeau.distributed import processes
from flambeau.global_rng import TemporarySeed
from flambeau.phases.bn_policy import BatchNormPolicy
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule
from flambeau.plan.plan import Plan
from flambeau.task import Classification
from flambeau.task.task import Task
from flambeau.training.components import Components
from flambeau.training.history import History, Number
from flambeau.training.optim.controller import Mode, mode_of
from flambeau.training.state import TrainState
from flambeau.tuning.budget import (
    Segment,
    Speed,
    Trend,
    first_segments,
    improvement,
    interval_steps,
    intervals_within,
    next_segments,
    score_noise,
    spare_intervals,
)
from flambeau.tuning.interval_loader import IntervalLoader

Clock = Callable[[], float]

T = TypeVar("T")

_STATE_ATTRIBUTES = (
    "batches",
    "budget_s",
    "ended",
    "first_row",
    "mode",
    "monitor",
    "replanned",
    "steps_per_epoch",
    "steps_per_interval",
    "interval_s",
    "wanted",
)

# The latest intervals tell the speed that the next ones will have.
_RECENT = 3
# Standard errors by which scores must differ to count as better, and as worse.
_BETTER, _WORSE = 1.0, -2.0


@dataclass(frozen=True)
class PhaseSettings:
    """What every phase of the run has in common.

    Attributes:
        lr: Peak learning rate.
        bn: Batch norm policy.
        trainable: Groups that learn; None for all.
        lr_scales: Factor on the rate by group, once all groups learn.
        head: The group that learns alone first; None where none does.
    """

    lr: float
    bn: BatchNormPolicy = "auto"
    trainable: tuple[str, ...] | None = None
    lr_scales: Mapping[str, float] | None = None
    head: str | None = None

    def phases(self, segments: Sequence[Segment]) -> list[Phase]:
        """A phase a interval."""
        return [
            self._phase(segment, *segment.interval(index))
            for segment in segments
            for index in range(segment.intervals)
        ]

    def _phase(self, segment: Segment, start: float, end: float) -> Phase:
        is_head = segment.name == "head"
        # As in fine_tune: once the body learns too, all of it goes at half the head's rate.
        peak = self.lr / 2 if self.head is not None and not is_head else self.lr
        if start == end:
            schedule = Schedule("constant", peak * start)
        else:
            schedule = Schedule("linear", peak, {"start": start, "end": end})
        return Phase(
            1,
            {"lr": schedule},
            trainable=(self.head,) if is_head and self.head else self.trainable,
            lr_scales={} if is_head else dict(self.lr_scales or {}),
            bn=self.bn,
            name=segment.name,
        )


class AutoRun:
    """Decides after each interval how the run goes on; the loop asks it.

    Args:
        budget_s: Seconds for everything from now on; None repeats a run that was recorded.
        clock: Seconds from any starting point.

    Attributes:
        segments: The run as planned now.
        batches: Batches in a interval; None for an epoch.
        monitor: Column of the history by which the best interval is kept; None without valid.
        mode: Whether it is to be small or large.
        ended: Why the run ended before its budget; empty where it did not.
        replanned: How often the speed or the scores changed the plan.
    """

    def __init__(self, budget_s: float | None, clock: Clock = time.perf_counter) -> None:
        self.budget_s, self.clock = budget_s, clock
        self._started_s = clock()
        self.phase_settings = PhaseSettings(0.0)
        self.segments: list[Segment] = []
        self.batches: int | None = None
        self.steps_per_interval = self.steps_per_epoch = self.wanted = 1
        self.speed: Speed | None = None
        self.monitor: str | None = None
        self.mode: Mode = "min"
        self.ended = ""
        self.replanned = 0
        self.interval_s = 0.0
        self.first_row = 0
        self._marks_s: list[float] = []

    @property
    def elapsed_s(self) -> float:
        """Seconds of the budget that are gone."""
        return self.clock() - self._started_s

    # Before the run

    def choose_monitor(self, task: Task, *, has_valid: bool) -> None:
        """Chooses the column by which the best interval is kept."""
        self.monitor, self.mode = None, "min"
        if not has_valid:
            return
        self.monitor = "valid_loss"
        # Of classes the loss may rise while the answers get better: it punishes certainty.
        metrics = list(task.metrics()) if isinstance(task, Classification) else []
        if metrics:
            self.monitor = f"valid_{metrics[0]}"
        self.mode = mode_of(self.monitor)

    def make_first_plan(
        self, peak: PhaseSettings, speed: Speed | None, components: Components, accumulate: int
    ) -> None:
        """The first plan, from what was measured.

        Args:
            peak: What the phases have in common.
            speed: None where the loader cannot repeat batches, so that nothing could be measured:
                then a interval is an epoch, and the first one tells.
            components: The objects built from the plan.
            accumulate: Micro-batches in a step.
        """
        self.phase_settings, self.speed = peak, _from_rank_zero(speed)
        left_s = _from_rank_zero((self.budget_s or 0.0) - self.elapsed_s)
        steps = self.steps_per_epoch = -(-components.train.steps_per_epoch // accumulate)
        self.wanted = fitting = int(components.values["epochs"])
        if self.speed is not None:
            steps = interval_steps(self.speed, self.steps_per_epoch, left_s)
            self.interval_s = steps * self.speed.step_s + self.speed.evaluation_s
            fitting = intervals_within(left_s, self.interval_s)
            self.wanted = max(1, -(-self.wanted * self.steps_per_epoch // steps))
        self.batches = None if steps == self.steps_per_epoch else steps * accumulate
        self.steps_per_interval = steps
        self.segments = first_segments(fitting, self.wanted, head=peak.head is not None)
        self._marks_s = [self.elapsed_s]

    def epochs_within(self, speed: Speed, components: Components, accumulate: int) -> int:
        """Epochs of training that the budget has room for, evaluations included."""
        steps = -(-components.train.steps_per_epoch // accumulate)
        left_s = _from_rank_zero((self.budget_s or 0.0) - self.elapsed_s)
        return intervals_within(left_s, steps * speed.step_s + speed.evaluation_s)

    def with_intervals(self, components: Components) -> Components:
        """The parts with a train loader whose epochs are the run's intervals."""
        if self.batches is None:
            return components
        return replace(components, train=IntervalLoader(components.train, self.batches))

    def phases(self) -> list[Phase]:
        """The phases as planned now, those that are done first."""
        return self.phase_settings.phases(self.segments)

    def fixed_seed(self, seed: int) -> TemporarySeed:
        """A block in which dropout draws the same numbers, whatever was drawn before."""
        return TemporarySeed().at(keyed.key(seed, "fit_auto"))

    def description(self) -> str:
        """What is planned, in a line for the terminal."""
        total = sum(segment.intervals for segment in self.segments)
        parts = ", ".join(f"{s.intervals} {s.name}" for s in self.segments)
        if self.budget_s is None:
            return (
                f"fit_auto repeats {total} intervals of {self.steps_per_interval:,} steps: {parts}."
            )
        what = "could not measure a step"
        if self.speed is not None:
            what = (
                f"{self.speed.step_s * 1e3:.3g} ms a step, {self.speed.evaluation_s:.2g} s an "
                "evaluation"
            )
        return (
            f"fit_auto: {what}, {self.elapsed_s:.2g} of {self.budget_s:.3g} s are gone. First plan:"
            f" {total} intervals of {self.steps_per_interval:,} steps ({parts})."
        )

    # During the run

    def next_phases(self, state: TrainState) -> list[Phase]:
        """What follows the phase that is over; a list that ends with it where nothing does."""
        done = state.position.phase + 1
        if self.budget_s is None:
            return self.phases()
        now_s = self.elapsed_s
        self._marks_s = [*self._marks_s, now_s][-_RECENT - 1 :]
        if len(self._marks_s) > 1:
            self.interval_s = (now_s - self._marks_s[0]) / (len(self._marks_s) - 1)
        fitting = _from_rank_zero(intervals_within(self.budget_s - now_s, self.interval_s))
        before = self.segments
        trend = "worsening" if self.ended else self._trend(state.history, done)
        self.segments = next_segments(before, done, fitting, self.wanted, trend)
        self.replanned += self.segments != before
        if self._segment_name(done) == "decay" and self._segment_name(done - 1) != "decay":
            in_time = spare_intervals(done, fitting) > 0
            self.ended = self._early_end_reason(trend, state.history, done) if in_time else ""
        if self._segment_name(done) == "" and self.ended:
            state.stop_reason = self.ended
        return self.phases()

    def tolerance(self, history: History) -> float:
        """How much worse than the best a later interval may score and still be kept instead.

        The score_noise of the run's own scores: among equals the one with the smaller rate is taken.
        """
        if self.monitor is None:
            return 0.0
        width = max(2 * _RECENT, len(self._scores(self.monitor, history, None)) // 4)
        return score_noise(self._scores(self.monitor, history, None)[-width:])

    def _scores(self, column: str, history: History, name: str | None) -> list[float]:
        """The run's scores so far, or those of the segments of one name."""
        names = [segment.name for segment in self.segments for _ in range(segment.intervals)]
        rows = history.rows[self.first_row :]
        return [
            float(row[column])
            for row, segment in zip(rows, names, strict=False)
            if column in row and name in (None, segment)
        ]

    def _trend(self, history: History, done: int) -> Trend:
        """Whether the intervals with the full rate help: by the score, or by the loss."""
        if self.monitor is None or self._segment_name(done - 1) != "hold":
            return "unknown"
        columns: dict[str, Mode] = {self.monitor: self.mode, "valid_loss": "min"}
        improvements = [
            improvement(self._scores(name, history, "hold"), columns[name]) for name in columns
        ]
        known = [each for each in improvements if each is not None]
        if any(each > _BETTER for each in known):
            return "improving"
        return "worsening" if known and all(each < _WORSE for each in known) else "unknown"

    def _segment_name(self, interval: int) -> str:
        """Of the segment in which a interval lies, counted from 0; empty after the last."""
        for segment in self.segments:
            if interval < segment.intervals:
                return segment.name
            interval -= segment.intervals
        return ""

    def _early_end_reason(self, trend: Trend, history: History, done: int) -> str:
        """Why the fall began while there was time to hold on."""
        if self.monitor is None:
            return f"no valid set tells whether more helps, so the plan's {self.wanted} epochs ran"
        scores = self._scores(self.monitor, history, "hold")
        if trend == "worsening":
            return f"{self.monitor} got worse while the rate was held, {done} evaluations long"
        return (
            f"{self.monitor} no longer improved beyond its score_noise of {self.tolerance(history):.2g} "
            f"in {len(scores)} evaluations at the full rate"
        )

    # What lasts

    def to_record(self, kept: int | None) -> dict[str, Any]:
        """From which the same run is made again: plain values for the plan.

        Args:
            kept: Stretch whose weights the model ended on, counted from 1.
        """
        return {
            "recipe": "train" if self.phase_settings.head is None else "fine_tune",
            "segments": [[s.name, s.start, s.end, s.intervals] for s in self.segments],
            "steps": self.steps_per_interval,
            "kept": kept,
        }

    def record_in(self, plan: Plan, history: History, best_epoch: int | None) -> Plan:
        """The plan with what was realised, so that a replay measures nothing.

        Args:
            plan: With which the run was made.
            history: With the run's rows.
            best_epoch: Whose weights the model ended on, as the history counts; None for the last.
        """
        rows = history.rows[self.first_row :]
        if not rows:
            return plan
        kept = None if best_epoch is None else best_epoch - int(rows[0]["epoch"]) + 1
        epochs = len(rows) * self.steps_per_interval / self.steps_per_epoch
        evidence, words = self._summary(rows, kept)
        again = "learner.fit_auto(minutes=10)"
        return plan.with_choice(
            replace(
                plan["auto"],
                value=self.to_record(kept),
                reason=words,
                evidence=evidence,
                override=again,
                source="rule",
            )
        ).with_choice(
            replace(
                plan["epochs"],
                value=max(1, round(epochs)),
                reason=f"fit_auto made {words}",
                evidence=evidence,
                confidence=1.0,
                override=again,
                source="rule",
            )
        )

    def _summary(
        self, rows: Sequence[Mapping[str, Number]], kept: int | None
    ) -> tuple[dict[str, Any], str]:
        """Figures of the run that is over, and the same in words."""
        steps = len(rows) * self.steps_per_interval
        epochs, elapsed_s = steps / self.steps_per_epoch, self.elapsed_s
        evidence: dict[str, Any] = {
            "budget_s": self.budget_s,
            "elapsed_s": round(elapsed_s, 3),
            "steps": steps,
            "epochs": round(epochs, 3),
            "replanned": self.replanned,
        }
        words = f"{steps:,} steps ({epochs:.3g} epochs) in {elapsed_s:.3g} s"
        if self.budget_s is not None:
            words += f" of {self.budget_s:.3g} s"
        if self.speed is not None:
            evidence |= {
                "step_s": self.speed.step_s,
                "evaluation_s": self.speed.evaluation_s,
                "timed_steps": self.speed.steps,
            }
            words += (
                f"; measured first: {self.speed.step_s * 1e3:.3g} ms a step, "
                f"{self.speed.evaluation_s:.2g} s an evaluation"
            )
        if self.monitor is not None and kept is not None:
            score = rows[kept - 1][self.monitor]
            evidence |= {"monitor": self.monitor, "score": score}
            words += f". Kept: interval {kept} of {len(rows)}, {self.monitor} {score:.4g}"
        return evidence, words + (f". Ended early: {self.ended}." if self.ended else ".")

    def restore_record(
        self,
        outcome: Mapping[str, Any],
        peak: PhaseSettings,
        components: Components,
        accumulate: int,
    ) -> None:
        """Takes the place of ``begin`` where a recorded run is made again."""
        self.phase_settings = peak
        self.segments = [Segment(*segment) for segment in outcome["segments"]]
        steps = self.steps_per_interval = int(outcome["steps"])
        self.steps_per_epoch = -(-components.train.steps_per_epoch // accumulate)
        self.batches = None if steps == self.steps_per_epoch else steps * accumulate

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        trainable = self.phase_settings.trainable
        peak = asdict(self.phase_settings) | {
            "trainable": None if trainable is None else list(trainable)
        }
        return {
            "peak": peak,
            "segments": [list(asdict(segment).values()) for segment in self.segments],
            "speed": None if self.speed is None else asdict(self.speed),
            "elapsed_s": self.elapsed_s,
            **{name: getattr(self, name) for name in _STATE_ATTRIBUTES},
        }

    @classmethod
    def from_state(cls, values: Mapping[str, Any], clock: Clock = time.perf_counter) -> Self:
        """The run that ``state_dict`` described, whose clock goes on from where it stood."""
        auto = cls(values["budget_s"], clock)
        auto._started_s -= values["elapsed_s"]
        peak, speed = values["peak"], values["speed"]
        trainable = peak["trainable"]
        auto.phase_settings = PhaseSettings(
            **peak | {"trainable": None if trainable is None else tuple(trainable)}
        )
        auto.segments = [Segment(*segment) for segment in values["segments"]]
        auto.speed = None if speed is None else Speed(**speed)
        for name in _STATE_ATTRIBUTES:
            setattr(auto, name, values[name])
        return auto


def _from_rank_zero(value: T) -> T:
    """What process 0 measured, where several make the run."""
    group = processes.current()
    return value if group is None else group.from_main(value)
