"""``choose_within_budget``: values of the plan that use a time budget.

Too little time: a rule lists cheaper values of its key (``Rule.cheaper``): smaller images, a
smaller network. For some of these values a few steps are timed on a part of the data. The first
value with which enough of the plan's epochs fit into the budget is chosen.

Time to spare: the rule for "epochs" gives the number up to which a longer run is useful
(``budget.LONGEST``). As many as fit into the budget become the plan's epochs, and rules that depend
on them, such as a stronger augmentation for a longer run, decide again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flambeau.data.data import Data
from flambeau.device import num_threads
from flambeau.errors import InputError, PlanError
from flambeau.plan import Plan
from flambeau.plan.choice import Choice
from flambeau.plan.json_values import how_to_override
from flambeau.training.components import Components
from flambeau.training.options import TrainingOptions
from flambeau.tuning.auto_run import AutoRun, from_rank_zero
from flambeau.tuning.budget import EVALUATION, KEPT_BACK, LONGEST
from flambeau.tuning.speed import measure_speed

Build = Callable[[Data, Plan], Components]
"""``build(data, plan)`` returns a new model, task and loaders for the data and the plan."""

ENOUGH = 0.5
"""Share of the planned epochs that suffices: further training then improves the result little.
For photographs, a few minutes on two cores gave accuracy 0.42 with 128 pixels (half an epoch) and
0.65 with 48 pixels."""

EVIDENCE = "epochs_within_budget"
"""Entry in the evidence of a choice that was made for a budget; such a choice is not repeated."""

# Share of the budget for the timed steps of one candidate, and after which no other one is timed.
_TIMED_SHARE, _MEASURING_SHARE = 0.01, 0.1
_TRAIN_BATCHES, _VALID_BATCHES = 2, 1


@dataclass(frozen=True)
class Cost:
    """The time that a run with a candidate's values takes.

    Attributes:
        preparation_s: Seconds before the first step, for reading and decoding all data.
        epoch_s: Seconds per epoch, with its evaluation.
    """

    preparation_s: float
    epoch_s: float

    def epochs_within(self, seconds: float) -> float:
        """Return how many epochs fit into a budget."""
        left_s = max(0.0, seconds * (1 - KEPT_BACK) - self.preparation_s)
        return left_s / max(self.epoch_s, 1e-9)


def choose_within_budget(
    plan: Plan, auto: AutoRun, data: Data, options: TrainingOptions, build: Build
) -> Plan:
    """Return the plan with values that use the budget of ``auto``.

    Only values that a rule (not the user) decided change, and only in the first fit with a budget.

    Args:
        plan: The learner's plan, of which nothing is built yet.
        auto: The run, whose time budget has already started.
        data: The learner's data; a ``subset`` of them is used for timing.
        options: The training options of a step.
        build: Builds model, task and loaders of a candidate's plan.
    """
    keys = [
        key
        for key, rule in plan.rules.items()
        if rule.cheaper is not None and plan[key].source != "user"
    ]
    if any(EVIDENCE in plan[key].evidence for key in (*keys, "epochs")):
        return plan
    groups = _groups(plan, keys, data.facts()) if keys else []
    keys = [key for key in keys if len({p.values[key] for group in groups for p in group}) > 1]
    if not keys and longest_run(plan) <= plan.values["epochs"]:
        return plan
    rows = _some_rows(data, plan)
    try:
        few, some = (data.subset(rows(share)) for share in (0.5, 1.0))
    except InputError:  # the class has no subset
        return plan
    timer = _Timer(auto, data, options, build, few, some)
    chosen, figures = plan, dict[str, float]()
    for group in groups if keys else ():
        index = first_enough(len(group), lambda index, group=group: timer.is_enough(group[index]))
        chosen, figures = group[index], timer.figures(group, keys)
        if timer.is_enough(chosen):
            break
    minutes = (auto.budget_s or 0.0) / 60
    found = _with_reasons(plan, chosen, keys, figures, minutes)
    if longest_run(found) <= found.values["epochs"] or not timer.may_time(chosen):
        return found
    return _lengthened(found, timer.epochs(chosen), minutes)


def longest_run(plan: Plan) -> int:
    """Return up to how many epochs a run with a time budget is useful.

    This is the plan's number of epochs, or a larger one if the rule that chose it gives one and
    the run is not measured in steps.
    """
    epochs = plan["epochs"]
    if plan.values.get("steps") is not None:
        return int(epochs.value)
    return int(epochs.evidence.get(LONGEST, epochs.value))


def first_enough(n: int, is_enough: Callable[[int], bool]) -> int:
    """Return the index of the first candidate for which ``is_enough``, else of the last one.

    Candidates are ordered by descending cost. The first one is tried, then the others by bisection;
    the returned one is tried too.

    >>> tried = []
    >>> first_enough(6, lambda index: tried.append(index) or index >= 4), tried
    (4, [0, 3, 5, 4])
    """
    if is_enough(0):
        return 0
    low, high = 1, n - 1  # the answer, if there is one, is in low..high
    tried = {0}
    while low < high:
        middle = (low + high) // 2
        tried.add(middle)
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    if low < n and low not in tried:
        is_enough(low)
    return min(low, n - 1)


def _groups(plan: Plan, keys: Sequence[str], facts: Mapping[str, Any]) -> list[list[Plan]]:
    """Return candidates: a group, by descending cost, per combination of all keys but the last."""
    key, *others = keys
    cheaper = plan.rules[key].cheaper
    values = () if cheaper is None else cheaper(facts, plan.values)
    variants = [plan, *(found for v in values if (found := _with_value(plan, key, v)) is not None)]
    if not others:
        return [variants]
    return [group for variant in variants for group in _groups(variant, others, facts)]


def _with_value(plan: Plan, key: str, value: Any) -> Plan | None:
    """Return the plan with ``value`` for ``key``; None if a choice of the user excludes it."""
    try:
        changed = plan.override(key, value)
    except PlanError:
        return None
    return changed.with_choice(replace(plan[key], value=value))


def _named(plan: Plan, keys: Sequence[str]) -> str:
    return ", ".join(f"{key} {plan.values[key]}" for key in keys)


def _with_reasons(
    before: Plan, chosen: Plan, keys: Sequence[str], figures: Mapping[str, float], minutes: float
) -> Plan:
    """Return the chosen plan with reasons and measured figures in the choices of ``keys``."""
    measured = "; ".join(f"{epochs:.3g} epochs at {name}" for name, epochs in figures.items())
    needed = ENOUGH * chosen.values["epochs"]
    for key in keys:
        choice: Choice = before[key]
        words = f"{choice.reason} Measured for {minutes:.3g} min: {measured}; "
        if chosen.values[key] == choice.value:
            words += f"{needed:.3g} are enough."
            chosen = chosen.with_choice(replace(choice, reason=words))
        else:
            words = (
                f"It replaces {choice.value}. It is the largest value with which {needed:.3g} "
                f"epochs fit into {minutes:.3g} min, or else the smallest. Measured: {measured}."
            )
            chosen = chosen.with_choice(
                replace(
                    choice,
                    value=chosen.values[key],
                    reason=words,
                    alternatives=(choice.value,),
                    override=how_to_override(key, choice.value),
                )
            )
        evidence = {**choice.evidence, EVIDENCE: dict(figures), "minutes": minutes}
        chosen = chosen.with_choice(replace(chosen[key], evidence=evidence))
    return chosen


def _lengthened(plan: Plan, fitting: float, minutes: float) -> Plan:
    """Return the plan with as many epochs as fit and are useful, if those are more than planned."""
    choice, epochs = plan["epochs"], min(longest_run(plan), math.floor(fitting))
    if epochs <= choice.value:
        return plan
    longer = replace(
        choice,
        value=epochs,
        reason=f"{fitting:.3g} epochs fit into {minutes:.3g} min; up to {longest_run(plan)} are "
        f"useful; without a budget: {choice.reason}",
        evidence={**choice.evidence, EVIDENCE: round(fitting, 2), "minutes": minutes},
        alternatives=(choice.value,),
        override=how_to_override("epochs", choice.value),
    )
    # "override" lets the rules that depend on the epochs decide again.
    return plan.override("epochs", longer)


def _some_rows(data: Data, plan: Plan) -> Callable[[float], dict[str, list[int]]]:
    """Return a function: share of the rows for timing → row numbers, spread over each part."""
    size = int(plan.values["batch_size"])
    sizes = {"train": _TRAIN_BATCHES * size, "valid": _VALID_BATCHES * size}

    def rows(share: float) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for part, most in sizes.items():
            known = data.split.part(part)
            n = min(len(known), max(2, round(share * most)))
            found[part] = [int(known[index * len(known) // n]) for index in range(n)]
        return found

    return rows


class _Timer:
    """Times candidates on a part of the data; every rank uses the times of rank 0."""

    def __init__(
        self,
        auto: AutoRun,
        data: Data,
        options: TrainingOptions,
        build: Build,
        few: Data,
        some: Data,
    ) -> None:
        self.auto, self.options, self.build = auto, options, build
        self.data, self.few, self.some = data, few, some
        self._started_s = auto.elapsed_s
        self._epochs: dict[int, float] = {}  # by identity of the plan

    def is_enough(self, plan: Plan) -> bool:
        """Return whether enough of the plan's epochs fit into the remaining budget.

        If the measurements have already taken too much of the budget, it returns False without
        measuring.
        """
        return self.may_time(plan) and self.epochs(plan) >= ENOUGH * plan.values["epochs"]

    def may_time(self, plan: Plan) -> bool:
        """Return whether the epochs of the plan are known, or there is time to measure them."""
        if id(plan) in self._epochs or not self._epochs:
            return True
        spent_s = from_rank_zero(self.auto.elapsed_s - self._started_s)
        return spent_s <= _MEASURING_SHARE * (self.auto.budget_s or 0.0)

    def epochs(self, plan: Plan) -> float:
        """Return how many epochs fit into the remaining budget; they are measured once."""
        if id(plan) not in self._epochs:
            cost = self.cost(plan)
            left_s = from_rank_zero((self.auto.budget_s or 0.0) - self.auto.elapsed_s)
            self._epochs[id(plan)] = cost.epochs_within(left_s)
        return self._epochs[id(plan)]

    def figures(self, plans: Sequence[Plan], keys: Sequence[str]) -> dict[str, float]:
        """Return how many epochs fit into the budget, for each of ``plans`` that was timed."""
        timed = [plan for plan in plans if id(plan) in self._epochs]
        return {_named(plan, keys): round(self._epochs[id(plan)], 2) for plan in timed}

    def cost(self, plan: Plan) -> Cost:
        """Return the cost of a run with this plan on all data, extrapolated from a part."""
        clock, split = self.auto.clock, self.data.split
        marks_s = [clock()]
        with num_threads(plan.values["num_threads"]):
            # Two sizes: what building costs beside the data (the model) does not grow with them.
            self.build(self.few, plan)
            marks_s.append(clock())
            components = self.build(self.some, plan)
            marks_s.append(clock())
            limit_s = _TIMED_SHARE * (self.auto.budget_s or 0.0)
            speed = measure_speed(components, self.options, limit_s, clock=clock)
        few, some = (len(d.split.train) + len(d.split.valid) for d in (self.few, self.some))
        more_s = marks_s[2] - 2 * marks_s[1] + marks_s[0]
        row_s = max(0.0, more_s / (some - few)) if some > few else 0.0
        size = int(plan.values["batch_size"]) * self.options.accumulate
        train_s = -(-len(split.train) // size) * speed.step_s
        evaluated = len(split.valid) / max(1, len(self.some.split.valid))
        evaluation_s = min(speed.evaluation_s * evaluated, train_s * EVALUATION / (1 - EVALUATION))
        preparation_s = row_s * (len(split.train) + len(split.valid))
        return from_rank_zero(Cost(preparation_s, train_s + evaluation_s))
