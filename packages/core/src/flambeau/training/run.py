"""``Run``: everything a fit needs, put together once; the loop calls its methods."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from torch.optim import Optimizer

from flambeau.data.batch import Batch
from flambeau.data.loader import not_resumable_reason
from flambeau.errors import ArgumentError, NonFiniteError, TrainingError
from flambeau.phases.bn_policy import BatchNormPolicy
from flambeau.phases.phase import Phase
from flambeau.task.task import StepContext
from flambeau.training.components import Components
from flambeau.training.events import Callback, Dispatch
from flambeau.training.history import History
from flambeau.training.interrupt import Interrupt
from flambeau.training.losses import StepLosses
from flambeau.training.nonfinite.guard import StepRecord
from flambeau.training.nonfinite.locate import Culprit, find_culprit, nonfinite_error
from flambeau.training.norm.freeze import freeze_except, learning_norms
from flambeau.training.optim.controller import mode_of
from flambeau.training.optim.optimizer import default_factory
from flambeau.training.optim.precision import Precision
from flambeau.training.optim.scheduled_values import StepValues
from flambeau.training.options import TrainingOptions
from flambeau.training.run_state.best import BestWeights, RestoresBest
from flambeau.training.run_state.snapshot import capture
from flambeau.training.start_checks import check_learns, check_optimizers
from flambeau.training.state import Position, TrainState
from flambeau.training.step import Step, TrainStep
from flambeau.training.update import Update

if TYPE_CHECKING:
    from flambeau.training.planner import Planner

T = TypeVar("T")


@dataclass(frozen=True)
class RunSettings:
    """What this fit was asked to do.

    Attributes:
        options: The places where training is changed.
        phases: The stretches to train.
        callbacks: Observers, in order.
        plan: Gives the plan as JSON, when a checkpoint is written.
        folder: The run's folder; made when something is written.
        data: What tells the data from others, kept in checkpoints.
        planner: Decides after each phase what follows; None keeps to ``phases``.
    """

    options: TrainingOptions
    phases: tuple[Phase, ...]
    callbacks: Sequence[Callback] = ()
    plan: Callable[[], Mapping[str, Any]] = dict
    folder: Path | None = None
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    planner: Planner | None = None


class Run:
    """One fit. The loop reads it; ``snapshot`` saves and restores it.

    Attributes:
        bn: What phases that say "auto" do with batch norm, once it is decided.
        adapted: Whether norm layers have got their statistics from these data (``bn="adapt"``).
        gap_told: The last phase in which norm layers' training and evaluation were too far apart.
        is_main: Whether this process speaks for the run.
    """

    def __init__(
        self, components: Components, settings: RunSettings, history: History, position: Position
    ) -> None:
        options, task = settings.options, components.task
        self.components, self.settings, self.options = components, settings, options
        self.dispatch = Dispatch(settings.callbacks)
        self.interrupt = Interrupt()
        self.shares_evaluation = False
        self.is_main = True
        self.losses = StepLosses(skip_nonfinite=options.nonfinite == "skip")
        self.precision = Precision(components.values.get("precision", "fp32"), components.device)
        factory = options.optimizer or default_factory
        self.optimizers = _named(factory(components.model, components.values))
        check_optimizers(self.optimizers, components.model)
        check_learns(components.model, settings.phases)
        self.values = StepValues(
            components.model, self.optimizers, components.values, task.values, task.step_values
        )
        self.update = Update(
            components.model,
            self.optimizers,
            self.precision,
            clip_norm=options.clip_norm,
            nonfinite=options.nonfinite,
        )
        self.average = options.average.running() if options.average else None
        self.best = BestWeights(*_watched(options.keep_best, settings))
        per_epoch = -(-components.train.steps_per_epoch // options.accumulate)
        self.state = TrainState(
            model=components.model,
            task=task,
            phases=settings.phases,
            optimizers=self.optimizers,
            device=components.device,
            seed=components.seed,
            steps_per_epoch=per_epoch,
            history=history,
            snapshot=lambda: capture(self),
            position=position,
            values=self.values.current,
            context=StepContext(values=self.values.current, seed=components.seed),
            folder=settings.folder,
        )
        self.step = Step(self.state, self.update, self.precision, self.dispatch)
        self.train_step: TrainStep = options.train_step
        self._moves = components.device.type != "cpu"
        self._frozen_by_user = {id(p) for p in components.model.parameters() if not p.requires_grad}
        self.trainable: tuple[str, ...] | None = None
        self.started_phase = -1
        self.bn: BatchNormPolicy = "auto"
        self.adapted = False
        self.gap_told = -1
        if self.average is not None:
            self.average.start(components.model)

    # What a run of several processes does in another way (``RankedRun``)

    def connected(self) -> AbstractContextManager[None]:
        """Around the fit: tells the other processes when this one fails."""
        return nullcontext()

    def listen_to(self, interrupt: Interrupt) -> None:
        """Where the loop looks for Ctrl-C."""
        self.interrupt = interrupt

    def stopped(self) -> bool:
        """Whether a callback wants the run to end; asked between epochs."""
        return self.state.stop_reason is not None

    def steps(self, grouped: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        """The micro-batches of each step that this process computes."""
        return grouped

    def end_steps(self) -> None:
        """After the last step of an epoch."""

    def agreed(self, scores: Mapping[str, float]) -> Mapping[str, float]:
        """The scores of an evaluation by which the run goes on."""
        return scores

    def gathered(self, value: T) -> list[T]:
        """The value that every process of the run has."""
        return [value]

    # The phase and the step

    def plan_ahead(self) -> None:
        """A phase is over: what follows it, where a planner decides that."""
        if self.settings.planner is not None:
            self.state.phases = self.settings.planner.next_phases(self.state)
            self.decide_bn(self.bn)

    def decide_bn(self, bn: BatchNormPolicy) -> None:
        """Gives phases that say "auto" the policy that was decided, those to come included."""
        self.bn = bn
        self.state.phases = tuple(
            replace(phase, bn=bn) if phase.bn == "auto" else phase for phase in self.state.phases
        )

    def start_phase(self) -> None:
        """Which groups learn and at which rates."""
        phase = self.state.phase
        norms = learning_norms(self.components.model, phase.bn)
        freeze_except(self.components.model, phase.trainable, self._frozen_by_user, norms)
        self.trainable = phase.trainable
        self.started_phase = self.state.position.phase
        self.values.start_phase(phase, self.state.steps_per_epoch)

    def set_values(self, micro_batches: Sequence[Batch]) -> None:
        """lr and the other scheduled values of the coming step."""
        position = self.state.position
        step = position.phase_epoch * self.state.steps_per_epoch + position.epoch_step
        self.values.set(step, micro_batches, position.step)

    def prepare_train(self, batch: Batch) -> Batch:
        """On the device, augmented, normalised, then the user's own transforms."""
        components = self.components
        if self._moves:
            batch = batch.to(components.device, non_blocking=True)
        for transform in components.augment:
            batch = transform(batch, components.seed)
        batch = components.on_device(batch)
        for transform in self.options.transforms:
            batch = transform(batch, components.seed)
        return batch

    def prepare_valid(self, batch: Batch) -> Batch:
        """On the device and normalised."""
        return self.components.on_device(batch.to(self.components.device, non_blocking=True))

    # The epoch

    def read_losses(self) -> float:
        """Mean loss of the epoch; its steps go into the history."""
        mean, steps = self.losses.read()
        self.state.history.step_losses.extend(steps)
        return mean

    @contextmanager
    def averaged_weights(self) -> Generator[None]:
        """The averaged weights in the model for the length of the block, where there are any."""
        if self.average is None:
            yield
        else:
            with self.average.swapped(self.components.model):
                yield

    def keep_if_best(self) -> None:
        """A copy of the weights (the averaged ones where there are any) if they score best."""
        if self.best.monitor is not None:
            row = self.state.history.rows[-1]
            scores = {name: value for name, value in row.items() if not isinstance(value, str)}
            planner = self.settings.planner
            tolerance = None if planner is None else planner.tolerance(self.state.history)
            with self.averaged_weights():
                self.best.offer(self.components.model, scores, tolerance)

    def control(self) -> None:
        """Asks the controllers for new values; they hold until changed again."""
        progress = self.state.fit_step / max(1, self.state.total_steps)
        for controller in self.options.controllers:
            self.values.override(controller.update(self.state.history, progress))

    # What is not finite

    def stop_at(self, record: StepRecord) -> NoReturn:
        """Ends the run at the first step that is not finite, naming where it came from.

        Raises:
            NonFiniteError: With step, samples, layer and what to do.
        """
        self.update.restore_statistics()
        why_not = not_resumable_reason(self.components.train)
        if why_not:
            what = f"the layer is not known, since the loader cannot repeat its batches: {why_not}"
            raise self.blame(record, Culprit("unknown", what))
        size = self.options.accumulate
        batches = self.components.train.batches(record.epoch, record.epoch_step * size)
        ready = [self.prepare_train(batch) for batch in islice(batches, size) if len(batch)]
        culprit = find_culprit(
            self.components.model,
            self.components.task,
            ready,
            replace(self.state.context, epoch=record.epoch, step=record.step, carry=None),
            record=record,
            autocast=self.precision.autocast,
        )
        raise self.blame(record, culprit)

    def blame(self, record: StepRecord, culprit: Culprit) -> NonFiniteError:
        """The error that ends the run."""
        return nonfinite_error(record, culprit)

    def release(self) -> None:
        """What phases froze may learn again, what the user froze stays so; the run is over.

        Run and state refer to each other. Parted they are freed with the learner, and not when
        Python next looks for cycles: until then models and worker processes would pile up.
        """
        freeze_except(self.components.model, None, self._frozen_by_user)
        self.state.snapshot = _over

    def interrupted(self, error: BaseException) -> None:
        """Ctrl-C leaves a self-planned run on its best weights; its checkpoint is written."""
        if isinstance(error, KeyboardInterrupt) and self.settings.planner is not None:
            self.finish()

    def finish(self) -> None:
        """The model ends on the averaged weights, or on those of the best epoch."""
        if self.best.found:
            self.best.restore(self.components.model)
        elif self.average is not None:
            self.average.finish(self.components.model)


def _over(*arguments: object) -> NoReturn:
    raise TrainingError("The run is over: its state can be read, but makes no step or snapshot.")


def _named(optimizers: object) -> Mapping[str, Optimizer]:
    """What an optimizer factory has made, if it is what it should be."""
    if isinstance(optimizers, Mapping):
        found = cast("Mapping[str, object]", optimizers)
        if found and all(isinstance(value, Optimizer) for value in found.values()):
            return cast("Mapping[str, Optimizer]", found)
    raise ArgumentError(
        f"TrainingOptions(optimizer=…) made {optimizers!r:.60}, not optimizers by name. Let it "
        'return a dict: lambda model, values: {"main": torch.optim.SGD(model.parameters(), 0.1)}.'
    )


def _watched(keep_best: str | None, settings: RunSettings) -> tuple[str | None, str]:
    """Column and direction by which the best epoch is kept.

    A callback's wish, else the option's, else the planner's.
    """
    for callback in settings.callbacks:
        if getattr(callback, "restore_best", False):
            wish = cast("RestoresBest", callback)
            return wish.monitor, wish.mode
    if keep_best is not None:
        return keep_best, mode_of(keep_best)
    planner = settings.planner
    return (None, "min") if planner is None else (planner.monitor, planner.mode)
