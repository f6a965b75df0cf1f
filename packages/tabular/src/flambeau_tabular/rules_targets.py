"""The plan's rules for several targets of different kinds: their tasks, scales and loss factors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules_task import with_readings
from flambeau.wording import name_some
from flambeau_tabular.facts import TabularFacts
from flambeau_tabular.target_columns import SEVERAL

Values = Mapping[str, Any]


def task_of_several(facts: TabularFacts, n: int) -> Choice:
    """Return the task of several targets in ``n`` train rows."""
    parts = facts.get("several_targets", {})
    choice = Choice(
        "task",
        SEVERAL,
        f"{len(parts):,} targets in {n:,} train rows, each with its own task and loss: "
        f"{', '.join(parts)}.",
        evidence={"n_train": n, "targets": len(parts)},
        override=f'target="{next(iter(parts))}" predicts one of them',
    )
    return with_readings(choice, facts)


_SEVERAL = 'Name several targets: target=["price", "rooms"], or --target price,rooms.'


def _target_tasks(facts: TabularFacts, values: Values) -> Choice:
    parts = facts.get("several_targets", {})
    if not parts:
        reason = "There is one task, which 'task' names."
        return Choice("target_tasks", None, reason, source="default", override=_SEVERAL)
    tasks = {name: each["task"] for name, each in parts.items()}
    number = next((name for name, task in tasks.items() if task != "classification"), None)
    name, other = (next(iter(tasks)), "regression") if number is None else (number, "gamma")
    return Choice(
        "target_tasks",
        tasks,
        " ".join(f"{name}: {_described(each)}." for name, each in parts.items()),
        evidence={name: each.get("target_distinct") for name, each in parts.items()},
        alternatives=("regression", "classification", "quantile_regression", "poisson"),
        override=f'TabularOptions(target_tasks={{"{name}": "{other}"}}), on the command line '
        f"--target-tasks {name}={other}",
    )


def _described(facts: Mapping[str, Any]) -> str:
    if facts["task"] == "classification":
        classes = facts.get("class_names", ())
        text = f"{len(classes):,} classes ({name_some(map(repr, classes), 3)})"
    else:
        low, high = facts.get("target_min", 0.0), facts.get("target_max", 0.0)
        text = f"numbers from {low:g} to {high:g}"
    missing = facts.get("target_missing")
    return text + (f", missing in {missing:,} train rows" if missing else "")


def _target_tasks_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    own = {name: each["task"] for name, each in facts.get("several_targets", {}).items()} or None
    if value == own:
        return None
    return (
        "the tasks of the data, because they decide how targets are read. Set them when you create "
        'the data: TabularOptions(target_tasks={"price": "gamma"}).'
    )


def _loss_factors(facts: TabularFacts, values: Values) -> Choice:
    parts = facts.get("several_targets", {})
    if not parts:
        reason = "There is one loss."
        return Choice("loss_factors", None, reason, source="default", override=_SEVERAL)
    name = next(iter(parts))
    return Choice(
        "loss_factors",
        dict.fromkeys(parts, 1.0),
        "The mean loss of each target counts alike: numbers are standardised, and classes are "
        "scored by log-likelihood, so that all are of the size 1 at first.",
        evidence={"targets": len(parts)},
        override=f'choices={{"loss_factors": {{"{name}": 2.0}}}}',
    )


def _loss_factors_accept(value: Any, facts: TabularFacts, values: Values) -> str | None:
    parts = facts.get("several_targets", {})
    if value is None or not parts:
        return None if value is None and not parts else "None, because there is one loss."
    is_factors = isinstance(value, Mapping) and all(
        name in parts and type(factor) in (int, float) and 0 < factor < math.inf
        for name, factor in value.items()
    )
    if is_factors:
        return None
    return f"a factor above 0 for some of the targets {', '.join(parts)}: {{name: 2.0}}."


def logs_of(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the logarithms that all train targets have."""
    low = facts.get("target_min", -1)
    return () if low < 0 else ("log", "log1p") if low > 0 else ("log1p",)


def _ways_of(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Return how the numbers of one of several targets may be scaled, first the default."""
    if facts["task"] == "classification":
        return ("labels",)
    scaled = facts["task"] in ("regression", "quantile_regression")
    return ("standard", "as_is", *logs_of(facts)) if scaled else ("as_is",)


def ways_accept(value: Any, facts: TabularFacts) -> str | None:
    """Return what "targets" has to be for several targets; None if ``value`` is."""
    parts = facts.get("several_targets", {})
    is_whole = isinstance(value, Mapping) and set(value) == set(parts)
    if is_whole and all(value[name] in _ways_of(each) for name, each in parts.items()):
        return None
    shown = ", ".join(f"{name}: {' or '.join(_ways_of(each))}" for name, each in parts.items())
    return f"a mapping with one way for each target ({shown})."


def targets_of_several(facts: TabularFacts) -> Choice:
    """Return how each of several targets is scaled."""
    parts = facts.get("several_targets", {})
    chosen = {name: _ways_of(each)[0] for name, each in parts.items()}
    scaled = [name for name, way in chosen.items() if way == "standard"]
    reason = "Each target is used as its task needs it."
    if scaled:
        reason = (
            f"Standardised to mean 0 and standard deviation 1 over the train rows that have them: "
            f"{name_some(scaled)}; predictions and metrics are in the units of the target."
        )
    others = {name: _ways_of(each)[1:] for name, each in parts.items() if _ways_of(each)[1:]}
    return Choice(
        "targets",
        chosen,
        reason,
        evidence={"n_train": facts["n_train"]},
        alternatives=tuple({**chosen, name: ways[-1]} for name, ways in list(others.items())[:1]),
        override=f'choices={{"targets": {chosen}}}',
    )


TARGET_RULES = (
    Rule("target_tasks", (), _target_tasks, accepts=_target_tasks_accept),
    Rule("loss_factors", (), _loss_factors, accepts=_loss_factors_accept),
)
