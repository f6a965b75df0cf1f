"""How a run under a time budget begins: with what was measured, or with what a plan records."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from flambeau.data.loader import why_not_resumable
from flambeau.device import num_threads
from flambeau.errors import ArgumentError
from flambeau.learner.agreement import make_run
from flambeau.learner.build import Realised
from flambeau.learner.planning import options_of
from flambeau.phases.phase import Phase
from flambeau.phases.recipes import spaced_rates
from flambeau.phases.schedule import Schedule
from flambeau.plan import Plan
from flambeau.plan.rules_machine import TO_MEASURE
from flambeau.training.components import Parts
from flambeau.training.optim.groups import groups_that_learn, parameter_groups
from flambeau.training.options import TrainingOptions
from flambeau.training.state import Position
from flambeau.tuning.auto_run import AutoRun, Clock, Peak
from flambeau.tuning.budget import Segment
from flambeau.tuning.lr_choice import is_open, measured
from flambeau.tuning.lr_finder import Start
from flambeau.tuning.measure import measured_plan
from flambeau.tuning.speed import measure

_USUAL_MINUTES = 3.0
# Share of the budget that measuring may take.
_MEASURING = 0.02
# For the finder, which asks a phase what learns at which rates.
_FLAT = (Segment("hold", 1.0, 1.0, 1),)


def start_auto(minutes: float | None, plan: Plan, clock: Clock) -> AutoRun:
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


@dataclass(frozen=True)
class Begun:
    """What a run under a budget is begun with.

    Attributes:
        realised: The parts that the plan names.
        training: How a step is computed.
        position: Where the run will start.
        tell: Gets a line for the terminal.
    """

    realised: Realised
    training: TrainingOptions
    position: Position
    tell: Callable[[str], None]


def plan_auto(auto: AutoRun, plan: Plan, begun: Begun) -> Plan:
    """Measures what the plan leaves open, steps and an evaluation; makes the run's first plan.

    A recorded run is taken as it was instead.

    Args:
        auto: The run.
        plan: The learner's.
        begun: Its parts.

    Returns:
        The plan with what was measured.
    """
    recorded = plan.values["auto"] if auto.budget_s is None else None
    if recorded is None and plan["probe"].value in TO_MEASURE:
        nominal = Phase(plan.values["epochs"], {"lr": Schedule("constant", plan.values["lr"])})
        plan = measured_plan(plan, begun.realised, begun.training, [nominal])
    values = plan.values
    begun.realised.follow(values)
    parts = replace(begun.realised.parts(), values=values)
    options = options_of(begun.training, values)
    auto.watch(parts.task, has_valid=parts.valid is not None)
    peak = _peak(plan, parts, recorded)
    if recorded is not None:
        auto.repeat(recorded, peak, parts, options.accumulate)
    else:
        speed = None
        if not why_not_resumable(parts.train):
            limit_s = _MEASURING * max(0.0, (auto.budget_s or 0.0) - auto.elapsed_s)
            with num_threads(values["num_threads"]):
                speed = measure(parts, options, limit_s, make_run=make_run, clock=auto.clock)
        if speed is not None and is_open(plan["lr"], begun.training):
            epochs = auto.epochs_within(speed, parts, options.accumulate)
            start = Start(parts, options, peak.phases(_FLAT)[0], begun.position, make_run)
            plan = plan.with_choice(measured(plan["lr"], start, epochs, begun.tell))
            peak = replace(peak, lr=plan.values["lr"])
        auto.begin(peak, speed, parts, options.accumulate)
    begun.tell(auto.words())
    return plan


def _peak(plan: Plan, parts: Parts, recorded: Mapping[str, Any] | None) -> Peak:
    """What the phases have in common; with pretrained weights the head learns alone first."""
    values = plan.values
    names = list(parameter_groups(parts.model))
    trainable = groups_that_learn(values["trainable"], parts.model)
    tunes = values["weights"] is not None and trainable is None and len(names) > 1
    if recorded is not None:
        tunes = recorded["recipe"] == "fine_tune"
    peak = Peak(values["lr"], values["bn"], trainable)
    return replace(peak, lr_scales=spaced_rates(names), head=names[-1]) if tunes else peak
