"""Core rules for the settings of the optimizer besides lr and weight decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

from flambeau.data.facts import Facts
from flambeau.phases.setting_names import OPTIMIZER_SETTINGS
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Accepts, Decide, Rule
from flambeau.plan.value_types import ValueType, is_number

_EXAMPLES: Mapping[str, Any] = {
    "alpha": 0.9,
    "betas": [0.9, 0.95],
    "eps": 1e-6,
    "momentum": 0.9,
    "nesterov": True,
}


def _decide(key: str) -> Decide:
    def decide(facts: Facts, values: Mapping[str, Any]) -> Choice:
        optimizer = values["optimizer"]
        has_setting = key in OPTIMIZER_SETTINGS.get(optimizer, (key,))
        reason = "torch's default." if has_setting else f"{optimizer} has no {key}."
        return Choice(key, None, reason, alternatives=(_EXAMPLES[key],), source="default")

    return decide


def _accepts(key: str) -> Accepts:
    def accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
        optimizer = values["optimizer"]
        known = OPTIMIZER_SETTINGS.get(optimizer)
        if value is None or known is None:
            return None
        if key not in known:
            having = [name for name, keys in OPTIMIZER_SETTINGS.items() if key in keys]
            return (
                f"None: the optimizer {optimizer!r} has no {key}. Optimizers that have it: "
                f"{', '.join(having)}."
            )
        if key == "nesterov" and value and not values["momentum"]:
            return 'False without momentum. Add it: choices={"momentum": 0.9, "nesterov": True}.'
        return None

    return accepts


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value < 1


def _is_betas(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(cast("list[Any]", value)) == 2
        and all(map(_is_share, cast("list[Any]", value)))
    )


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


def _or_none(description: str, accepts: Callable[[Any], bool]) -> ValueType:
    return ValueType(
        f"None (torch's default) or {description}", lambda value: value is None or accepts(value)
    )


_TYPES: Mapping[str, ValueType] = {
    "momentum": _or_none("a number from 0 to below 1.", _is_share),
    "nesterov": _or_none("True or False.", _is_bool),
    "betas": _or_none("two numbers from 0 to below 1.", _is_betas),
    "eps": _or_none("a finite number above 0.", _is_positive),
    "alpha": _or_none("a number from 0 to below 1.", _is_share),
}

OPTIMIZER_RULES = tuple(
    Rule(
        key,
        ("optimizer", "momentum") if key == "nesterov" else ("optimizer",),
        _decide(key),
        _accepts(key),
        type=kind,
    )
    for key, kind in _TYPES.items()
)
