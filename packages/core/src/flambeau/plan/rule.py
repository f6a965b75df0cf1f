"""``Rule``: a function that decides one value of the plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

from flambeau.errors import PlanError
from flambeau.plan.choice import Choice
from flambeau.plan.value_types import ValueType

# The first argument is ``Facts``, or a domain's subclass of it.
Decide = Callable[[Any, Mapping[str, Any]], Choice]
Accepts = Callable[[Any, Any, Mapping[str, Any]], str | None]

Cheaper = Callable[[Any, Mapping[str, Any]], Sequence[Any]]
"""``cheaper(facts, values) -> [value, …]``; ``values`` has all values of the plan."""

Extend = Callable[[Choice, Any, Mapping[str, Any]], Choice]
"""``decide(base, facts, values) -> Choice``, where ``base`` is the choice of core's rule."""

Changes = Literal["rebuild", "apply", "fit"]
"""When a change of the value takes effect.

- "rebuild": in a new learner; model, task or data sets are built from the value.
- "apply": before the next fit, in the objects that exist already (``BuiltPlan.apply``).
- "fit": in each fit separately.
"""

Determines = Literal["preprocessor", "model"]
"""The part of an export that depends on the value: data that are read like an export
(``like="export"``) keep the values that determine its preprocessor; a learner that starts from it
(``Learner(data, start="export")``) keeps these and those that determine its model."""


@dataclass(frozen=True)
class Rule:
    """Decides the choice ``key`` from facts and from the choices in ``needs``.

    Attributes:
        key: The key that it decides.
        needs: Keys that ``decide`` reads from ``values``; it gets only these.
        decide: ``decide(facts, values) -> Choice``; a pure function. ``values`` maps each key in
            ``needs`` to its value.
        accepts: ``accepts(value, facts, values)`` checks a value that the user set: it returns None
            if the value is valid, otherwise a phrase that follows "but it must be" in the message.
            None accepts any value of ``type``.
        type: The valid values of the key, independent of the data; None accepts any.
        changes: When a change takes effect, see ``Changes``; None is "rebuild".
        of_machine: Whether the value depends on the machine, so that a resumed run may change it.
        determines: The part of an export that depends on the value, see ``Determines``; None if
            the value is decided anew for other data.
        cheaper: ``cheaper(facts, values) -> [value, …]``: values that cost less time than the one
            in ``values``, by descending cost. ``fit_auto`` takes the first at which enough epochs
            fit into its budget; None keeps the value under every budget.
        extend: Set by ``Rule.extending``.

    A domain's rule that replaces one of core inherits its ``type``, ``changes``, ``of_machine``,
    ``determines`` and ``cheaper`` unless it sets them. ``Rule.extending`` makes one that starts
    from core's choice instead.
    """

    key: str
    needs: tuple[str, ...]
    decide: Decide
    accepts: Accepts | None = None
    type: ValueType | None = None
    changes: Changes | None = None
    of_machine: bool = False
    determines: Determines | None = None
    cheaper: Cheaper | None = None
    extend: Extend | None = None

    @classmethod
    def extending(
        cls,
        key: str,
        decide: Extend,
        *,
        needs: tuple[str, ...] = (),
        accepts: Accepts | None = None,
        type: ValueType | None = None,
    ) -> Self:
        """Return a domain's rule that starts from the choice of core's rule for ``key``.

        Args:
            key: A key that core decides.
            decide: ``decide(base, facts, values) -> Choice``: returns ``base``, which core chose,
                or another choice. ``values`` has the keys in ``needs`` and those that core's rule
                needs.
            needs: Keys that ``decide`` reads in addition.
            accepts: As in ``Rule``; None keeps core's.
            type: As in ``Rule``; None keeps core's.

        Example:
            >>> from dataclasses import replace
            >>> def halve(base, facts, values):
            ...     return replace(base, value=base.value / 2, reason="Half of the usual rate.")
            >>> rule = Rule.extending("lr", halve)
        """
        return cls(key, needs, _without_base, accepts, type, extend=decide)


def _without_base(facts: Any, values: Mapping[str, Any]) -> Choice:
    raise PlanError(
        "A rule made by Rule.extending decides only as part of a domain, together with the rule "
        "that it extends: flambeau.plan.combine(CORE_RULES, [rule])."
    )
