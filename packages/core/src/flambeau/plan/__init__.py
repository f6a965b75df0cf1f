"""The plan: every choice of a run, with its reason, in the open."""

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule

__all__ = ["Choice", "Rule"]
