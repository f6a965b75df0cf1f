"""``config_from_values``: builds a model's configuration from plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from flambeau.errors import ArgumentError, did_you_mean

Config = TypeVar("Config")


def config_from_values(
    kind: type[Config], values: Mapping[str, Any] | None, model: str = "The model"
) -> Config:
    """Build a configuration from the values that the plan and an artefact store.

    Args:
        kind: A configuration dataclass such as `RnnConfig`.
        values: Fields that differ from their defaults, by name.
        model: The model's name in error messages.

    Raises:
        ArgumentError: ``values`` has an unknown field.
    """
    known = [each.name for each in fields(kind)]  # pyright: ignore[reportArgumentType] a dataclass
    given = dict(values or {})
    for name in given:
        if name not in known:
            raise ArgumentError(f"{model} has no setting {name!r}. {did_you_mean(name, known)}")
    return kind(**given)
