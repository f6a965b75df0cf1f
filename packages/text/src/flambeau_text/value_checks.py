"""Validators of the plan's values that both kinds of text data have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flambeau.data.facts import Facts
from flambeau.errors import FlambeauError

Values = Mapping[str, Any]


def whole_number(least: int, unit: str) -> Any:
    """Return a validator of a plan value that accepts whole numbers from ``least`` on."""

    def accepts(value: Any, facts: Facts, values: Values) -> str | None:
        is_valid = type(value) is int and value >= least
        return None if is_valid else f"a whole number of {unit}, at least {least}."

    return accepts


def one_of(names: Sequence[str]) -> Any:
    """Return a validator of a plan value that accepts some names."""

    def accepts(value: Any, facts: Facts, values: Values) -> str | None:
        return None if value in names else f"one of {', '.join(names)}."

    return accepts


def from_json(build: Any, what: str, *, none: bool) -> Any:
    """Return a validator that accepts values from which ``build`` can rebuild an object."""

    def accepts(value: Any, facts: Facts, values: Values) -> str | None:
        if value is None and none:
            return None
        if not isinstance(value, Mapping):
            return f"{what}, or the values of its as_json()."
        try:
            build(value)
        except (FlambeauError, TypeError) as error:
            return f"{what}: {error}"
        return None

    return accepts
