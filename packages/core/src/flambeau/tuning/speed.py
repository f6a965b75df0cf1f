"""How fast this machine trains and evaluates this model: a few real steps, then all put back."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import nn

from flambeau.data.loader import Loader
from flambeau.global_rng import generator_states, restore_generators
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule
from flambeau.training.components import Parts
from flambeau.training.events import Callback
from flambeau.training.history import History
from flambeau.training.loop import evaluate, train_epoch
from flambeau.training.options import TrainingOptions
from flambeau.training.run import Run, RunSettings
from flambeau.training.state import Position, TrainState
from flambeau.tuning.budget import Speed
from flambeau.tuning.segments import SegmentLoader

Clock = Callable[[], float]
MakeRun = Callable[[Parts, RunSettings, History, Position], Run]

# The first steps choose kernels and fill caches; they are not what a step costs.
_UNTIMED_STEPS = 2
_MOST_STEPS = 50
_EVALUATED_BATCHES = 4


def measure(
    parts: Parts,
    options: TrainingOptions,
    limit_s: float,
    *,
    make_run: MakeRun = Run,
    clock: Clock = time.perf_counter,
) -> Speed:
    """Times at most 50 steps and evaluations of a few valid batches.

    The steps are real ones at a rate of 0; weights, buffers and generators are put back to the bit.

    Args:
        parts: The realised plan.
        options: How a step is computed.
        limit_s: Seconds of steps that are timed; the first two, which load and choose what the
            others use, may take as long as they do.
        make_run: Makes the run, for several processes too.
        clock: Seconds from any starting point.
    """
    model = parts.model
    kept = [value.detach().clone() for value in _tensors(model)]
    modes = [(module, module.training) for module in model.modules()]
    generators = generator_states()
    watch = _Watch(clock, limit_s)
    steps = _MOST_STEPS * options.accumulate
    phase = Phase(1, {"lr": Schedule("constant", 0.0)}, name="measuring")
    settings = RunSettings(options=options, phases=(phase,), callbacks=(watch,))
    shortened = replace(
        parts,
        train=SegmentLoader(parts.train, steps),
        valid=_first(parts.valid, _EVALUATED_BATCHES),
    )
    run = make_run(shortened, settings, History(), Position())
    try:
        run.start_phase()
        watch.on_fit_start(run.state)
        train_epoch(run)
        evaluation_s = _time_evaluation(run, parts.valid, clock)
    finally:
        run.release()
        _put_back(model, kept)
        for module, training in modes:
            module.training = training
        restore_generators(generators)
    return Speed(watch.step_s(), evaluation_s, len(watch.times_s))


class _Watch(Callback):
    """Notes when each step ends, and ends the run in time."""

    def __init__(self, clock: Clock, limit_s: float) -> None:
        self.times_s: list[float] = []
        self._clock, self._limit_s = clock, limit_s
        self._started_s = 0.0

    def on_fit_start(self, state: TrainState) -> None:
        self._started_s = self._clock()
        self.times_s = []

    def on_step_end(self, state: TrainState) -> None:
        _finish_queue(state.device)
        now_s = self._clock()
        self.times_s.append(now_s)
        timed = self.times_s[_UNTIMED_STEPS - 1 :]
        if len(timed) > 1 and now_s - timed[0] >= self._limit_s:
            state.stop_reason = "measured"

    def step_s(self) -> float:
        times_s = [self._started_s, *self.times_s]
        steps = [after - before for before, after in pairwise(times_s)]
        # An epoch of one or two steps has no others.
        timed = steps[min(_UNTIMED_STEPS, len(steps) - 1) :]
        return sum(timed) / len(timed) if timed else 0.0


def _time_evaluation(run: Run, valid: Loader | None, clock: Clock) -> float:
    """Seconds of an evaluation on all of valid, from the second of two on its first batches."""
    if valid is None:
        return 0.0
    seconds = 0.0
    for _ in range(2):
        started_s = clock()
        evaluate(run)
        _finish_queue(run.state.device)
        seconds = clock() - started_s
    return seconds * max(1.0, valid.steps_per_epoch / _EVALUATED_BATCHES)


def _first(loader: Loader | None, batches: int) -> Loader | None:
    if loader is None or loader.steps_per_epoch <= batches:
        return loader
    return SegmentLoader(loader, batches)


def _finish_queue(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    # Buffers that no state_dict has are in here too.
    return [*model.parameters(), *model.buffers()]


@torch.no_grad()
def _put_back(model: nn.Module, kept: Sequence[torch.Tensor]) -> None:
    for value, before in zip(_tensors(model), kept, strict=True):
        value.copy_(before)
    for parameter in model.parameters():
        parameter.grad = None
