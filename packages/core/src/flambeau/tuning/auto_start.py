"""Start a run with a time budget, from measurements or from a record in the plan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flambeau.checked_arguments import checked_number
from flambeau.data.loader import not_resumable_reason
from flambeau.device import num_threads
from flambeau.errors import ArgumentError
from flambeau.phases.phase import Phase
from flambeau.phases.recipes import geometric_lr_scales
from flambeau.phases.schedule import Schedule
from flambeau.plan import Plan
from flambeau.training.components import Components
from flambeau.training.optim.controller import column_modes
from flambeau.training.optim.groups import parameter_groups, trainable_groups
from flambeau.training.run_state.best import best_monitor
from flambeau.tuning.auto_run import AutoRun, Clock, PhaseSettings
from flambeau.tuning.budget import Segment
from flambeau.tuning.lr_choice import measure_lr, should_measure_lr
from flambeau.tuning.lr_finder import Start
from flambeau.tuning.speed import measure_speed
from flambeau.tuning.upcoming import UpcomingRun

_USUAL_MINUTES = 3.0
# Share of the budget for measuring the speed.
_MEASURING_SHARE = 0.02
# From this phase lr_find takes the trainable groups and their relative learning rates.
_LR_FIND_SEGMENTS = (Segment("hold", 1.0, 1.0, 1),)


def create_auto_run(minutes: float | None, plan: Plan, clock: Clock) -> AutoRun:
    """Return a run whose time budget starts now, or the repetition of a recorded run.

    Args:
        minutes: The budget. None repeats the run that the plan records, or selects 3 minutes if the
            plan records no run.
        plan: The learner's plan.
        clock: Returns seconds from any starting point.

    Raises:
        ArgumentError: ``minutes`` is not a number, or the user chose the steps between two
            evaluations.
        InputError: ``minutes`` is not above 0 or not finite.
    """
    every = plan["evaluate_every"]
    if every.value is not None and every.source == "user":
        raise ArgumentError(
            f"evaluate_every is {every.value}, but fit_auto chooses the intervals between "
            "evaluations by their cost. Remove evaluate_every, or use fit(steps=…)."
        )
    if minutes is None and plan.values.get("auto") is not None:
        return AutoRun(None, clock)
    minutes = _USUAL_MINUTES if minutes is None else minutes
    minutes = checked_number(minutes, "minutes", above=0)
    return AutoRun(60.0 * minutes, clock)


def plan_auto_run(auto: AutoRun, plan: Plan, upcoming: UpcomingRun) -> Plan:
    """Time steps and an evaluation, plan the first phases, and return the measured plan.

    For a recorded run nothing is measured.

    Args:
        auto: The run.
        plan: The learner's plan, with measured step settings.
        upcoming: The run that will follow.
    """
    recorded = plan.values["auto"] if auto.budget_s is None else None
    components, options = upcoming.components(plan), upcoming.options(plan)
    modes = column_modes(components.task)
    auto.choose_monitor(
        components.task,
        has_valid=components.valid is not None,
        chosen=best_monitor(options.keep_best, upcoming.callbacks, modes),
    )
    settings = _phase_settings(plan, components, recorded)
    if recorded is not None:
        auto.restore_record(recorded, settings, components, options.accumulate)
    else:
        speed = None
        if not not_resumable_reason(components.train):
            limit_s = _MEASURING_SHARE * max(0.0, (auto.budget_s or 0.0) - auto.elapsed_s)
            with num_threads(plan.values["num_threads"]):
                speed = measure_speed(components, options, limit_s, clock=auto.clock)
        if speed is not None and should_measure_lr(plan["lr"], options):
            epochs = auto.epochs_within(speed, components, options.accumulate)
            start = Start(
                components, options, settings.phases(_LR_FIND_SEGMENTS)[0], upcoming.position
            )
            phases = [Phase(max(1, epochs))]  # a run has at least one interval
            plan = plan.with_choice(measure_lr(plan["lr"], start, phases, upcoming.log))
            settings = replace(settings, lr=plan.values["lr"])
        epochs = int(plan.values["epochs"])
        auto.make_first_plan(settings, speed, components, options.accumulate, epochs)
    upcoming.log(auto.description())
    return plan


def placeholder_phases(values: Mapping[str, Any]) -> list[Phase]:
    """Return a placeholder phase for a run whose phases are chosen only after steps were timed."""
    return [Phase(values["epochs"], {"lr": Schedule("constant", values["lr"])})]


def _phase_settings(
    plan: Plan, components: Components, recorded: Mapping[str, Any] | None
) -> PhaseSettings:
    """Return the settings that all phases have in common.

    With pretrained weights, they name a head, which is trained alone in the first phases.
    """
    values = plan.values
    names = list(parameter_groups(components.model))
    trainable = trainable_groups(values["trainable"], components.model)
    fine_tunes = values["weights"] is not None and trainable is None and len(names) > 1
    if recorded is not None:
        fine_tunes = recorded["recipe"] == "fine_tune"
    settings = PhaseSettings(values["lr"], values["bn"], trainable)
    if not fine_tunes:
        return settings
    return replace(settings, lr_scales=geometric_lr_scales(names), head=names[-1])
