"""The rules of core; a domain replaces one by contributing a rule with the same key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flambeau.data.facts import Facts
from flambeau.errors import PlanError
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules_machine import MACHINE_RULES
from flambeau.plan.rules_model import MODEL_RULES
from flambeau.plan.rules_task import TASK_RULES
from flambeau.plan.rules_training import OPTIMIZER_RULES, TRAINING_RULES
from flambeau.plan.value_types import TRUE_OR_FALSE


def _architecture(facts: Facts, values: Mapping[str, Any]) -> Choice:
    raise PlanError(
        "No rule chooses an architecture for these data. Pass the name of one, or a module: "
        "Learner(data, model). A domain can contribute a rule for 'architecture'."
    )


def _start(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "start",
        None,
        "The learner does not start from an export.",
        override='Learner(data, start="export")',
        source="default",
    )


def _start_accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
    return None if value is None else "passed to the learner or the data: start=…, like=…."


def _strict(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "strict",
        False,
        "Choices with low confidence are marked with a question mark; a strict plan raises an "
        "error for them.",
        alternatives=(True,),
        source="default",
    )


CORE_RULES: tuple[Rule, ...] = (
    *TASK_RULES,
    # Only a domain can choose an architecture; other rules of core need the key.
    Rule("architecture", (), _architecture, determines="model"),
    Rule("start", (), _start, _start_accepts),
    *MODEL_RULES,
    *TRAINING_RULES,
    *OPTIMIZER_RULES,
    *MACHINE_RULES,
    Rule("strict", (), _strict, type=TRUE_OR_FALSE, changes="fit"),
)
