"""Build the run whose next step ``Learner.step_through`` shows, and describe its raw samples."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from flambeau.data.batch import Batch
from flambeau.device import num_threads
from flambeau.errors import ArgumentError
from flambeau.learner.sample_texts import SampleTexts
from flambeau.learner.setup import Setup
from flambeau.learner.single_steps import refuse_processes, step_inputs, warn_if_moved
from flambeau.plan.rules_machine import TO_MEASURE

if TYPE_CHECKING:
    from flambeau.inspect.loss_spikes import LossSpike
    from flambeau.inspect.stages import Stage, StepStages
    from flambeau.learner.fit_steps import FitSteps
    from flambeau.plan import Plan
    from flambeau.training.options import TrainingOptions


def step_through(
    setup: Setup,
    trainable: tuple[str, ...] | None,
    batch: Batch | Sequence[Batch] | LossSpike | None,
    fits: Sequence[FitSteps] = (),
) -> StepStages:
    """Return the stages of the first step that ``fit()`` would make, or of a loss spike.

    The batch-norm policy is decided as in a fit. lr, memory and speed of a step are not measured;
    notes say so.

    Args:
        setup: The learner's setup.
        trainable: Names of the parameter groups that train; None for all.
        batch: As in ``Learner.step_through``.
        fits: The fits of the learner, which say in which of them a spike was.

    Raises:
        ArgumentError: ``batch`` is neither a batch nor batches.
        InputError: Several processes train together, or the batch of the spike cannot be read
            again.

    Warns:
        FlambeauWarning: [loader-moved] The position of the train loader cannot be restored.
    """
    from flambeau.inspect.loss_spikes import LossSpike
    from flambeau.inspect.stages import StepStages
    from flambeau.inspect.step_through import step_through as record

    if isinstance(batch, LossSpike):
        refuse_processes("step_through shows a step")
        return _replay(setup, fits, batch)
    given = _micro_batches(batch)
    refuse_processes("step_through shows a step")
    inputs = step_inputs(setup, trainable, measures_bn=True)
    plan, components, settings = inputs.plan, inputs.components, inputs.settings
    if given is None:
        advice = "Pass a batch: step_through(batch)."
        warn_if_moved(components.train, "step_through", advice)
    samples = SampleTexts(setup.data, components.train)
    with num_threads(plan.values["num_threads"]):
        found = record(
            components, settings, setup.position, show_samples=samples.stage, batches=given
        )
    return StepStages([*_not_measured(plan, settings.options), *found.all], found.error)


def _replay(setup: Setup, fits: Sequence[FitSteps], spike: LossSpike) -> StepStages:
    from flambeau.inspect.stages import Stage, StepStages
    from flambeau.inspect.step_through import step_through as record
    from flambeau.learner.fit_steps import restored_plan
    from flambeau.learner.spikes import find_replay

    with restored_plan(setup):
        made = find_replay(setup, fits, spike)
        samples = SampleTexts(setup.data, made.components.train)
        with num_threads(made.components.values["num_threads"]):
            found = record(
                made.components, made.settings, made.position, show_samples=samples.stage
            )
    note = Stage("note", "replay", None, _REPLAY.format(step=spike.step))
    return StepStages([note, *found.all], found.error)


_REPLAY = (
    "Samples, augmentation, lr and other values are those of step {step}. The weights are those "
    "that the model has now, the optimizer is new, and dropout draws other random numbers."
)


def _not_measured(plan: Plan, options: TrainingOptions) -> Iterator[Stage]:
    """Yield a note for each measurement of a fit that may change the plan before its first step."""
    from flambeau.inspect.stages import Stage
    from flambeau.tuning.lr_choice import should_measure_lr

    if plan.values.get("probe") in TO_MEASURE:
        yield Stage("note", "probe", None, _PROBE)
    if should_measure_lr(plan["lr"], options):
        text = (
            "A fit that is long enough first measures lr; here it is the plan's "
            f"{plan['lr'].value:g}."
        )
        yield Stage("note", "lr", None, text)


_PROBE = (
    "A fit may first measure steps and change precision, batch_size, accumulate, memory_format, "
    'compile or num_threads; the plan\'s values are used here, as in a fit with probe "off".'
)


def _micro_batches(batch: object) -> list[Batch] | None:
    """Return the argument as a list of micro-batches; None reads them from the loader."""
    if batch is None:
        return None
    found = [batch] if isinstance(batch, Batch) else batch
    if not isinstance(found, list | tuple) or not found:
        raise ArgumentError(_wrong_batch(batch))
    batches = [each for each in found if isinstance(each, Batch)]  # pyright: ignore[reportUnknownVariableType]
    if len(batches) < len(found):  # pyright: ignore[reportUnknownArgumentType]
        raise ArgumentError(_wrong_batch(batch))
    return batches


def _wrong_batch(batch: object) -> str:
    return (
        f"batch is {batch!r:.60}; give a Batch as the train loader returns it, "
        'next(learner.built.loader("train").batches(0)), or a list of them as the micro-batches of '
        "one step."
    )
