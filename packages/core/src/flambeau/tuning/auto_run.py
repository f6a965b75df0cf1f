"""``AutoRun``: a run with a time budget, which chooses its schedule, or a repetition of one.

At the end of each interval it decides how to continue, with the rules in ``budget.py``. The result
is recorded as JSON values, from which the same run can be repeated without measuring time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self, TypeVar

from flambeau import random as keyed
from flambeau.data.loader import StepCounts, is_stream
from flambeau.distributed import processes
from flambeau.global_rng import TemporarySeed
from flambeau.phases.bn_policy import BatchNormPolicy
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule
from flambeau.plan.plan import Plan
from flambeau.task.metrics import Mode
from flambeau.task.task import Task
from flambeau.training.components import Components
from flambeau.training.history import History, Number
from flambeau.training.optim.controller import column_modes, mode_of
from flambeau.training.state import TrainState
from flambeau.tuning.budget import (
    Segment,
    Speed,
    Trend,
    first_segments,
    interval_steps,
    intervals_within,
    next_segments,
    score_noise,
    spare_intervals,
    trend_of,
    whole_pieces,
)
from flambeau.tuning.interval_loader import IntervalLoader
from flambeau.tuning.stream_intervals import StreamIntervals

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

# Number of recent intervals from which the duration of the next ones is estimated.
_RECENT = 3


@dataclass(frozen=True)
class PhaseSettings:
    """The settings that all phases of the run have in common.

    Attributes:
        lr: Peak learning rate.
        bn: Batch norm policy.
        trainable: Groups that train; None for all groups.
        lr_scales: Factor on the learning rate by group, for phases in which all groups train.
        head: Group that trains alone in the first phases; None if there are no such phases.
    """

    lr: float
    bn: BatchNormPolicy = "auto"
    trainable: tuple[str, ...] | None = None
    lr_scales: Mapping[str, float] | None = None
    head: str | None = None

    def phases(self, segments: Sequence[Segment]) -> list[Phase]:
        """Return one phase per interval of the segments."""
        return [
            self._phase(segment, *segment.interval(index))
            for segment in segments
            for index in range(segment.intervals)
        ]

    def _phase(self, segment: Segment, start: float, end: float) -> Phase:
        is_head = segment.name == "head"
        # As in fine_tune: phases in which all groups train have half the peak rate.
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
    """Decides after each interval how the run continues. The training loop calls it.

    Args:
        budget_s: Seconds for all work after the creation of this object; None repeats a recorded
            run.
        clock: Returns seconds from any starting point.

    Attributes:
        segments: The segments of the run as currently planned.
        batches: Batches per interval; None if an interval is an epoch.
        monitor: Column of the history that selects the best interval; None without validation.
        mode: Whether smaller ("min") or larger ("max") values of ``monitor`` are better.
        ended: Why the run ends before its budget; empty if it does not.
        replanned: How often measured times or scores changed the segments.
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
        """Seconds since the run was created."""
        return self.clock() - self._started_s

    # Before the run

    def choose_monitor(
        self, task: Task, *, has_valid: bool, chosen: tuple[str, Mode] | None = None
    ) -> None:
        """Choose the column of the history that selects the best interval.

        Args:
            task: For a classification its first metric is chosen, else its loss.
            has_valid: Whether there is a validation part.
            chosen: The user's choice (``best_monitor``).

        Raises:
            ArgumentError: The metric does not define whether smaller or larger values are better.
        """
        self.monitor, self.mode = None, "min"
        if not has_valid:
            return
        if chosen is not None:
            self.monitor, self.mode = chosen
            return
        self.monitor = "valid_loss"
        # The loss of a classifier may rise while its accuracy improves: it penalises confidence.
        metrics = list(task.metrics()) if task.kind == "classification" else []
        if metrics:
            self.monitor = f"valid_{metrics[0]}"
        self.mode = mode_of(self.monitor, column_modes(task))

    def make_first_plan(
        self,
        phase_settings: PhaseSettings,
        speed: Speed | None,
        components: Components,
        accumulate: int,
        epochs: int,
    ) -> None:
        """Plan the first segments from the measured speed.

        Args:
            phase_settings: Settings that all phases have in common.
            speed: The measured speed; None if the loader cannot repeat batches. An interval is then
                an epoch, and the first epoch is timed.
            components: The objects built from the plan.
            accumulate: Micro-batches per step.
            epochs: Number of epochs of a run that is not limited by time.
        """
        self.phase_settings, self.speed = phase_settings, from_rank_zero(speed)
        left_s = from_rank_zero((self.budget_s or 0.0) - self.elapsed_s)
        steps = self.steps_per_epoch = StepCounts.of_loader(components.train, accumulate).of(0)
        self.wanted = fitting = epochs
        if self.speed is not None:
            steps = interval_steps(self.speed, self.steps_per_epoch, left_s)
            if is_stream(components.train):
                steps = whole_pieces(steps, self.steps_per_epoch)
            self.interval_s = steps * self.speed.step_s + self.speed.evaluation_s
            fitting = intervals_within(left_s, self.interval_s)
            self.wanted = max(1, -(-self.wanted * self.steps_per_epoch // steps))
        self.batches = None if steps == self.steps_per_epoch else steps * accumulate
        self.steps_per_interval = steps
        self.segments = first_segments(fitting, self.wanted, head=phase_settings.head is not None)
        self._marks_s = [self.elapsed_s]

    def epochs_within(self, speed: Speed, components: Components, accumulate: int) -> int:
        """Return the number of epochs, with evaluations, that fit into the remaining budget."""
        steps = StepCounts.of_loader(components.train, accumulate).of(0)
        left_s = from_rank_zero((self.budget_s or 0.0) - self.elapsed_s)
        return intervals_within(left_s, steps * speed.step_s + speed.evaluation_s)

    def with_intervals(self, components: Components) -> Components:
        """Return the components with a train loader whose epochs are the run's intervals."""
        if self.batches is None:
            return components
        train = components.train
        if is_stream(train):
            pieces = -(-self.steps_per_epoch // self.steps_per_interval)
            accumulate = self.batches // self.steps_per_interval
            return replace(components, train=StreamIntervals(train, pieces, accumulate))
        return replace(components, train=IntervalLoader(train, self.batches))

    def phases(self) -> list[Phase]:
        """Return the phases as currently planned, including completed ones."""
        return self.phase_settings.phases(self.segments)

    def fixed_seed(self, seed: int) -> TemporarySeed:
        """Return a context manager in which torch's generators are seeded (used by dropout)."""
        return TemporarySeed().at(keyed.key(seed, "fit_auto"))

    def description(self) -> str:
        """Return a one-line description of the planned run."""
        total = sum(segment.intervals for segment in self.segments)
        parts = ", ".join(f"{s.intervals} {s.name}" for s in self.segments)
        if self.budget_s is None:
            return (
                f"fit_auto repeats a run of {total} intervals of {self.steps_per_interval:,} steps "
                f"({parts})."
            )
        speed = "no step could be timed"
        if self.speed is not None:
            speed = (
                f"{self.speed.step_s * 1e3:.3g} ms per step, {self.speed.evaluation_s:.2g} s per "
                "evaluation"
            )
        return (
            f"fit_auto: {speed}; {self.elapsed_s:.2g} of {self.budget_s:.3g} s used. First plan: "
            f"{total} intervals of {self.steps_per_interval:,} steps ({parts})."
        )

    # During the run

    def next_phases(self, state: TrainState) -> list[Phase]:
        """Return all phases after a phase has ended; if that is the last of them, the run ends."""
        done = state.position.phase + 1
        if self.budget_s is None:
            return self.phases()
        now_s = self.elapsed_s
        self._marks_s = [*self._marks_s, now_s][-_RECENT - 1 :]
        if len(self._marks_s) > 1:
            self.interval_s = (now_s - self._marks_s[0]) / (len(self._marks_s) - 1)
        fitting = from_rank_zero(intervals_within(self.budget_s - now_s, self.interval_s))
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
        """Return by how much a later interval may score worse than the best one and still be kept.

        This is the noise of the run's scores: among equal scores, the later interval is preferred,
        because its learning rate is lower.
        """
        if self.monitor is None:
            return 0.0
        width = max(2 * _RECENT, len(self._scores(self.monitor, history, None)) // 4)
        return score_noise(self._scores(self.monitor, history, None)[-width:])

    def _scores(self, column: str, history: History, name: str | None) -> list[float]:
        """Return the run's scores so far, or only the scores of the segments with one name."""
        names = [segment.name for segment in self.segments for _ in range(segment.intervals)]
        rows = history.rows[self.first_row :]
        return [
            float(row[column])
            for row, segment in zip(rows, names, strict=False)
            if column in row and name in (None, segment)
        ]

    def _trend(self, history: History, done: int) -> Trend:
        """Return whether the score or the loss improves at the peak learning rate."""
        if self.monitor is None or self._segment_name(done - 1) != "hold":
            return "unknown"
        columns: dict[str, Mode] = {self.monitor: self.mode, "valid_loss": "min"}
        return trend_of(
            [(self._scores(name, history, "hold"), mode) for name, mode in columns.items()]
        )

    def _segment_name(self, interval: int) -> str:
        """Return the name of the segment that contains an interval; empty after the last."""
        for segment in self.segments:
            if interval < segment.intervals:
                return segment.name
            interval -= segment.intervals
        return ""

    def _early_end_reason(self, trend: Trend, history: History, done: int) -> str:
        """Return why the decay began although there was time left at the peak learning rate."""
        if self.monitor is None:
            return "without a validation part, the run trains for the plan's number of epochs"
        scores = self._scores(self.monitor, history, "hold")
        if trend == "worsening":
            return (
                f"{self.monitor} got worse during the {done} evaluations at the peak learning rate"
            )
        return (
            f"{self.monitor} improved by less than its noise of {self.tolerance(history):.2g} "
            f"in {len(scores)} evaluations at the peak learning rate"
        )

    # Recording

    def to_record(self, kept: int | None) -> dict[str, Any]:
        """Return a record of the run for the plan, as JSON values from which it can be repeated.

        Args:
            kept: Number of the interval whose weights the model has, counted from 1.
        """
        return {
            "recipe": "train" if self.phase_settings.head is None else "fine_tune",
            "segments": [[s.name, s.start, s.end, s.intervals] for s in self.segments],
            "steps": self.steps_per_interval,
            "kept": kept,
        }

    def record_in(self, plan: Plan, history: History, best_epoch: int | None) -> Plan:
        """Return the plan with a record of the run, so that a replay measures nothing.

        Args:
            plan: The plan of the run.
            history: Contains the run's rows.
            best_epoch: Epoch of the history whose weights the model has; None for the last.
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
                reason=f"fit_auto trained {words}",
                evidence=evidence,
                confidence=1.0,
                override=again,
                source="rule",
            )
        )

    def _summary(
        self, rows: Sequence[Mapping[str, Number]], kept: int | None
    ) -> tuple[dict[str, Any], str]:
        """Return the figures of the finished run, and a text that contains them."""
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
                f". Measured: {self.speed.step_s * 1e3:.3g} ms per step, "
                f"{self.speed.evaluation_s:.2g} s per evaluation"
            )
        if self.monitor is not None and kept is not None:
            score = rows[kept - 1][self.monitor]
            evidence |= {"monitor": self.monitor, "score": score}
            words += f". Best: interval {kept} of {len(rows)}, {self.monitor} {score:.4g}"
        return evidence, words + (f". Ended early: {self.ended}." if self.ended else ".")

    def restore_record(
        self,
        outcome: Mapping[str, Any],
        phase_settings: PhaseSettings,
        components: Components,
        accumulate: int,
    ) -> None:
        """Prepare the repetition of a recorded run, instead of ``make_first_plan``."""
        self.phase_settings = phase_settings
        self.segments = [Segment(*segment) for segment in outcome["segments"]]
        steps = self.steps_per_interval = int(outcome["steps"])
        self.steps_per_epoch = StepCounts.of_loader(components.train, accumulate).of(0)
        self.batches = None if steps == self.steps_per_epoch else steps * accumulate

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        trainable = self.phase_settings.trainable
        settings = asdict(self.phase_settings) | {
            "trainable": None if trainable is None else list(trainable)
        }
        return {
            "phase_settings": settings,
            "segments": [list(asdict(segment).values()) for segment in self.segments],
            "speed": None if self.speed is None else asdict(self.speed),
            "elapsed_s": self.elapsed_s,
            **{name: getattr(self, name) for name in _STATE_ATTRIBUTES},
        }

    @classmethod
    def from_state(cls, values: Mapping[str, Any], clock: Clock = time.perf_counter) -> Self:
        """Return the run that ``state_dict`` saved; its elapsed time continues."""
        auto = cls(values["budget_s"], clock)
        auto._started_s -= values["elapsed_s"]
        settings, speed = values["phase_settings"], values["speed"]
        trainable = settings["trainable"]
        auto.phase_settings = PhaseSettings(
            **settings | {"trainable": None if trainable is None else tuple(trainable)}
        )
        auto.segments = [Segment(*segment) for segment in values["segments"]]
        auto.speed = None if speed is None else Speed(**speed)
        for name in _STATE_ATTRIBUTES:
            setattr(auto, name, values[name])
        return auto


def from_rank_zero(value: T) -> T:
    """Return the value of rank 0 if the run has several processes, else ``value``."""
    group = processes.current()
    return value if group is None else group.broadcast(value)
