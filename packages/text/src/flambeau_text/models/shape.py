"""``shape_from``: the sizes of a model from plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from flambeau.errors import ArgumentError, nearest

Shape = TypeVar("Shape")


def shape_from(kind: type[Shape], size: Mapping[str, Any] | None, what: str) -> Shape:
    """The shape with the fields in ``size``, as the plan and an artefact have them.

    Args:
        kind: A dataclass such as `RnnShape`.
        size: The fields that differ from its own values.
        what: Names the model in the message.

    Raises:
        ArgumentError: ``size`` names a field that there is not.
    """
    known = [each.name for each in fields(kind)]  # pyright: ignore[reportArgumentType] a dataclass
    given = dict(size or {})
    for name in given:
        if name not in known:
            raise ArgumentError(f"{what} has no size {name!r}. {nearest(name, known)}")
    return kind(**given)
