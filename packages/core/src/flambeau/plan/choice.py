"""``Choice``: one value of the plan and the reason for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Source = Literal["rule", "user", "default"]


@dataclass(frozen=True)
class Choice:
    """One value of the plan, with its reason and a way to change it.

    Attributes:
        key: Name in the plan ("batch_size").
        value: A plain JSON value.
        reason: Why the value was chosen, with the figures that were measured.
        evidence: The figures behind the reason, by name.
        alternatives: Other reasonable values.
        confidence: From 0 to 1; a strict plan raises an error for values below 0.5.
        override: Code that changes the value.
        source: "rule" (a rule decided), "user" (the user passed it) or "default" (the rule has
            nothing to decide from).
    """

    key: str
    value: Any
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])
    alternatives: tuple[Any, ...] = ()
    confidence: float = 1.0
    override: str = ""
    source: Source = "rule"
