"""``Rule``: how one value of the plan is decided."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from flambeau.plan.choice import Choice
from flambeau.plan.value_types import ValueType

Decide = Callable[[Mapping[str, Any], Mapping[str, Any]], Choice]
Accepts = Callable[[Any, Mapping[str, Any], Mapping[str, Any]], str | None]

Changes = Literal["rebuild", "apply", "fit"]
"""When a value may change.

- "rebuild": model, task or data sets are built from it, so it changes with a new learner.
- "apply": what is built takes it over before the next fit (``BuiltPlan.apply``).
- "fit": each fit may have its own.
"""


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
            that follow "but it must be". None takes any value of the type.
        type: The values that the key takes, whatever the data are; None takes any.
        changes: When the value may change, see ``Changes``; None is "rebuild".
        of_machine: Whether a resumed run may take the value of another machine.

    A domain's rule that replaces one of core keeps its ``type``, ``changes`` and ``of_machine``
    where it does not give its own.
    """

    key: str
    needs: tuple[str, ...]
    decide: Decide
    accepts: Accepts | None = None
    type: ValueType | None = None
    changes: Changes | None = None
    of_machine: bool = False
