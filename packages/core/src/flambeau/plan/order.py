"""The order in which rules decide, and what hangs on what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from flambeau.errors import PlanError, nearest
from flambeau.plan.rule import Rule


def combine(base: Sequence[Rule], own: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules of ``base``, each replaced by that of ``own`` with the same key, then the new ones.

    This is how a domain changes a choice that core makes: it contributes a rule of the same key.

    Raises:
        PlanError: Two rules of ``base``, or two of ``own``, decide one key.
    """
    replaced = _by_key(own)
    kept = [replaced.pop(key, rule) for key, rule in _by_key(base).items()]
    return (*kept, *replaced.values())


def order(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """The same rules, each after those it needs, else in the order given.

    Raises:
        PlanError: Two rules decide one key, a need has no rule, or needs run in a circle.
    """
    by_key = _by_key(rules)
    ordered: dict[str, Rule] = {}
    path: list[str] = []

    def visit(key: str) -> None:
        if key in ordered:
            return
        if key in path:
            circle = " → ".join([*path[path.index(key) :], key])
            raise PlanError(
                f"The rules need each other in a circle: {circle}. None of them can decide first; "
                "take one of these keys out of the needs of its rule."
            )
        path.append(key)
        for need in by_key[key].needs:
            if need not in by_key:
                raise PlanError(
                    f"The rule for {key!r} ({name_of(by_key[key])}) needs {need!r}, which no rule "
                    f"decides. {nearest(need, by_key)}"
                )
            visit(need)
        path.pop()
        ordered[key] = by_key[key]

    for key in by_key:
        visit(key)
    return tuple(ordered.values())


def dependents(rules: Sequence[Rule], key: str, fixed: Iterable[str] = ()) -> frozenset[str]:
    """Keys whose rule reads ``key``, directly or through others.

    Args:
        rules: In the order that ``order`` gives.
        key: What changes.
        fixed: Keys that no rule decides because the user did: they neither change nor pass a
            change on.
    """
    stays = set(fixed)
    changed = {key}
    for rule in rules:
        if rule.key not in stays and not changed.isdisjoint(rule.needs):
            changed.add(rule.key)
    return frozenset(changed - {key})


def name_of(rule: Rule) -> str:
    """Where the rule's function stands, for messages: ``package.module.function``."""
    decide = rule.decide
    module = getattr(decide, "__module__", type(decide).__module__)
    return f"{module}.{getattr(decide, '__qualname__', type(decide).__qualname__)}"


def _by_key(rules: Iterable[Rule]) -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    for rule in rules:
        if rule.key in found:
            raise PlanError(
                f"Two rules decide {rule.key!r}: {name_of(found[rule.key])} and {name_of(rule)}. "
                "Keep one. A domain that means to replace a rule of core contributes one of the "
                "same key; flambeau.plan.combine puts it in the place of core's."
            )
        found[rule.key] = rule
    return found
