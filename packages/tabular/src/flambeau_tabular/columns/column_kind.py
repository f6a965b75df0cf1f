"""``ColumnKind``: the kind of a column, with its reason and the numbers that it is based on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Kind = Literal[
    "number", "category", "ordered", "boolean", "date", "text", "id", "constant", "empty"
]

UNUSED: tuple[Kind, ...] = ("id", "constant", "empty")
"""Kinds whose columns are not inputs of the model."""


@dataclass(frozen=True)
class ColumnKind:
    """The kind of a column, and why.

    Attributes:
        kind: "number", "category", "ordered", "boolean", "date" or "text"; columns of the kinds
            "id", "constant" and "empty" are not used.
        reason: Why, as a sentence with the measured numbers.
        evidence: These numbers, by name.
        confidence: From 0 to 1; below 0.5 the kind is doubtful.
        levels: Text of the categories of an ordered column, in their order.
        style: How text or whole numbers are read as dates: "iso", a ``strptime`` format, or a unit
            since 1970 ("s", "ms", "us", "ns").
    """

    kind: Kind
    reason: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    confidence: float = 1.0
    levels: tuple[str, ...] | None = None
    style: str = "iso"
