"""The plan: every choice of a run, with its reason."""

from flambeau.plan.choice import Choice
from flambeau.plan.core_rules import CORE_RULES
from flambeau.plan.order import combine, dependents, order
from flambeau.plan.plan import Plan
from flambeau.plan.rule import Rule
from flambeau.plan.rules_machine import precision_rule
from flambeau.plan.rules_training import lr_rule

__all__ = [
    "CORE_RULES",
    "Choice",
    "Plan",
    "Rule",
    "combine",
    "dependents",
    "lr_rule",
    "order",
    "precision_rule",
]
