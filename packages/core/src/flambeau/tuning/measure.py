"""``measure``: run all measurements that a fit makes before its first step.

Each result is recorded in the plan as a choice with its figures, so a replay measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from flambeau.device import num_threads
from flambeau.phases.phase import Phase
from flambeau.plan import Plan
from flambeau.tuning.bn_decision import measure_bn
from flambeau.tuning.lr_choice import measure_lr, should_measure_lr
from flambeau.tuning.step_settings import measure_step_settings
from flambeau.tuning.upcoming import Recipe, UpcomingRun

if TYPE_CHECKING:
    from flambeau.tuning.auto_run import AutoRun


def measure(
    plan: Plan,
    upcoming: UpcomingRun,
    recipe: Recipe,
    *,
    may_find_lr: bool = True,
    auto: AutoRun | None = None,
) -> tuple[Plan, Sequence[Phase]]:
    """Return the plan with all measurements, and the phases of the run.

    Args:
        plan: The learner's plan; choices that the user set or that are already measured are kept.
        upcoming: The run that will follow; it is not changed.
        recipe: A function that returns the phases for the plan's values.
        may_find_lr: Whether the learning rate may be measured; false if the user gave the phases.
        auto: A run with a time budget, which chooses its phases itself.
    """
    phases = recipe(plan.values)
    plan = measure_step_settings(plan, upcoming, phases)
    if auto is not None:
        from flambeau.tuning.auto_start import plan_auto_run

        plan = plan_auto_run(auto, plan, upcoming)
        phases = auto.phases()
    elif may_find_lr and should_measure_lr(plan["lr"], upcoming.options(plan)):
        from flambeau.tuning.lr_finder import Start

        phases = recipe(plan.values)
        start = Start(
            upcoming.components(plan), upcoming.options(plan), phases[0], upcoming.position
        )
        plan = plan.with_choice(measure_lr(plan["lr"], start, phases, upcoming.log))
        phases = recipe(plan.values)
    if plan["bn"].value == "auto" and any(phase.bn == "auto" for phase in phases):
        components = upcoming.components(plan)
        components = components if auto is None else auto.with_intervals(components)
        with num_threads(plan.values["num_threads"]):
            plan = measure_bn(plan, components, phases, upcoming.position.epoch)
    return plan, phases
