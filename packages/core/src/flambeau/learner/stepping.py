"""Build the run whose next step ``Learner.step_through`` shows, and describe its raw samples."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import Loader, not_resumable_reason
from flambeau.device import num_threads
from flambeau.distributed import processes
from flambeau.errors import ArgumentError, FlambeauWarning, InputError
from flambeau.learner.factory_rate import with_factory_rate
from flambeau.learner.setup import Setup, run_inputs
from flambeau.phases import recipes
from flambeau.plan.rules_machine import TO_MEASURE

if TYPE_CHECKING:
    from flambeau.inspect.stages import Stage, StepStages
    from flambeau.plan import Plan
    from flambeau.training.options import TrainingOptions

_MOST_SAMPLES = 8


def step_through(
    setup: Setup, trainable: tuple[str, ...] | None, batch: Batch | Sequence[Batch] | None
) -> StepStages:
    """Return the stages of the first step that ``fit()`` would make.

    The batch-norm policy is decided as in a fit. lr, memory and speed of a step are not measured;
    notes say so.

    Args:
        setup: The learner's setup.
        trainable: Names of the parameter groups that train; None for all.
        batch: As in ``Learner.step_through``.

    Raises:
        ArgumentError: ``batch`` is neither a batch nor batches.
        InputError: Several processes train together.

    Warns:
        FlambeauWarning: [loader-moved] The position of the train loader cannot be restored.
    """
    from flambeau.inspect.stages import StepStages
    from flambeau.inspect.step_through import step_through as record
    from flambeau.tuning.bn_decision import measure_bn

    given = _micro_batches(batch)
    if processes.initialize() is not None:
        raise InputError(
            "step_through shows a step of one process, but several processes train together. "
            "Call it in a script that is started without torchrun."
        )
    plan = with_factory_rate(setup, setup.plan)
    phases = recipes.single_phase(plan.values, trainable=trainable)
    components = setup.built(plan).components(plan.values)
    with num_threads(plan.values["num_threads"]):
        plan = measure_bn(plan, components, phases, setup.position.epoch)
    phases = recipes.single_phase(plan.values, trainable=trainable)
    components, settings = run_inputs(setup, plan, phases, first_epoch=setup.position.epoch)
    why_not = "" if given is not None else not_resumable_reason(components.train)
    if why_not:
        warnings.warn(
            "[loader-moved] step_through advances the train loader, which cannot be restored: "
            f"{why_not}. Pass a batch: step_through(batch).",
            FlambeauWarning,
            stacklevel=4,
        )
    samples = _SampleTexts(setup.data, components.train)
    with num_threads(plan.values["num_threads"]):
        found = record(
            components, settings, setup.position, show_samples=samples.stage, batches=given
        )
    return StepStages([*_not_measured(plan, settings.options), *found.all], found.error)


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


class _SampleTexts:
    """Describes the raw samples of a batch with the previews of the data.

    Args:
        data: Has the previews.
        loader: The train loader.
    """

    def __init__(self, data: Data, loader: Loader) -> None:
        self._data = data
        self._why_not = ""
        self._rows: frozenset[int] = frozenset()
        if getattr(loader, "is_stream", False):
            self._why_not = "a row of a stream is a part of many samples"
        elif "loader_batch_size" in data.facts():
            self._why_not = "the loader does not say which samples it returns"
        else:
            self._rows = frozenset(data.split.train.tolist())

    def stage(self, batch: Batch, micro_batch: int | None) -> Stage:
        """Return the stage "samples": the first samples of a batch as text, and images if any."""
        from flambeau.inspect.stages import Stage

        why_not = self._why_not
        if not why_not and batch.indices is None:
            why_not = "the batch does not say which samples it contains"
        numbers = [] if why_not or batch.indices is None else list(map(int, batch.indices))
        if not why_not and not self._rows.issuperset(numbers):
            why_not = "the batch does not number its rows as the split does"
        if why_not:
            return Stage("samples", "samples", None, f"not available: {why_not}", micro_batch)
        return self._previews(numbers, micro_batch)

    def _previews(self, numbers: list[int], micro_batch: int | None) -> Stage:
        from flambeau.inspect.stages import Stage

        shown = numbers[:_MOST_SAMPLES]
        previews = [self._data.preview(number) for number in shown]
        texts = [
            f"sample {number}" if each is None else f"sample {number}: {each.caption}"
            for number, each in zip(shown, previews, strict=True)
        ]
        images = tuple(each.image for each in previews if each is not None and each.image)
        note = f"the first {len(shown)} of {len(numbers)}" if len(shown) < len(numbers) else ""
        complete = images if len(images) == len(shown) else ()
        return Stage("samples", "samples", texts, note, micro_batch, complete)
