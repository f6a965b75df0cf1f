"""Rules of the plan that language models and text classification share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flambeau.data.facts import Facts
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule


def data_device_rule(kind: str) -> Rule:
    """Return the rule that keeps token ids on the CPU.

    Args:
        kind: What the data are, in the plural, for the plan: "language models".
    """

    def decide(facts: Facts, values: Mapping[str, Any]) -> Choice:
        return Choice(
            "data_device",
            "cpu",
            "Token ids are small and fast to transfer.",
            override=f"There is no alternative for {kind}.",
            source="default",
        )

    return Rule("data_device", ("device",), decide)
