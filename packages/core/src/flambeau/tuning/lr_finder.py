"""The learning-rate finder: a sweep and short runs, after which everything is as before."""

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

from flambeau.data.batch import Batch
from flambeau.data.loader import not_resumable_reason
from flambeau.distributed import processes
from flambeau.errors import FlambeauWarning, InputError
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule, one_cycle
from flambeau.training.components import Components
from flambeau.training.events import Callback
from flambeau.training.history import History
from flambeau.training.loop import fit
from flambeau.training.optim.optimizer import default_factory
from flambeau.training.options import TrainingOptions
from flambeau.training.ranks.make_run import make_run
from flambeau.training.run import RunSettings
from flambeau.training.run_state.preserve import capture_optimizer, preserve
from flambeau.training.state import Position, TrainState
from flambeau.tuning.lr_curve import Level, Sweep, is_broken, level_of, lowest, why_unusable
from flambeau.tuning.lr_race import (
    STEP,
    ShortRun,
    best_number,
    interval_of,
    is_noisy,
    losses_of,
    next_number,
    rate_of,
    why_flat,
)
from flambeau.tuning.lr_result import LearningRate

MOST_STEPS = 240
FEWEST_STEPS = 60

# The sweep looks for the place, three decades around the usual rate on either side.
_DECADES = 3.0
_SWEEP = 30
# The short runs look closely. A few long ones say more than many short ones: after 20 steps the
# best peak was up to 3 times too low for runs of 100, after 40 it was not.
_RUN = 30
_FEWEST_RUNS = 4


@dataclass(frozen=True)
class Start:
    """From where, and with what, the sweeps train.

    Attributes:
        parts: Of the run that the rate is for; its valid set is not looked at.
        options: Its train step, optimizer, clipping, transforms. Averaging and controllers rest.
        phase: What learns, and at which rates relative to each other.
        position: Where the run stands; its epochs and steps key the order of the samples.
    """

    components: Components
    options: TrainingOptions
    phase: Phase
    position: Position


def find(start: Start, most_steps: int = MOST_STEPS) -> LearningRate:
    """Measures a peak learning rate with up to ``most_steps`` real training steps.

    A sweep trains with rates that rise over six decades and finds where the loss falls and where
    it breaks. From there short one-cycle runs, each from the same weights on the same batches, try
    rates a factor 2.15 apart until the best has a worse one on either side; where chance may have
    decided, these three are repeated on other batches. The rate is at the lowest point of the
    parabola through the three. Sweep and runs are fits like any other (precision, clipping,
    accumulation, processes), except that bad steps are left out instead of ending them.

    Afterwards weights, buffers, gradients, modes, optimizers and generators are as they were, to
    the bit; nothing is kept on disk. Loaders are asked for batches by position, so theirs does not
    move, unless ``not_resumable_reason`` says that it has one of its own.

    Args:
        start: What is trained, and how.
        most_steps: Bound on the optimizer steps, at least ``FEWEST_STEPS``.

    Returns:
        The rate with its interval and what it was taken from, or the reason why there is none.

    Raises:
        InputError: ``most_steps`` is too few to see anything.

    Warns:
        FlambeauWarning: The train loader cannot be put back.

    Source:
        The sweep: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017 (arXiv
        1506.01186), section 3.3. The runs and the refusal are ours; see
        ``docs/findings/learning-rate.md`` for what they were measured against.
    """
    if most_steps < FEWEST_STEPS:
        raise InputError(
            f"Runs that show anything take at least {FEWEST_STEPS} steps, not {most_steps}. Give "
            f"most_steps={FEWEST_STEPS} or more, or name a rate: fit(lr=…)."
        )
    why_not = not_resumable_reason(start.components.train)
    if why_not:
        warnings.warn(
            "[loader-moved] The batches that lr_find takes from the train loader cannot be had "
            f"again: {why_not}",
            FlambeauWarning,
            stacklevel=3,
        )
    began_s = time.perf_counter()
    search = _Search(start, most_steps)
    with preserve(start.components.model, weights=True) as after:
        search.optimizers = lambda optimizer: after.callback(capture_optimizer(optimizer))
        reason = search.look()
    value = low = high = None
    if not reason:
        value = _short(rate_of(search.runs))
        low, high = map(_short, interval_of(search.runs))
    seconds = time.perf_counter() - began_s
    return LearningRate(
        value, low, high, reason, search.level, search.sweep, search.runs, search.steps, seconds
    )


class _Search:
    """What one search has made so far: the sweep, then the short runs."""

    def __init__(self, start: Start, most_steps: int) -> None:
        self.start = start
        self.most_steps = most_steps
        self.optimizers: Callable[[Optimizer], object] = lambda optimizer: None
        self.targets = _Targets()
        self.sweep = Sweep((), ())
        self.runs: tuple[ShortRun, ...] = ()
        self.level = Level(math.nan, 0.0, 0)
        self.steps = 0

    def look(self) -> str:
        """Makes sweep and runs; says why they give no answer, or nothing."""
        rates = self._swept_rates()
        losses = self._train(rates, draw=0)
        self.sweep = sweep = Sweep(rates[: len(losses)], losses)
        if not self.targets.differ:
            return f"all targets seen in {self.steps} steps are the same: there is nothing to learn"
        if reason := why_unusable(sweep):
            return reason
        finite = sweep.losses[: sweep.finite]
        self.level = level_of(finite)
        if len(set(finite)) == 1:
            return f"the loss is {self.level.loss:.4g} at every rate: the model does not learn"
        self._race(lowest(sweep, self.level))
        return why_flat(self.level, self.runs)

    def _swept_rates(self) -> tuple[float, ...]:
        usual, factor = float(self.start.components.values["lr"]), 10.0**_DECADES
        return spaced(usual / factor, usual * factor, min(_SWEEP, self.most_steps // 3))

    def _race(self, place: float) -> None:
        length = min(_RUN, (self.most_steps - self.steps) // _FEWEST_RUNS)
        number = next_number(self.runs)
        while number is not None:
            if not self._has_room(length):
                return
            self._run(number, place * STEP**number, length, draw=1)
            number = next_number(self.runs)
        losses = losses_of(self.runs)
        best = best_number(losses)
        again = [k for k in (best - 1, best, best + 1) if losses[k] < math.inf]
        if is_noisy(self.runs) and self._has_room(len(again) * length):
            for number in again:
                self._run(number, place * STEP**number, length, draw=2)

    def _has_room(self, steps: int) -> bool:
        return self.steps + steps <= self.most_steps

    def _run(self, number: int, peak: float, length: int, draw: int) -> None:
        rates = tuple(peak * one_cycle(i / (length - 1)) for i in range(length))
        losses = self._train(rates, draw)
        self.runs = (*self.runs, ShortRun(number, draw, peak, length, losses))

    def _train(self, rates: tuple[float, ...], draw: int) -> tuple[float, ...]:
        """The losses of a fit with these rates, one a step, after which all is as before it."""
        start, n = self.start, len(rates)
        position = replace(start.position, phase=0, phase_epoch=0, epoch_step=0)
        position.epoch += draw * self.most_steps  # other batches with each draw
        options = replace(
            start.options,
            optimizer=self._remembering(start.options.optimizer or default_factory),
            transforms=(self.targets, *start.options.transforms),
            controllers=(),
            average=None,
            keep_best=None,
            nonfinite="skip",
        )
        per_epoch = -(-start.components.train.steps_per_epoch // options.accumulate)
        epochs = -(-n // per_epoch)
        last = epochs * per_epoch - 1
        schedule = Schedule(lambda progress: rates[min(n - 1, round(progress * last))])
        phase = replace(start.phase, epochs=epochs, schedules={"lr": schedule}, name="lr_find")
        watch = _Watch(n)
        components = replace(start.components, valid=None)
        with preserve(components.model, weights=True):
            settings = RunSettings(options=options, phases=(phase,), callbacks=(watch,))
            run = make_run(components, settings, History(), position)
            with run.propagate_errors():
                fit(run)
        self.steps += len(watch.losses)
        together = processes.current()
        # Every process decides by the same numbers.
        return tuple(watch.losses if together is None else together.broadcast(watch.losses))

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
    """Reads the loss of each step, and ends what is over or broken."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.losses: list[float] = []

    def on_step_end(self, state: TrainState) -> None:
        if state.last is None:
            return
        self.losses.append(float(state.last.loss))  # host read: a broken run need not go on
        if len(self.losses) == self.n or is_broken(self.losses):
            state.stop_reason = "lr_find has seen enough"


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
        return own if together is None else any(together.all_gather(own))


def spaced(low: float, high: float, n: int) -> tuple[float, ...]:
    """``n`` rates from ``low`` to ``high``, each the same factor above the last."""
    return tuple(low * (high / low) ** (i / (n - 1)) for i in range(n))


def _short(value: float) -> float:
    return float(f"{value:.3g}")
