"""``FitSteps``: which steps a fit has made, so that the batch of each can be read again.

The order of a loader follows from seed and epoch, so no step stores its samples.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from flambeau.data.batch import Batch
from flambeau.data.loader import StepCounts, has_length, not_resumable_reason
from flambeau.learner.setup import Setup, run_inputs
from flambeau.phases.phase import Phase
from flambeau.plan import Plan
from flambeau.training.accumulation import grouped_batches
from flambeau.training.components import Components
from flambeau.training.run import Run, RunSettings
from flambeau.training.state import Position


@dataclass(frozen=True)
class FitSteps:
    """The steps of a fit, or of the run that ``resume`` continues.

    Attributes:
        plan: Its plan.
        phases: Its phases, with the batch-norm policy that was decided.
        first_epoch: Epoch with which it starts.
        first_step: Step with which it starts.
        first_loss: Number of losses of earlier steps in the history.
        is_automatic: Whether it is a run of ``fit_auto``, which decides its phases as it proceeds.
    """

    plan: Plan
    phases: tuple[Phase, ...]
    first_epoch: int
    first_step: int
    first_loss: int
    is_automatic: bool = False

    @classmethod
    def of(cls, plan: Plan, run: Run) -> FitSteps:
        """Return the steps of a run that is about to start or to continue."""
        state = run.state
        done = state.fit_step
        losses = state.history.n_steps + len(run.losses.state_dict()["losses"])
        return cls(
            plan,
            tuple(state.phases),
            state.first_epoch,
            state.position.step - done,
            losses - done,
            is_automatic=run.settings.planner is not None,
        )


@dataclass(frozen=True)
class FitStep:
    """One step of a fit, with what is needed to make it again.

    Attributes:
        components: Objects of the run.
        settings: Settings of the run.
        position: The position before the step.
        epoch: Epoch of the train set.
        epoch_step: The step within this epoch.
    """

    components: Components
    settings: RunSettings
    position: Position
    epoch: int
    epoch_step: int

    def micro_batches(self) -> list[Batch]:
        """Return the batches of the step as the train loader returns them."""
        read: Generator[list[Batch]] = grouped_batches(  # pyright: ignore[reportAssignmentType]
            self.components.train,
            self.settings.options.accumulate,
            self.epoch,
            self.epoch_step,
        )
        group = next(read, list[Batch]())
        read.close()  # frees the loader's generators and worker processes
        return group


def step_of_loss(fits: Sequence[FitSteps], number: int) -> tuple[FitSteps | None, int]:
    """Return the fit that made a step, and the step, given the number of its loss."""
    fit = next((each for each in reversed(fits) if each.first_loss <= number), None)
    return fit, number if fit is None else fit.first_step + number - fit.first_loss


def fit_of_step(fits: Sequence[FitSteps], step: int) -> FitSteps | None:
    """Return the last fit that starts at or before a step."""
    return next((each for each in reversed(fits) if each.first_step <= step), None)


@dataclass(frozen=True)
class FitInputs:
    """The inputs of a fit, from which each of its steps can be made again.

    Attributes:
        fit: The fit.
        components: Objects of the run.
        settings: Settings of the run.
    """

    fit: FitSteps
    components: Components
    settings: RunSettings

    def find_step(self, step: int) -> FitStep | str:
        """Return a step, as counted by the learner, or why it cannot be found."""
        position = _position(self.components, self.settings, self.fit, step)
        if position is None:
            return f"the epochs of the train loader have changed, so that there is no step {step}"
        place = position.epoch, position.epoch_step
        if self.settings.intervals is not None:
            place = self.settings.intervals.place_of(*place)
        return FitStep(self.components, self.settings, position, *place)


def inputs_of_fit(setup: Setup, fit: FitSteps) -> FitInputs | str:
    """Return the inputs of a fit, or why its batches cannot be read again.

    Args:
        setup: The learner's setup.
        fit: The fit, whose plan is applied to the learner's objects; see ``restored_plan``.
    """
    if fit.is_automatic:
        return "fit_auto decides the length of its epochs during the run"
    built = setup.built(fit.plan)
    built.apply(fit.plan.values)
    train = built.loader("train")
    why_not = not_resumable_reason(train)
    if not why_not and not has_length(train):
        why_not = "the train loader has no length"
    if why_not:
        return f"the train loader cannot repeat its batches: {why_not}"
    setup = replace(setup, plan=fit.plan)
    components, settings = run_inputs(setup, fit.plan, fit.phases, first_epoch=fit.first_epoch)
    return FitInputs(fit, components, settings)


@contextmanager
def restored_plan(setup: Setup) -> Generator[None]:
    """Apply the plan of the learner again after a block that uses ``inputs_of_fit``."""
    try:
        yield
    finally:
        setup.built(setup.plan).apply(setup.plan.values)


def _position(
    components: Components, settings: RunSettings, fit: FitSteps, step: int
) -> Position | None:
    intervals = settings.intervals
    if intervals is None:
        counts = StepCounts.of_loader(components.train, settings.options.accumulate)
    else:
        counts = StepCounts(intervals.steps_in)
    left, epoch = step - fit.first_step, fit.first_epoch
    for index, phase in enumerate(settings.phases):
        epochs = (phase.epochs or 0) if intervals is None else intervals.counts[index]
        for phase_epoch in range(epochs):
            if left < counts.of(epoch):
                return Position(index, phase_epoch, left, epoch, step)
            left -= counts.of(epoch)
            epoch += 1
    return None
