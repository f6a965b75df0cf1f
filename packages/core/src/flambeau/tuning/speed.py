"""Measure how fast this machine trains and evaluates a model, with a few real steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

from flambeau.data.loader import Loader
from flambeau.device import finish_queue
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule
from flambeau.task.task_module import trained_module
from flambeau.training.components import Components
from flambeau.training.events import Callback
from flambeau.training.history import History
from flambeau.training.loop import evaluate, train_epoch
from flambeau.training.options import TrainingOptions
from flambeau.training.ranks.make_run import make_run
from flambeau.training.run import Run, RunSettings
from flambeau.training.run_state.checkpoint_content import user_objects
from flambeau.training.run_state.preserve import preserve
from flambeau.training.state import Position, TrainState
from flambeau.tuning.budget import Speed
from flambeau.tuning.interval_loader import IntervalLoader

Clock = Callable[[], float]

# The first steps are slower: they choose kernels and fill caches.
_UNTIMED_STEPS = 2
_MAX_STEPS = 50
EVALUATED_BATCHES = 4
"""Batches of the validation part that are evaluated to estimate the time of all."""


def measure_speed(
    components: Components,
    options: TrainingOptions,
    limit_s: float,
    *,
    clock: Clock = time.perf_counter,
) -> Speed:
    """Return the speed of a run, from at most 50 training steps and a few validation batches.

    The steps have learning rate 0; weights, buffers and generators are restored exactly.

    Args:
        components: The objects built from the plan.
        options: The training options of a step.
        limit_s: Time limit for the timed steps, in seconds; the first two steps are not timed.
        clock: Returns seconds from any starting point.
    """
    watch = _StepTimer(clock, limit_s)
    steps = _MAX_STEPS * options.accumulate
    phase = Phase(1, {"lr": Schedule("constant", 0.0)}, name="measuring")
    settings = RunSettings(options=options, phases=(phase,), callbacks=(watch,))
    shortened = replace(
        components,
        train=IntervalLoader(components.train, steps),
        valid=first_batches(components.valid),
        # Fresh statistics are part of few evaluations, so they are not part of the measured one.
        values={**components.values, "bn_statistics": "off"},
    )
    trained = trained_module(components.model, components.task)
    objects = user_objects(components, options).values()
    with preserve(trained, components.task, *objects, weights=True):
        run = make_run(shortened, settings, History(), Position())
        try:
            run.start_phase()
            watch.on_fit_start(run.state)
            train_epoch(run)
            evaluation_s = time_evaluation(run, components.valid, clock)
        finally:
            run.release()
    return Speed(watch.step_s(), evaluation_s, len(watch.times_s))


class _StepTimer(Callback):
    """Records when each step ends, and ends the run at the time limit."""

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self.times_s: list[float] = []
        self._clock, self._limit_s = clock, limit_s
        self._started_s = 0.0

    def on_fit_start(self, state: TrainState) -> None:
        self._started_s = self._clock()
        self.times_s = []

    def on_step_end(self, state: TrainState) -> None:
        finish_queue(state.device)
        now_s = self._clock()
        self.times_s.append(now_s)
        timed = self.times_s[_UNTIMED_STEPS - 1 :]
        if len(timed) > 1 and now_s - timed[0] >= self._limit_s:
            state.stop_reason = "measured"

    def step_s(self) -> float:
        times_s = [self._started_s, *self.times_s]
        steps = [after - before for before, after in pairwise(times_s)]
        # With one or two steps, the last one is timed.
        timed = steps[min(_UNTIMED_STEPS, len(steps) - 1) :]
        return sum(timed) / len(timed) if timed else 0.0


def time_evaluation(run: Run, valid: Loader | None, clock: Clock) -> float:
    """Return seconds per evaluation of the validation part, estimated from its first batches."""
    if valid is None:
        return 0.0
    seconds = 0.0
    for _ in range(2):
        started_s = clock()
        evaluate(run)
        finish_queue(run.state.device)
        seconds = clock() - started_s
    return seconds * max(1.0, valid.steps_per_epoch / EVALUATED_BATCHES)


def first_batches(loader: Loader | None, batches: int = EVALUATED_BATCHES) -> Loader | None:
    """Return a loader of the first batches of ``loader``, or ``loader`` if it has no more."""
    if loader is None or loader.steps_per_epoch <= batches:
        return loader
    return IntervalLoader(loader, batches)
