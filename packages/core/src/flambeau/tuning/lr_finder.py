"""The learning-rate finder: a sweep and short runs, after which all state is restored."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from flambeau.checked_arguments import checked_count
from flambeau.data.batch import Batch
from flambeau.data.loader import StepCounts, not_resumable_reason
from flambeau.distributed import processes
from flambeau.errors import FlambeauWarning, InputError
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule, one_cycle
from flambeau.task.task_module import trained_module
from flambeau.training.components import Components
from flambeau.training.events import Callback
from flambeau.training.history import History
from flambeau.training.loop import fit
from flambeau.training.optim.fused_step import requires_closure
from flambeau.training.optim.optimizer_class import ClassFactory, observed
from flambeau.training.options import TrainingOptions
from flambeau.training.ranks.make_run import make_run
from flambeau.training.run import RunSettings
from flambeau.training.run_state.checkpoint_content import user_objects
from flambeau.training.run_state.preserve import capture_optimizer, preserve
from flambeau.training.state import Position, TrainState
from flambeau.tuning.lr_curve import Level, Sweep, has_diverged, level_of, lowest, why_unusable
from flambeau.tuning.lr_race import (
    STEP,
    ShortRun,
    best_number,
    is_noisy,
    losses_of,
    next_number,
    range_of,
    rate_of,
    why_no_decrease,
)
from flambeau.tuning.lr_result import LearningRate

MAX_STEPS = 240
MIN_STEPS = 60

# The sweep covers three decades below and above the plan's learning rate.
_DECADES = 3.0
_SWEEP = 30
# Few longer runs are more informative than many shorter ones: with 20 steps, the best peak was up
# to 3 times too low for runs of 100 steps; with 40 it was not.
_RUN = 30
_FEWEST_RUNS = 4


@dataclass(frozen=True)
class Start:
    """The state from which the sweep and the short runs train.

    Attributes:
        components: Components of the run; its validation part is not used.
        options: Training options; weight averaging and controllers are disabled.
        phase: Defines the trainable groups and their relative learning rates.
        position: Position of the run, which determines the order of the samples.
    """

    components: Components
    options: TrainingOptions
    phase: Phase
    position: Position


def find(start: Start, max_steps: int = MAX_STEPS) -> LearningRate:
    """Measure a peak learning rate with at most ``max_steps`` training steps.

    First, a sweep increases the learning rate over six decades and finds the region in which the
    loss falls. Starting there, short one-cycle runs, all from the same weights and on the same
    batches, compare rates that differ by a factor of 2.15, until both neighbours of the best rate
    are worse. If the differences are within the noise, the runs with these three rates are repeated
    on other batches. The result is the minimum of the parabola through the three losses. All runs
    use the options of a normal fit (precision, clipping, accumulation, processes), but skip steps
    that are not finite.

    Afterwards weights, buffers, gradients, modes, optimizers and generators are restored exactly;
    nothing is written to disk. Loaders are read by position and do not advance, except loaders that
    cannot be resumed (``not_resumable_reason``).

    Args:
        start: Components, options and phase to train with.
        max_steps: Upper limit on the optimizer steps, at least ``MIN_STEPS``.

    Returns:
        The learning rate with its range and the runs that led to it, or the reason why none was
        found.

    Raises:
        InputError: ``max_steps`` is too small.

    Warns:
        FlambeauWarning: The position of the train loader cannot be restored.

    Source:
        The sweep: Smith, "Cyclical Learning Rates for Training Neural Networks", 2017 (arXiv
        1506.01186), section 3.3. The short runs are specific to this
        library; ``docs/findings/learning-rate.md`` compares them with grid searches.
    """
    max_steps = checked_count(max_steps, "max_steps", unit="steps")
    if max_steps < MIN_STEPS:
        raise InputError(
            f"max_steps is {max_steps}, but lr_find needs at least {MIN_STEPS} steps. Increase it, "
            "or choose a learning rate: fit(lr=…)."
        )
    why_not = not_resumable_reason(start.components.train)
    if why_not:
        warnings.warn(
            "[loader-moved] lr_find advances the train loader, which cannot be restored: "
            f"{why_not}",
            FlambeauWarning,
            stacklevel=3,
        )
    began_s = time.perf_counter()
    search = _Search(start, max_steps)
    trained = trained_module(start.components.model, start.components.task)
    with preserve(trained, weights=True) as after:
        search.optimizers = lambda optimizer: after.callback(capture_optimizer(optimizer))
        reason = search.run()
    value = low = high = None
    if not reason:
        value = _short(rate_of(search.runs))
        low, high = map(_short, range_of(search.runs))
    seconds = time.perf_counter() - began_s
    return LearningRate(
        value, low, high, reason, search.level, search.sweep, search.runs, search.steps, seconds
    )


class _Search:
    """The state of a search: the sweep, then the short runs."""

    def __init__(self, start: Start, max_steps: int) -> None:
        self.start = start
        self.max_steps = max_steps
        self.optimizers: Callable[[Optimizer], object] = lambda optimizer: None
        self.targets = _TargetMonitor()
        self.sweep = Sweep((), ())
        self.runs: tuple[ShortRun, ...] = ()
        self.level = Level(math.nan, 0.0, 0)
        self.steps = 0

    def run(self) -> str:
        """Run the sweep and the short runs; return why they found no rate, or an empty string."""
        rates = self._swept_rates()
        losses = self._train(rates, batch_order=0)
        self.sweep = sweep = Sweep(rates[: len(losses)], losses)
        if not self.targets.differ:
            return f"all targets in {self.steps} steps are identical"
        if reason := why_unusable(sweep):
            return reason
        finite = sweep.losses[: sweep.finite]
        self.level = level_of(finite)
        if len(set(finite)) == 1:
            return (
                f"the loss is {self.level.loss:.4g} at every learning rate, so training does not "
                "change the model's outputs"
            )
        self._compare_rates(lowest(sweep, self.level))
        return why_no_decrease(self.level, self.runs)

    def _swept_rates(self) -> tuple[float, ...]:
        usual, factor = float(self.start.components.values["lr"]), 10.0**_DECADES
        return spaced(usual / factor, usual * factor, min(_SWEEP, self.max_steps // 3))

    def _compare_rates(self, center: float) -> None:
        length = min(_RUN, (self.max_steps - self.steps) // _FEWEST_RUNS)
        number = next_number(self.runs)
        while number is not None:
            if not self._has_room(length):
                return
            self._run(number, center * STEP**number, length, batch_order=1)
            number = next_number(self.runs)
        losses = losses_of(self.runs)
        best = best_number(losses)
        again = [k for k in (best - 1, best, best + 1) if losses[k] < math.inf]
        if is_noisy(self.runs) and self._has_room(len(again) * length):
            for number in again:
                self._run(number, center * STEP**number, length, batch_order=2)

    def _has_room(self, steps: int) -> bool:
        return self.steps + steps <= self.max_steps

    def _run(self, number: int, peak: float, length: int, batch_order: int) -> None:
        rates = tuple(peak * one_cycle(i / (length - 1)) for i in range(length))
        losses = self._train(rates, batch_order)
        self.runs = (*self.runs, ShortRun(number, batch_order, peak, length, losses))

    def _train(self, rates: tuple[float, ...], batch_order: int) -> tuple[float, ...]:
        """Return the loss of each step of a fit with these rates; restore all state afterwards."""
        start, n = self.start, len(rates)
        position = replace(start.position, phase=0, phase_epoch=0, epoch_step=0)
        position.epoch += batch_order * self.max_steps  # different batches for each order
        factory = start.options.factory
        is_closure = isinstance(factory, ClassFactory) and requires_closure(factory.kind)
        options = replace(
            start.options,
            optimizer=observed(factory, self.optimizers),
            transforms=(self.targets, *start.options.transforms),
            controllers=(),
            average=None,
            keep_best=None,
            # Steps of LBFGS cannot be skipped; its losses stay non-finite, as in a diverged run.
            nonfinite="off" if is_closure else "skip",
        )
        counts = StepCounts.of_loader(start.components.train, options.accumulate)
        first, epochs = position.epoch, 1
        while epochs < n and counts.between(first, first + epochs) < n:
            epochs += 1
        last = counts.between(first, first + epochs) - 1
        schedule = Schedule(lambda progress: rates[min(n - 1, round(progress * last))])
        phase = replace(
            start.phase,
            epochs=epochs,
            steps=None,
            evaluate_every=None,
            schedules={"lr": schedule},
            name="lr_find",
        )
        watch = _LossRecorder(n)
        values = {**start.components.values, "bn_statistics": "off"}
        components = replace(start.components, valid=None, values=values)
        trained = trained_module(components.model, components.task)
        objects = user_objects(components, options).values()
        with preserve(trained, components.task, *objects, weights=True):
            settings = RunSettings(options=options, phases=(phase,), callbacks=(watch,))
            run = make_run(components, settings, History(), position)
            # The fit that follows reports such steps.
            run.warns_of_empty_steps = run.reports_skipped_steps = False
            with run.propagate_errors():
                fit(run)
        self.steps += len(watch.losses)
        group = processes.current()
        # All processes must use the same losses.
        return tuple(watch.losses if group is None else group.broadcast(watch.losses))


class _LossRecorder(Callback):
    """Records the loss of each step, and ends a run that is complete or has diverged."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.losses: list[float] = []
        self._skipped = 0

    def on_step_end(self, state: TrainState) -> None:
        if state.last is None:
            return
        loss = float(state.last.loss)  # host read: end a diverged run
        self._skipped += 1
        if math.isnan(loss) and not float(state.last.weight):
            return  # skipped, because it has no target: it gets the loss of the next step
        self.losses += [loss] * self._skipped
        self._skipped = 0
        if len(self.losses) >= self.n or has_diverged(self.losses):
            state.stop_reason = "lr_find has enough steps"


class _TargetMonitor:
    """A transform that records whether targets differ, and returns batches unchanged."""

    def __init__(self) -> None:
        self._first: dict[str, Tensor] = {}
        self._differ: list[Tensor] = []
        self._unknown = False  # whether they differ without a comparison

    def __call__(self, batch: Batch, seed: int) -> Batch:
        self._unknown |= not batch.targets
        for name, value in batch.targets.items():
            first = self._first.setdefault(name, value[:1].clone())
            if value.shape[1:] == first.shape[1:]:
                self._differ.append((value != first).any())
            else:  # sequences of other lengths
                self._unknown = True
        return batch

    @property
    def differ(self) -> bool:
        """Whether two samples had different targets, or there are no targets; reads the device."""
        if self._unknown or not self._differ:
            return True
        own = bool(torch.stack(self._differ).any())  # host read: after the sweep
        group = processes.current()
        return own if group is None else any(group.all_gather(own))


def spaced(low: float, high: float, n: int) -> tuple[float, ...]:
    """Return ``n`` rates from ``low`` to ``high`` in geometric progression."""
    return tuple(low * (high / low) ** (i / (n - 1)) for i in range(n))


def _short(value: float) -> float:
    return float(f"{value:.3g}")
