"""``Run``: the state and the operations of one fit; the loop calls its methods."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from torch import nn
from torch.optim import Optimizer

from flambeau.data.batch import Batch
from flambeau.data.loader import (
    StepCounts,
    loader_world_size,
    not_resumable_reason,
)
from flambeau.errors import NonFiniteError, TrainingError
from flambeau.phases.bn_policy import BatchNormPolicy
from flambeau.phases.phase import Phase, not_savable_reason
from flambeau.task.task import StepContext
from flambeau.task.task_module import trained_module
from flambeau.training.accumulation import grouped_batches
from flambeau.training.components import Components
from flambeau.training.events import Callback, Dispatch
from flambeau.training.freeze import freeze_except, trainable_norm_parameters
from flambeau.training.history import History
from flambeau.training.interrupt import Interrupt
from flambeau.training.losses import StepLosses
from flambeau.training.nonfinite.guard import StepRecord
from flambeau.training.optim.averaging import running_average
from flambeau.training.optim.controller import column_modes
from flambeau.training.optim.factory import default_factory
from flambeau.training.optim.optimizer import checked_optimizers, no_decay_ids
from flambeau.training.optim.precision import Precision
from flambeau.training.optim.scheduled_values import StepValues
from flambeau.training.options import TrainingOptions
from flambeau.training.run_state.best import BestWeights, run_monitor
from flambeau.training.run_state.checkpoint_content import capture, states_of_objects
from flambeau.training.start_checks import (
    check_can_score,
    check_closure,
    check_has_columns,
    check_trainable,
)
from flambeau.training.state import Meaning, Position, TrainState
from flambeau.training.step import Step, TrainStep, train_step
from flambeau.training.update import Update

if TYPE_CHECKING:
    from flambeau.training.logged_values import LoggedValues
    from flambeau.training.nonfinite.locate import NonFiniteSource
    from flambeau.training.planner import Planner
    from flambeau.training.run_state.object_state import ObjectStates
    from flambeau.training.step_intervals import Intervals
    from flambeau.training.update_check import UpdateCheck

T = TypeVar("T")


@dataclass(frozen=True)
class RunSettings:
    """The settings of one fit.

    Attributes:
        options: Settings and functions that change training.
        phases: The phases to train.
        callbacks: Callbacks, in the order in which they are called.
        plan: Returns the plan as JSON values, for checkpoints.
        folder: The folder of the run; it is created when a file is written.
        data: Values that identify the data, stored in checkpoints.
        meaning: What inputs and outputs of the model mean, stored in checkpoints.
        planner: Decides after each phase which phases follow; None uses ``phases``.
        intervals: The intervals between evaluations; None evaluates at the end of each epoch.
    """

    options: TrainingOptions
    phases: tuple[Phase, ...]
    callbacks: Sequence[Callback] = ()
    plan: Callable[[], Mapping[str, Any]] = dict
    folder: Path | None = None
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    meaning: Meaning | None = None
    planner: Planner | None = None
    intervals: Intervals | None = None


class Run:
    """One fit: the state and the operations that the loop uses; ``snapshot`` saves and restores it.

    Attributes:
        trained: The model, together with the parameters of the task if it has any.
        bn: The batch-norm policy of phases with "auto"; "auto" until it is decided.
        frozen_by_user: ``id`` of each parameter that did not require a gradient before the fit.
        adapted: Whether the statistics of norm layers were computed from these data
            (``bn="adapt"``).
        gap_warned_phase: Index of the last phase with a warning [train-eval-gap]; -1 if there is
            none.
        empty_steps: Steps of the last epoch that were skipped because they have no target.
        warns_of_empty_steps: Whether the next epoch with steps without targets emits a warning.
        reports_skipped_steps: Whether skipped steps that are not finite are warned of or refused.
        is_main: Whether this process (rank 0) prints messages and writes files.
        shares_evaluation: Whether each rank evaluates its part of the validation set.
    """

    def __init__(
        self, components: Components, settings: RunSettings, history: History, position: Position
    ) -> None:
        options, task = settings.options, components.task
        self.components, self.settings, self.options = components, settings, options
        self.dispatch, self.interrupt = Dispatch(settings.callbacks), Interrupt()
        self.shares_evaluation = self.adapted = False
        self.is_main = True
        self.losses = StepLosses(
            history.add_step_losses, skip_nonfinite=options.nonfinite == "skip"
        )
        self.precision = Precision(components.values.get("precision", "fp32"), components.device)
        self.trained = trained_module(components.model, task)
        self.optimizers = _build_optimizers(components, options, self.trained)
        check_trainable(components.model, settings.phases)
        self.values = _build_values(components, options, self.optimizers, self.trained)
        self.update = Update(
            self.trained,
            self.optimizers,
            self.precision,
            clip_norm=options.clip_norm,
            nonfinite=options.nonfinite,
        )
        if self.update.needs_closure:
            check_closure(self.optimizers, self.precision.name, options.nonfinite)
        self.average = running_average(options.average, self.optimizers.values())
        history.modes, history.first_row = column_modes(task), len(history.rows)
        self.best = BestWeights(
            *run_monitor(options, settings.callbacks, settings.planner, history.modes)
        )
        check_has_columns(self.best.monitor, options.controllers, components.valid)
        if components.valid is not None and options.train_step is not train_step:
            check_can_score(task)
        self.state = self._new_state(history, position)
        self.step = Step(self.state, self.update, self.precision, self.dispatch)
        self.train_step: TrainStep = options.train_step
        self.update_check: UpdateCheck | None = None
        self._moves = components.device.type != "cpu"
        self.frozen_by_user = {id(p) for p in components.model.parameters() if not p.requires_grad}
        self.trainable: tuple[str, ...] | None = None
        self.started_phase = self.gap_warned_phase = -1
        self.bn: BatchNormPolicy = "auto"
        self.empty_steps = 0
        self.warns_of_empty_steps = self.reports_skipped_steps = True
        if self.average is not None:
            self.average.start(self.trained)

    def _new_state(self, history: History, position: Position) -> TrainState:
        components, intervals = self.components, self.settings.intervals
        if intervals is None:
            counts = StepCounts.of_loader(components.train, self.options.accumulate)
        else:
            counts = StepCounts(intervals.steps_in)
        return TrainState(
            model=components.model,
            task=components.task,
            phases=self.settings.phases,
            optimizers=self.optimizers,
            device=components.device,
            seed=components.seed,
            step_counts=counts,
            intervals=intervals,
            history=history,
            snapshot=lambda: capture(self),
            position=position,
            values=self.values.current,
            context=StepContext(values=self.values.current, seed=components.seed),
            folder=self.settings.folder,
            plan=self.settings.plan,
            data=self.settings.data,
            options=self.options,
            not_resumable_reason=not_savable_reason(self.settings.phases)
            or not_resumable_reason(components.train),
        )

    # The batches of an epoch, or of an interval between two evaluations

    def grouped_batches(self) -> Iterator[list[Batch]]:
        """Return the micro-batches of the remaining steps of the epoch."""
        position, context = self.state.position, self.state.context
        if self.settings.intervals is not None:
            return self.settings.intervals.grouped(position, context)
        context.epoch = position.epoch
        return self._batches_from(position.epoch, position.epoch_step)

    def _batches_from(self, epoch: int, step: int) -> Iterator[list[Batch]]:
        return grouped_batches(self.components.train, self.options.accumulate, epoch, step)

    @property
    def data_epoch(self) -> int:
        """The epoch of the train set whose batches are used, or were used last."""
        intervals, position = self.settings.intervals, self.state.position
        return position.epoch if intervals is None else intervals.data_epoch(position)

    def epochs_done(self) -> float | int:
        """Return how many epochs are finished when this epoch of the loop ends, for the history."""
        intervals, position = self.settings.intervals, self.state.position
        return position.epoch + 1 if intervals is None else intervals.epochs_done(position)

    def spans_epoch(self) -> bool:
        """Return whether the steps since the last evaluation are a whole epoch of the train set."""
        intervals = self.settings.intervals
        return intervals is None or intervals.spans_epoch(self.state.position)

    def start_update_check(self) -> None:
        """Start checking, in the first epoch, that a custom train step updates the weights."""
        if self.options.train_step is not train_step:
            from flambeau.training.update_check import UpdateCheck

            self.update_check = self.update_check or UpdateCheck(
                self.trained, self.update, self.step
            )
            self.update_check.start_epoch()

    # Overridden for several processes (``RankedRun``)

    def propagate_errors(self) -> AbstractContextManager[None]:
        """Return a context manager around the fit that reports errors to the other processes."""
        return nullcontext()

    def set_interrupt(self, interrupt: Interrupt) -> None:
        """Set the object that tells the loop whether Ctrl-C or SIGTERM was received."""
        self.interrupt = interrupt

    def should_stop(self) -> bool:
        """Return whether a callback has set ``stop_reason``; called between epochs."""
        return self.state.stop_reason is not None

    def steps(self, grouped: Iterator[list[Batch]]) -> Iterator[list[Batch]]:
        """Yield the micro-batches that this process computes in each step."""
        return grouped

    def end_steps(self) -> None:
        """Finish the steps of an epoch; called after the last one."""

    def broadcast_scores(self, scores: Mapping[str, float]) -> Mapping[str, float]:
        """Return rank 0's evaluation scores, so that all processes use the same scores."""
        return scores

    def gather(self, value: T) -> list[T]:
        """Return the values of all processes, in the order of their ranks."""
        return [value]

    def carries(self) -> list[Any]:
        """Return the carried state of each process, or only that of this one."""
        return [self.state.context.carry]

    # The phase and the step

    def update_phases(self) -> None:
        """Let the planner, if there is one, decide the next phases; called after each phase."""
        if self.settings.planner is not None:
            self.state.phases = self.settings.planner.next_phases(self.state)
            self.set_bn_policy(self.bn)

    def set_bn_policy(self, bn: BatchNormPolicy) -> None:
        """Set the decided policy in all phases with "auto", including phases added later."""
        self.bn = bn
        self.state.phases = tuple(
            replace(phase, bn=bn) if phase.bn == "auto" else phase for phase in self.state.phases
        )

    def start_phase(self) -> None:
        """Set which groups are trainable, their learning rates and the schedules.

        Gradients from before the fit (of a loop outside flambeau) are cleared.
        """
        phase = self.state.phase
        self.update.start_phase()
        norms = trainable_norm_parameters(self.components.model, phase.bn)
        freeze_except(self.components.model, phase.trainable, self.frozen_by_user, norms)
        self.trainable = phase.trainable
        self.started_phase = self.state.position.phase
        self.values.start_phase(phase, self.state.phase_steps)

    def set_values(self, micro_batches: Sequence[Batch]) -> None:
        """Set lr and the other scheduled values for the next step."""
        state = self.state
        self.values.set(state.phase_step, micro_batches, state.position.step)

    def prepare_train(self, batch: Batch) -> Batch:
        """Move a batch to the device, augment, normalise, and apply user-defined transforms."""
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
        """Move a batch to the device and normalise it."""
        return self.components.on_device(batch.to(self.components.device, non_blocking=True))

    # The epoch

    def read_losses(self) -> float:
        """Return the mean loss of the epoch, and add the losses of its steps to the history.

        Raises:
            InputError: The weight of every step is 0: the epoch has no targets.

        Warns:
            FlambeauWarning: [steps-without-targets] Some steps were skipped; at most once per run.
        """
        mean, weight, steps, empty = self.losses.read()
        self.empty_steps = empty if self.options.train_step is train_step else 0
        if self.empty_steps:
            from flambeau.training.no_target import epoch_without_targets, warn_of_skipped_steps

            epoch = self.data_epoch + 1
            if not weight and self.spans_epoch():
                raise epoch_without_targets(epoch, steps)
            if self.is_main and self.warns_of_empty_steps:
                self.warns_of_empty_steps = False
                warn_of_skipped_steps(epoch, empty, steps)
        return mean

    @cached_property
    def logged(self) -> LoggedValues:
        """The values that the task and the train step have logged in this epoch."""
        from flambeau.training.logged_values import LoggedValues

        return LoggedValues(self.components.task, skip_nonfinite=self.options.nonfinite == "skip")

    @cached_property
    def objects(self) -> ObjectStates:
        """The state of the objects that the user passed, for checkpoints."""
        return states_of_objects(self)

    @contextmanager
    def averaged_weights(self) -> Generator[None]:
        """Use the averaged weights, if averaging is on, inside the block."""
        if self.average is None:
            yield
        else:
            with self.average.swapped(self.trained):
                yield

    def update_best_weights(self) -> None:
        """Copy the weights (the averaged weights, if there are any) if their score is the best."""
        if self.best.monitor is not None:
            row = self.state.history.rows[-1]
            scores = {name: value for name, value in row.items() if not isinstance(value, str)}
            planner = self.settings.planner
            tolerance = None if planner is None else planner.tolerance(self.state.history)
            with self.averaged_weights():
                self.best.update(self.trained, scores, tolerance)

    def run_controllers(self) -> None:
        """Set the values that controllers return, which stay until a controller changes them.

        The average learns of the evaluation too.
        """
        progress = self.state.fit_step / max(1, self.state.total_steps)
        for controller in self.options.controllers:
            self.values.override(controller.update(self.state.history, progress))
        if self.average is not None:
            self.average.evaluated(self.state.history)

    # Non-finite steps

    def raise_nonfinite(self, record: StepRecord) -> NoReturn:
        """Raise the error for the first non-finite step, with the source of the non-finite value.

        Raises:
            NonFiniteError: Always; the message names step, samples and layer, and what to do.
        """
        from flambeau.training.nonfinite.locate import NonFiniteSource, find_nonfinite_source

        self.update.restore_statistics()
        if self.settings.intervals is not None:
            epoch, step = self.settings.intervals.place_of(record.epoch, record.epoch_step)
            record = replace(record, epoch=epoch, epoch_step=step)
        why_not = not_resumable_reason(self.components.train)
        if why_not:
            description = (
                f"the layer is unknown because the loader cannot repeat its batches: {why_not}"
            )
            raise self.build_nonfinite_error(record, NonFiniteSource("unknown", description))
        batches = next(self._batches_from(record.epoch, record.epoch_step), list[Batch]())
        ready = [self.prepare_train(batch) for batch in batches if len(batch)]
        if not ready and loader_world_size(self.components.train) == 1:
            empty = NonFiniteSource("empty", "it has no samples, so its mean loss is 0/0")
            raise self.build_nonfinite_error(record, empty)
        source = find_nonfinite_source(
            self.components.model,
            self.components.task,
            ready,
            replace(self.state.context, epoch=record.epoch, step=record.step, carry=None),
            record=record,
            autocast=self.precision.autocast,
        )
        raise self.build_nonfinite_error(record, source)

    def build_nonfinite_error(self, record: StepRecord, source: NonFiniteSource) -> NonFiniteError:
        """Return the error that ends the run."""
        from flambeau.training.nonfinite.locate import nonfinite_error

        return nonfinite_error(record, source)

    def release(self) -> None:
        """Unfreeze the parameters that phases (not the user) froze, and free the memory of the run.

        Run and state refer to each other. This cycle is removed here, so that both are freed with
        the learner; otherwise models and worker processes would remain until Python's next garbage
        collection.
        """
        freeze_except(self.components.model, None, self.frozen_by_user)
        self.values.release()
        self.state.snapshot = _raise_finished
        if self.settings.intervals is not None:
            self.settings.intervals.close()
            position = self.state.position  # the next fit starts with an unused epoch
            position.epoch = self.settings.intervals.next_epoch(position)
            position.epoch_step = 0

    def finish_after(self, error: BaseException) -> None:
        """Set the final weights after Ctrl-C or an error, and say in a note which they are.

        After an error without a best epoch or an average, the model keeps its weights.
        """
        others = self.best.found or (self.average is not None and self.average.updates)
        if others or isinstance(error, KeyboardInterrupt):
            error.add_note(f"The model has {self.finish()}.")

    def finish(self) -> str:
        """Set the final weights: of the best epoch, else the averaged ones, else the last ones.

        Returns:
            A text that says which weights the model has now, for a message.
        """
        if self.best.found:
            self.best.restore(self.trained)
            if self.state.evaluates_by_steps:
                return f"the weights of step {self.best.step}, the best by {self.best.monitor}"
            epoch = "" if self.best.epoch is None else f", {self.best.epoch}"
            return f"the weights of the best epoch{epoch} (by {self.best.monitor})"
        if self.average is not None and self.average.updates:
            self.average.finish(self.trained)
            return f"the weights averaged over {self.average.updates} steps"
        return f"the weights after step {self.state.position.step}"


def _raise_finished(*arguments: object) -> NoReturn:
    raise TrainingError(
        "This run has finished and its state is read-only. Call fit() to train further."
    )


def _build_optimizers(
    components: Components, options: TrainingOptions, trained: nn.Module
) -> Mapping[str, Optimizer]:
    """Return the optimizers of the plan or of the user's factory, with the task's parameters."""
    model, values = components.model, components.values
    factory = options.factory or default_factory
    optimizers = checked_optimizers(factory(model, values), model)
    if trained is not model:
        from flambeau.training.optim.optimizer_class import ClassFactory
        from flambeau.training.optim.task_parameters import (
            add_task_parameters,
            check_task_parameters,
        )

        if factory is default_factory or isinstance(factory, ClassFactory):
            add_task_parameters(optimizers["main"], trained, values)
        check_task_parameters(optimizers, trained)
    return optimizers


def _build_values(
    components: Components,
    options: TrainingOptions,
    optimizers: Mapping[str, Optimizer],
    trained: nn.Module,
) -> StepValues:
    """Return the object that sets the scheduled values of each step."""
    values = StepValues(
        components.model,
        optimizers,
        components.values,
        components.task.values,
        components.task.step_values,
        no_decay=lambda: no_decay_ids(trained),
    )
    for controller in options.controllers:
        values.track(getattr(controller, "name", ""))
    return values
