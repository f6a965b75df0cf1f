"""``Rule``: how one value of the plan is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from flambeau.plan.choice import Choice

Decide = Callable[[Mapping[str, Any], Mapping[str, Any]], Choice]


@dataclass(frozen=True)
class Rule:
    """Decides the choice ``key`` once the choices in ``needs`` are known.

    Attributes:
        key: What it decides.
        needs: Keys that ``decide`` reads from ``values``; it gets these and no others.
        decide: ``decide(facts, values) -> Choice``; a pure function. ``values`` maps each key in
            ``needs`` to its value.
    """

    key: str
    needs: tuple[str, ...]
    decide: Decide
