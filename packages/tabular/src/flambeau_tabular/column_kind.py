"""``ColumnKind``: what a column of a table is, and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flambeau.errors import InputError
from flambeau.wording import name_some

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


Override = str | Sequence[Any] | ColumnKind
"""The kind that the user sets for a column; see `flambeau_tabular.columns.infer_kinds`."""


def require_inputs(columns: Mapping[str, tuple[str, str]]) -> None:
    """Check that a column is an input.

    Args:
        columns: Kind and reason of each column.

    Raises:
        InputError: None is.
    """
    if all(kind in UNUSED for kind, _ in columns.values()):
        unused = (f"{name} ({kind}: {reason})" for name, (kind, reason) in sorted(columns.items()))
        raise InputError(
            f"No column is left as an input: {name_some(unused) or 'the table has none'}. Give "
            "another column, or set its kind: kinds={name: 'category'}."
        )
