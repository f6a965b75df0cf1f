"""What ``step_through`` and ``profile`` share: the inputs of steps after which all is as before."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

from flambeau.data.loader import Loader, not_resumable_reason
from flambeau.device import num_threads
from flambeau.distributed import processes
from flambeau.errors import FlambeauWarning, InputError
from flambeau.learner.factory_rate import with_factory_rate
from flambeau.learner.setup import Setup, run_inputs
from flambeau.phases import recipes
from flambeau.phases.phase import Phase
from flambeau.plan import Plan
from flambeau.training.components import Components
from flambeau.training.run import RunSettings


@dataclass(frozen=True)
class StepInputs:
    """The inputs of the steps that ``fit()`` would make.

    Attributes:
        plan: The plan; lr, memory and speed of a step are not measured.
        phases: The phases of the run.
        components: Objects of the run.
        settings: Settings of the run.
    """

    plan: Plan
    phases: Sequence[Phase]
    components: Components
    settings: RunSettings


def step_inputs(
    setup: Setup, trainable: tuple[str, ...] | None, *, measures_bn: bool = False
) -> StepInputs:
    """Return the inputs of the next steps of a learner.

    Args:
        setup: The learner's setup.
        trainable: Names of the parameter groups that train; None for all.
        measures_bn: Whether the batch-norm policy is decided as in a fit.
    """
    plan = with_factory_rate(setup, setup.plan)
    phases = recipes.single_phase(plan.values, trainable=trainable)
    if measures_bn:
        from flambeau.tuning.bn_decision import measure_bn

        components = setup.built(plan).components(plan.values)
        with num_threads(plan.values["num_threads"]):
            plan = measure_bn(plan, components, phases, setup.position.epoch)
        phases = recipes.single_phase(plan.values, trainable=trainable)
    components, settings = run_inputs(setup, plan, phases, first_epoch=setup.position.epoch)
    return StepInputs(plan, phases, components, settings)


def refuse_processes(what: str) -> None:
    """Raise an error if several processes train together.

    Args:
        what: Method and what it does: "profile times the steps".

    Raises:
        InputError: Several processes train together.
    """
    if processes.initialize() is not None:
        raise InputError(
            f"{what} of one process, but several processes train together. Call it in a script "
            "that is started without torchrun."
        )


def warn_if_moved(loader: Loader, method: str, advice: str = "") -> None:
    """Warn if the position of the loader cannot be restored; called by a method of the learner.

    Args:
        loader: The train loader.
        method: Name of the method.
        advice: What to do instead, a sentence.
    """
    why_not = not_resumable_reason(loader)
    if why_not:
        warnings.warn(
            f"[loader-moved] {method} advances the train loader, which cannot be restored: "
            f"{' '.join([f'{why_not}.', advice]).strip()}",
            FlambeauWarning,
            stacklevel=5,
        )
