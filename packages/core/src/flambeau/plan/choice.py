"""``Choice``: one value of the plan, with why it was chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Source = Literal["rule", "user", "default"]


@dataclass(frozen=True)
class Choice:
    """A value and everything needed to judge and change it.

    Attributes:
        key: Name in the plan ("batch_size").
        value: A plain JSON value.
        reason: One sentence that quotes what was measured.
        evidence: The measured figures behind the reason.
        alternatives: Other values that would have been reasonable.
        confidence: 0..1; below 0.5 a strict plan refuses it.
        override: What to write to change it.
        source: "rule" (decided), "user" (passed in) or "default" (nothing to measure).
    """

    key: str
    value: Any
    reason: str
    evidence: Mapping[str, Any] = field(default_factory=dict[str, Any])
    alternatives: tuple[Any, ...] = ()
    confidence: float = 1.0
    override: str = ""
    source: Source = "rule"
