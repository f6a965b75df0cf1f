"""``ProfiledRun``: a run of a few steps that are timed, then recorded by profilers.

The steps are those of a fit: ``training.loop.train_epoch`` makes them. Between two steps the
watch changes from one segment to the next: the first steps warm up, the next ones are timed without
any profiler, and only then profilers are switched on, because they make a step slower.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, Literal, cast

import torch
from torch import nn

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, is_stream, loader_world_size, not_resumable_reason
from flambeau.device import finish_queue
from flambeau.inspect.code_times import CodeTimer, CodeTimes
from flambeau.inspect.device_times import DeviceTimer
from flambeau.inspect.host_reads import OperatorCounter
from flambeau.torch_internals import is_compiled
from flambeau.training.accumulation import grouped_batches
from flambeau.training.components import Components
from flambeau.training.history import History
from flambeau.training.run import Run, RunSettings
from flambeau.training.state import Position

try:
    import resource
except ImportError:  # Windows
    resource = None

SegmentName = Literal["warm-up", "timed", "code", "operators", "device"]

Clock = Callable[[], float]


@dataclass(frozen=True)
class Segment:
    """Consecutive steps that are recorded in the same way.

    Attributes:
        name: "warm-up", "timed" (with the clock alone), "code" (``CodeTimer``), "operators"
            (``OperatorCounter``), "device" (``DeviceTimer``).
        steps: Number of steps.
        limit_s: The segment ends after this time, but not before ``least`` steps.
        least: Smallest number of steps.
    """

    name: SegmentName
    steps: int
    limit_s: float = float("inf")
    least: int = 1


_LEAST_CLEAN = 3
_BETWEEN = Segment("warm-up", 0)


@dataclass
class Recorded:
    """What the segments of a run have recorded.

    Attributes:
        load_s: Seconds that the loop waited for the batches of each timed step.
        load_switches: How often the operating system took the core away in that time.
        load_cpu_s: Seconds of processor time of this process in that time.
        step_s: Seconds of each timed step without the batches; on an accelerator the mean, because
            the host does not wait for the end of each step.
        step_switches: How often the operating system took the core away in that time.
        step_blocked_s: Seconds of that time in which this process used no core: it waited, as for a
            file or in ``time.sleep``.
        host_s: Mean seconds in which the host made a step, without waiting for its end; only on an
            accelerator.
        samples: Samples of each timed step.
        loading: Code that loads batches, in this process.
        stepping: Code of the step.
        operators: Operators and reads of the segment "operators".
        counted: Steps of that segment.
        traced: Steps of the segment "device".
    """

    load_s: list[float] = field(default_factory=list[float])
    load_switches: list[int] = field(default_factory=list[int])
    load_cpu_s: list[float] = field(default_factory=list[float])
    step_s: list[float] = field(default_factory=list[float])
    step_switches: list[int] = field(default_factory=list[int])
    step_blocked_s: list[float] = field(default_factory=list[float])
    host_s: float = 0.0
    samples: list[int] = field(default_factory=list[int])
    loading: CodeTimes = field(default_factory=CodeTimes)
    stepping: CodeTimes = field(default_factory=CodeTimes)
    operators: OperatorCounter | None = None
    counted: int = 0
    traced: int = 0


def involuntary_switches() -> int:
    """Return how often the operating system has taken the core from this process; 0 if unknown."""
    if resource is None:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def typical(seconds: Sequence[float], switches: Sequence[int]) -> float:
    """Return the typical time of a step on a machine on which other processes run, too.

    It is the median of the steps without an involuntary switch to another process, if there are at
    least three; else the lower quartile of all.
    """
    clean = [each for each, count in zip(seconds, switches, strict=True) if not count]
    if len(clean) >= _LEAST_CLEAN:
        return median(clean)
    return sorted(seconds)[(len(seconds) - 1) // 4]


class FirstSteps(Loader):
    """The first batches of a loader from some epoch on; further epochs follow a short one.

    Args:
        loader: Any loader.
        batches: Largest number of batches.
        epoch: The epoch to start with.
    """

    def __init__(self, loader: Loader, batches: int, epoch: int = 0) -> None:
        self.loader, self.is_stream = loader, is_stream(loader)
        self.world_size = loader_world_size(loader)
        self.not_resumable_reason = not_resumable_reason(loader)
        self._batches, self._epoch = batches, epoch

    @property
    def steps_per_epoch(self) -> int:
        return self._batches

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        left, current = self._batches - start_step, self._epoch
        while left > 0:
            before = left
            for batch in self.loader.batches(current):
                yield batch
                left -= 1
                if not left:
                    return
            if left == before:
                return
            current += 1


class ProfiledRun(Run):
    """A run whose steps are recorded by segments.

    Args:
        components: As for ``Run``; ``train`` is read for as many steps as the segments have.
        settings: As for ``Run``; callbacks are not called.
        position: Position before the first step.
        segments: The segments in their order.
        clock: Returns seconds from any starting point.
    """

    def __init__(
        self,
        components: Components,
        settings: RunSettings,
        position: Position,
        segments: Sequence[Segment],
        clock: Clock = time.perf_counter,
    ) -> None:
        components, settings = profiled_inputs(components, settings, position, segments)
        super().__init__(components, settings, History(), position)
        self.prepare(segments, clock)

    def prepare(self, segments: Sequence[Segment], clock: Clock) -> None:
        """Record nothing yet; see the class for the arguments."""
        self.recorded = Recorded()
        self.timer: DeviceTimer | None = None
        self._segments, self._clock = iter(segments), clock
        self._segment = _BETWEEN
        self._done = self._switches = 0
        self._started_s = self._step_started_s = self._step_cpu_s = 0.0
        self._loading, self._stepping = CodeTimer(), CodeTimer()
        self._active = ExitStack()

    def grouped_batches(self) -> Iterator[list[Batch]]:
        """Yield the batches of each step, and record what happens between."""
        groups = cast(
            "Generator[list[Batch]]",
            grouped_batches(self.components.train, self.options.accumulate, 0, 0),
        )
        self.state.context.epoch = self.data_epoch
        try:
            while self._enters_step():
                group = self._load(groups)
                if group is None:
                    return
                self._begin_step()
                yield group
                self._end_step()
        finally:
            groups.close()  # frees generators and worker processes of the loader

    def close(self) -> None:
        """End the current step and segment, also after an error in a step."""
        self._active.close()
        self._leave_segment()
        self.recorded.loading = self._loading.times()
        self.recorded.stepping = self._stepping.times()

    def _load(self, groups: Iterator[list[Batch]]) -> list[Batch] | None:
        found, switches = self.recorded, involuntary_switches()
        started_s, cpu_s = self._clock(), time.process_time()
        if self._segment.name == "code":
            with self._loading.timed():
                return next(groups, None)
        group = next(groups, None)
        if self._segment.name == "timed" and group is not None:
            found.load_s.append(self._clock() - started_s)
            found.load_cpu_s.append(time.process_time() - cpu_s)
            found.load_switches.append(involuntary_switches() - switches)
            found.samples.append(sum(map(len, group)))
        return group

    def _begin_step(self) -> None:
        if self._segment.name == "code":
            self._active.enter_context(self._stepping.timed())
        elif self._segment.name == "operators" and self.recorded.operators is not None:
            self._active.enter_context(_without_compilation(self.components.model))
            self._active.enter_context(self.recorded.operators.counting())
        self._switches = involuntary_switches()
        self._step_started_s, self._step_cpu_s = self._clock(), time.process_time()

    def _end_step(self) -> None:
        if self._segment.name == "timed":
            seconds, cpu_s = self._clock() - self._step_started_s, time.process_time()
            self.recorded.step_s.append(seconds)
            self.recorded.step_blocked_s.append(max(0.0, seconds - cpu_s + self._step_cpu_s))
            self.recorded.step_switches.append(involuntary_switches() - self._switches)
        self._active.close()
        self._done += 1

    def _enters_step(self) -> bool:
        """Start the next segment if this one is over; return whether there is a further step."""
        while self._is_over():
            self._leave_segment()
            following = next(self._segments, None)
            if following is None:
                return False
            self._segment, self._done = following, 0
            self._enter_segment()
        return True

    def _is_over(self) -> bool:
        if self._done >= self._segment.steps:
            return True
        return self._done >= self._segment.least and self.is_late()

    def is_late(self) -> bool:
        """Return whether the time of the segment is over."""
        return self._clock() - self._started_s >= self._segment.limit_s

    def _enter_segment(self) -> None:
        device = self.components.device
        finish_queue(device)
        if self._segment.name == "operators":
            self.recorded.operators = OperatorCounter(device)
        elif self._segment.name == "device":
            self.timer = DeviceTimer(device)
            self.timer.start()
        self._started_s = self._clock()

    def _leave_segment(self) -> None:
        device, found = self.components.device, self.recorded
        if self._segment.name == "timed" and device.type != "cpu" and found.step_s:
            finish_queue(device)
            whole_s = self._clock() - self._started_s
            found.host_s = sum(found.step_s) / len(found.step_s)
            mean_s = max(0.0, whole_s - sum(found.load_s)) / len(found.step_s)
            found.step_s = [mean_s] * len(found.step_s)
        elif self._segment.name == "operators":
            found.counted = self._done
        elif self._segment.name == "device" and self.timer is not None:
            finish_queue(device)
            self.timer.stop()
            found.traced = self._done
        self._segment = _BETWEEN

    def start_update_check(self) -> None:
        """Check nothing: a fit checks custom train steps over a whole epoch."""


def profiled_inputs(
    components: Components,
    settings: RunSettings,
    position: Position,
    segments: Sequence[Segment],
) -> tuple[Components, RunSettings]:
    """Return components and settings of a run with the steps of the segments and no callbacks."""
    count = settings.options.accumulate * sum(segment.steps for segment in segments)
    components = replace(components, train=FirstSteps(components.train, count, position.epoch))
    phase = replace(settings.phases[0], epochs=1, steps=None, evaluate_every=None)
    settings = replace(settings, callbacks=(), phases=(phase,), intervals=None, planner=None)
    return components, settings


def _without_compilation(model: nn.Module) -> AbstractContextManager[object]:
    """Run the model without ``torch.compile``: a compiled region would be one operator."""
    if not any(map(is_compiled, model.modules())):
        return nullcontext()
    return cast("Any", torch.compiler).set_stance("force_eager")
