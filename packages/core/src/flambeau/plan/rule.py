"""``Rule``: how one value of the plan is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flambeau.plan.choice import Choice

Decide = Callable[[Mapping[str, Any], Mapping[str, Any]], Choice]
Accepts = Callable[[Any, Mapping[str, Any], Mapping[str, Any]], str | None]


@dataclass(frozen=True)
class Rule:
    """Decides the choice ``key`` once the choices in ``needs`` are known.

    Attributes:
        key: What it decides.
        needs: Keys that ``decide`` reads from ``values``; it gets these and no others.
        decide: ``decide(facts, values) -> Choice``; a pure function. ``values`` maps each key in
            ``needs`` to its value.
        accepts: ``accepts(value, facts, values)`` for a value that the user gave in the place of
            the rule's: None where something can be made of it, else what it must be, in words
            that go on after "but it must be". None takes any value.
    """

    key: str
    needs: tuple[str, ...]
    decide: Decide
    accepts: Accepts | None = None
