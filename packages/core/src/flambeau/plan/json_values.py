"""Conversion of a plan's values and choices to and from JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import PurePath
from typing import Any, cast

import numpy as np
import torch

from flambeau.checked_arguments import as_plain
from flambeau.errors import PlanError
from flambeau.plan.choice import Choice


def plain(value: object, what: str) -> Any:
    """Return a copy of ``value`` that consists of None, bool, int, float, str, list and dict.

    Tuples become lists; paths and ``torch.device`` become strings, since users pass them as
    choices, and NumPy scalars become Python values. Other types, such as arrays and tensors, are
    refused: they are usually mistakes.

    Args:
        value: A value for the plan.
        what: What ``value`` is, for the error message: ``"the value of 'lr'"``.

    Raises:
        PlanError: ``value`` has another type, or contains one; the message says where.
    """
    return _copy(value, what, "")


def as_python(value: object) -> Any:
    """Return ``value`` with Python values in place of other scalars, also in lists and dicts.

    These are scalars of NumPy and torch, arrays without dimensions, fractions and decimals.
    """
    if isinstance(value, list | tuple):
        return [as_python(item) for item in cast("list[object]", value)]
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value)
        return {key: as_python(item) for key, item in entries.items()}
    return as_plain(value)


def checked(choice: Choice) -> Choice:
    """Return the choice with JSON values and with ``override`` filled in.

    Raises:
        PlanError: The value, an alternative or the evidence cannot be saved as JSON.
    """
    value = plain(choice.value, f"the value of {choice.key!r}")
    others = plain(choice.alternatives, f"the alternatives of {choice.key!r}")
    return replace(
        choice,
        value=value,
        evidence=plain(choice.evidence, f"the evidence of {choice.key!r}"),
        alternatives=tuple(others),
        override=choice.override or how_to_override(choice.key, others[0] if others else value),
    )


def how_to_override(key: str, value: Any) -> str:
    """Return the code that sets ``key`` to ``value``."""
    literal = json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
    return f'Learner(data, choices={{"{key}": {literal}}})'


def as_json(choice: Choice) -> dict[str, Any]:
    """Return the choice as JSON values."""
    content = {entry.name: getattr(choice, entry.name) for entry in fields(Choice)}
    return plain(content, f"the choice of {choice.key!r}")


def from_json(entry: object) -> Choice:
    """Return the choice that ``as_json`` converted.

    Raises:
        PlanError: Fields are missing, unknown or of the wrong type.
    """
    names = [part.name for part in fields(Choice)]
    content = cast("dict[str, Any]", entry) if isinstance(entry, dict) else {}
    unknown = [name for name in content if name not in names]
    if unknown or not {"key", "value", "reason"} <= content.keys():
        raise PlanError(
            f"A choice has the fields {', '.join(content) or '(none)'}; it needs key, value and "
            f"reason, and may have {', '.join(names[3:])}. The content is damaged or was written "
            "by another version."
        )
    if content.get("source", "rule") not in ("rule", "user", "default"):
        raise PlanError(
            f"The choice {content['key']!r} has the source {content['source']!r}; it must be rule, "
            "user or default."
        )
    for name, (fits, wanted) in _FIELDS.items():
        if name in content and not fits(content[name]):
            raise PlanError(
                f"The {name} of the choice {content['key']!r:.60} is {content[name]!r:.60}, but it "
                f"must be {wanted}. The content is damaged or was written by another version."
            )
    arguments: dict[str, Any] = {**content}
    arguments["alternatives"] = tuple(content.get("alternatives", ()))
    return checked(Choice(**arguments))


def _is_share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= 1


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


# Types of a saved choice's fields; "value" may be any JSON value.
_FIELDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "key": (_is_text, "text"),
    "reason": (_is_text, "text"),
    "override": (_is_text, "text"),
    "evidence": (lambda value: isinstance(value, Mapping), "an object"),
    "alternatives": (lambda value: isinstance(value, list | tuple), "a list"),
    "confidence": (_is_share, "a number from 0 to 1"),
}


def _copy(value: object, what: str, place: str) -> Any:
    if isinstance(value, np.generic):
        value = cast("object", value.item())
    kind = type(value)
    if value is None or kind in (bool, int, str):
        return value
    if kind is float:
        number = cast(float, value)
        if not math.isfinite(number):
            raise _refusal(what, place, f"{number}, which JSON cannot hold", "Use a finite number")
        return number
    if isinstance(value, list | tuple):
        items = cast("list[object]", value)
        return [_copy(item, what, f"{place}[{i}]") for i, item in enumerate(items)]
    if isinstance(value, Mapping):
        entries = cast("Mapping[object, object]", value)
        for key in entries:
            if not isinstance(key, str):
                advice = "Use strings as keys"
                raise _refusal(what, place, f"the key {key!r} ({type(key).__name__})", advice)
        return {str(key): _copy(item, what, f"{place}[{key!r}]") for key, item in entries.items()}
    if isinstance(value, torch.device | PurePath):
        return str(value)
    as_json = getattr(value, "as_json", None)
    if callable(as_json) and not isinstance(value, type):
        return _copy(as_json(), what, place)
    found = f"{value!r:.80} of type {kind.__module__}.{kind.__qualname__}"
    advice = "Use None, bool, int, float, str, or lists and dicts of them"
    raise _refusal(what, place, found, advice)


def _refusal(what: str, place: str, found: str, advice: str) -> PlanError:
    where = f" at {place}" if place else ""
    return PlanError(
        f"A plan is saved as JSON, but {what}{where} is {found}. {advice}; "
        "pass objects such as tensors and functions as arguments of the Learner."
    )
