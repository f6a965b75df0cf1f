"""The learning-rate finder: short sweeps of real steps, after which everything is as before."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau import processes
from flambeau.data.batch import Batch
from flambeau.data.loader import why_not_resumable
from flambeau.errors import FlambeauWarning, InputError
from flambeau.plan.learning_rate import LearningRate
from flambeau.plan.lr_curve import (
    Level,
    Sweep,
    is_broken,
    level_of,
    lowest,
    spread,
    why_flat,
    why_unusable,
)
from flambeau.training.events import Callback
from flambeau.training.history import History
from flambeau.training.loop import fit
from flambeau.training.optimizer import default_factory
from flambeau.training.options import TrainingOptions
from flambeau.training.parts import Parts
from flambeau.training.phase import Phase
from flambeau.training.run import Run, RunSettings
from flambeau.training.schedule import Schedule
from flambeau.training.state import Position, TrainState
from flambeau.training.untouched import remember_optimizer, untouched

MakeRun = Callable[[Parts, RunSettings, History, Position], Run]

MOST_STEPS = 150
FEWEST_STEPS = 60

# The first sweep looks for the place, three decades around the usual rate on either side.
_DECADES = 3.0
_COARSE = 32
# The others look closely, from below the place that the first has found to where it breaks.
_FINE = 28
_BELOW, _ABOVE = 30.0, 10.0
_FEWEST_REPEATS, _MOST_REPEATS = 3, 4
_SHORTEST = 14
# Standard deviation of log10 of the repeats' rates from which on there is one more: a factor 1.6.
_NOISY = 0.2
# Of the rate at which a sweep's loss is lowest: the best peak of runs of a hundred steps was half
# to once that rate for Adam and momentum, and longer runs ask for less, not for more.
_SHARE = 0.7


@dataclass(frozen=True)
class Start:
    """From where, and with what, the sweeps train.

    Attributes:
        parts: Of the run that the rate is for; its valid set is not looked at.
        options: Its train step, optimizer, clipping, transforms. Averaging and controllers rest.
        phase: What learns, and at which rates relative to each other.
        position: Where the run stands; its epochs and steps key the order of the samples.
        make_run: Makes a run, alone or shared among processes.
    """

    parts: Parts
    options: TrainingOptions
    phase: Phase
    position: Position
    make_run: MakeRun


def find(start: Start, most_steps: int = MOST_STEPS) -> LearningRate:
    """Measures a peak learning rate with up to ``most_steps`` real training steps.

    A first sweep trains with rates that rise over six decades and finds where the loss falls and
    where it breaks. Three or four more (two where steps are few), each from the same weights on
    other batches, go over that place slowly; there are more of them where they disagree. The rate
    is 0.7 times that at which their smoothed loss is lowest, as a geometric mean. A sweep is a fit
    like any other (precision, clipping, accumulation, processes), except that bad steps are left
    out instead of ending it.

    Afterwards weights, buffers, gradients, modes, optimizers and generators are as they were, to
    the bit; nothing is kept on disk. Loaders are asked for batches by position, so theirs does not
    move, unless ``why_not_resumable`` says that it has one of its own.

    Args:
        start: What is trained, and how.
        most_steps: Bound on the optimizer steps, at least ``FEWEST_STEPS``.

    Returns:
        The rate with its interval and curves, or the reason why there is none.

    Raises:
        InputError: ``most_steps`` is too few to see anything.

    Warns:
        FlambeauWarning: The train loader cannot be put back.

    Source:
        The sweep: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017 (arXiv
        1506.01186), section 3.3. The rate taken from it, the repeats and the refusal are ours;
        see ``docs/findings/learning-rate.md`` for what they were measured against.
    """
    if most_steps < FEWEST_STEPS:
        raise InputError(
            f"Sweeps that show anything take at least {FEWEST_STEPS} steps, not {most_steps}. Give "
            f"most_steps={FEWEST_STEPS} or more, or name a rate: fit(lr=…)."
        )
    why_not = why_not_resumable(start.parts.train)
    if why_not:
        warnings.warn(
            "[loader-moved] The batches that lr_find takes from the train loader cannot be had "
            f"again: {why_not}",
            FlambeauWarning,
            stacklevel=3,
        )
    began_s = time.perf_counter()
    search = _Search(start, most_steps)
    with untouched(start.parts.model) as after:
        search.optimizers = lambda optimizer: after.callback(remember_optimizer(optimizer))
        reason = search.look()
    seconds = time.perf_counter() - began_s
    if reason:
        return LearningRate(None, None, None, reason, search.sweeps, search.steps, seconds)
    rates = search.found
    value = math.exp(sum(map(math.log, rates)) / len(rates))
    return LearningRate(
        _short(value),
        _short(min(rates)),
        _short(max(rates)),
        "",
        search.sweeps,
        search.steps,
        seconds,
    )


class _Search:
    """The sweeps of one search, in the order made: one coarse, then fine ones."""

    def __init__(self, start: Start, most_steps: int) -> None:
        self.start = start
        self.most_steps = most_steps
        self.optimizers: Callable[[Optimizer], object] = lambda optimizer: None
        self.targets = _Targets()
        self.sweeps: tuple[Sweep, ...] = ()
        self.level = Level(math.nan, 0.0, 0)
        self.steps = 0

    @property
    def fine(self) -> tuple[Sweep, ...]:
        return self.sweeps[1:]

    def look(self) -> str:
        """Makes the sweeps; says why they give no answer, or nothing."""
        coarse = min(_COARSE, self.most_steps // 2)
        usual = float(self.start.parts.values["lr"])
        factor = 10.0**_DECADES
        first = self._sweep(spaced(usual / factor, usual * factor, coarse))
        if not self.targets.differ:
            return f"all targets seen in {self.steps} steps are the same: there is nothing to learn"
        if reason := why_unusable(first):
            return reason
        self.level = level_of(first.losses[: first.finite])
        if len(set(first.losses[: first.finite])) == 1:
            return f"the loss is {self.level.loss:.4g} at every rate: the model does not learn"
        place = lowest(first, self.level)
        low, high = place / _BELOW, min(place * _ABOVE, first.rates[-1] * 3.0)
        left = self.most_steps - self.steps
        repeats = min(_FEWEST_REPEATS, left // _SHORTEST)
        length = min(_FINE, left // repeats)
        rates = spaced(low, high, length)
        while self.steps + length <= self.most_steps and len(self.fine) < _MOST_REPEATS:
            if reason := why_unusable(self._sweep(rates)):
                return reason
            if len(self.fine) >= repeats and spread(self.found) <= _NOISY:
                break
        return why_flat(self.level, self.fine)

    @property
    def found(self) -> list[float]:
        """The rate of each fine sweep."""
        return [_SHARE * lowest(sweep, self.level) for sweep in self.fine]

    def _sweep(self, rates: tuple[float, ...]) -> Sweep:
        start, n = self.start, len(rates)
        position = replace(start.position, phase=0, phase_epoch=0, epoch_step=0)
        position.epoch += len(self.sweeps) * n  # other batches than the sweeps before
        options = replace(
            start.options,
            optimizer=self._remembering(start.options.optimizer or default_factory),
            transforms=(self.targets, *start.options.transforms),
            controllers=(),
            average=None,
            keep_best=None,
            nonfinite="skip",
        )
        per_epoch = -(-start.parts.train.steps_per_epoch // options.accumulate)
        epochs = -(-n // per_epoch)
        last = epochs * per_epoch - 1
        schedule = Schedule(lambda progress: rates[min(n - 1, round(progress * last))])
        phase = replace(start.phase, epochs=epochs, schedules={"lr": schedule}, name="lr_find")
        watch = _Watch(n)
        parts = replace(start.parts, valid=None)
        with untouched(parts.model):
            settings = RunSettings(options=options, phases=(phase,), callbacks=(watch,))
            run = start.make_run(parts, settings, History(), position)
            with run.connected():
                fit(run)
        self.steps += len(watch.losses)
        together = processes.current()
        # Every process decides by the same numbers.
        losses = watch.losses if together is None else together.from_main(watch.losses)
        sweep = Sweep(rates[: len(losses)], tuple(losses))
        self.sweeps = (*self.sweeps, sweep)
        return sweep

    def _remembering(self, factory: Any) -> Any:
        def make(model: nn.Module, values: Mapping[str, Any]) -> Any:
            made = factory(model, values)
            if isinstance(made, Mapping):  # else the run refuses it
                for optimizer in cast("Mapping[str, object]", made).values():
                    if isinstance(optimizer, Optimizer):
                        self.optimizers(optimizer)
            return cast("object", made)

        return make


class _Watch(Callback):
    """Reads the loss of each step, and ends a sweep that is over or broken."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.losses: list[float] = []

    def on_step_end(self, state: TrainState) -> None:
        if state.last is None:
            return
        self.losses.append(float(state.last.loss))  # host read: a broken sweep need not go on
        if len(self.losses) == self.n or is_broken(self.losses):
            state.stop_reason = "the sweep is over"


class _Targets:
    """A transform that changes nothing and notes whether the targets differ at all."""

    def __init__(self) -> None:
        self._first: dict[str, Tensor] = {}
        self._differ: list[Tensor] = []
        self._unknown = False

    def __call__(self, batch: Batch, seed: int) -> Batch:
        self._unknown |= not batch.targets
        for name, value in batch.targets.items():
            first = self._first.setdefault(name, value[:1].clone())
            self._differ.append((value != first).any())
        return batch

    @property
    def differ(self) -> bool:
        """Whether two samples had different targets, or had none to compare. Reads the device."""
        if self._unknown or not self._differ:
            return True
        own = bool(torch.stack(self._differ).any())  # host read: a sweep is over
        together = processes.current()
        return own if together is None else any(together.gather(own))


def spaced(low: float, high: float, n: int) -> tuple[float, ...]:
    """``n`` rates from ``low`` to ``high``, each the same factor above the last."""
    return tuple(low * (high / low) ** (i / (n - 1)) for i in range(n))


def _short(value: float) -> float:
    return float(f"{value:.3g}")
