"""How a run under a time budget begins: with what was measured, or with what a plan records."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from flambeau.data.loader import why_not_resumable
from flambeau.device import num_threads
from flambeau.errors import ArgumentError
from flambeau.phases.phase import Phase
from flambeau.phases.recipes import geometric_lr_scales
from flambeau.phases.schedule import Schedule
from flambeau.plan import Plan
from flambeau.training.components import Components
from flambeau.training.optim.groups import groups_that_learn, parameter_groups
from flambeau.tuning.auto_run import AutoRun, Clock, PhaseSettings
from flambeau.tuning.budget import Segment
from flambeau.tuning.lr_choice import measure_lr, should_measure_lr
from flambeau.tuning.lr_finder import Start
from flambeau.tuning.speed import measure_speed
from flambeau.tuning.upcoming import UpcomingRun

_USUAL_MINUTES = 3.0
# Share of the budget that measuring may take.
_MEASURING = 0.02
# For the finder, which asks a phase what learns at which rates.
_FLAT = (Segment("hold", 1.0, 1.0, 1),)


def create_auto_run(minutes: float | None, plan: Plan, clock: Clock) -> AutoRun:
    """A run under a time budget that begins to count now, or the one that the plan records.

    Args:
        minutes: The budget; None repeats what the plan records, or takes 3.
        plan: The learner's.
        clock: Seconds from any starting point.

    Raises:
        ArgumentError: ``minutes`` is no number above 0.
    """
    if minutes is None and plan.values.get("auto") is not None:
        return AutoRun(None, clock)
    minutes = _USUAL_MINUTES if minutes is None else minutes
    is_number = type(minutes) in (int, float) and math.isfinite(minutes)
    if not is_number or minutes <= 0:
        raise ArgumentError(
            f"minutes is {minutes!r}, but it must be a finite number above 0: the time that the "
            "whole run may take."
        )
    return AutoRun(60.0 * minutes, clock)


def plan_auto_run(auto: AutoRun, plan: Plan, upcoming: UpcomingRun) -> Plan:
    """Time steps and an evaluation, make the first phases of the run, return the measured plan.

    A recorded run is repeated instead, and nothing is measured.

    Args:
        auto: The run.
        plan: The learner's, with the step's settings measured.
        upcoming: The run to come.
    """
    recorded = plan.values["auto"] if auto.budget_s is None else None
    components, options = upcoming.components(plan), upcoming.options(plan)
    auto.choose_monitor(components.task, has_valid=components.valid is not None)
    peak = _peak(plan, components, recorded)
    if recorded is not None:
        auto.restore_record(recorded, peak, components, options.accumulate)
    else:
        speed = None
        if not why_not_resumable(components.train):
            limit_s = _MEASURING * max(0.0, (auto.budget_s or 0.0) - auto.elapsed_s)
            with num_threads(plan.values["num_threads"]):
                speed = measure_speed(components, options, limit_s, clock=auto.clock)
        if speed is not None and should_measure_lr(plan["lr"], options):
            epochs = auto.epochs_within(speed, components, options.accumulate)
            start = Start(components, options, peak.phases(_FLAT)[0], upcoming.position)
            plan = plan.with_choice(measure_lr(plan["lr"], start, epochs, upcoming.log))
            peak = replace(peak, lr=plan.values["lr"])
        auto.make_first_plan(peak, speed, components, options.accumulate)
    upcoming.log(auto.description())
    return plan


def placeholder_phases(values: Mapping[str, Any]) -> list[Phase]:
    """Return the phase of a run whose real ones are not known before steps have been timed."""
    return [Phase(values["epochs"], {"lr": Schedule("constant", values["lr"])})]


def _peak(plan: Plan, components: Components, recorded: Mapping[str, Any] | None) -> PhaseSettings:
    """What the phases have in common; with pretrained weights the head learns alone first."""
    values = plan.values
    names = list(parameter_groups(components.model))
    trainable = groups_that_learn(values["trainable"], components.model)
    tunes = values["weights"] is not None and trainable is None and len(names) > 1
    if recorded is not None:
        tunes = recorded["recipe"] == "fine_tune"
    peak = PhaseSettings(values["lr"], values["bn"], trainable)
    return replace(peak, lr_scales=geometric_lr_scales(names), head=names[-1]) if tunes else peak
