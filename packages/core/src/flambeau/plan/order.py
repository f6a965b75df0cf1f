"""The order in which rules decide, and what hangs on what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from flambeau.errors import PlanError, did_you_mean
from flambeau.plan.rule import Rule


def combine(base: Sequence[Rule], own: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rules of ``base``, each replaced by that of ``own`` with the same key, then the new ones.

    This is how a domain changes a choice that core makes: it contributes a rule of the same key.

    Raises:
        PlanError: Two rules of ``base``, or two of ``own``, decide one key.
    """
    replaced = _by_key(own)
    kept = [
        _replacing(rule, replaced.pop(key)) if key in replaced else rule
        for key, rule in _by_key(base).items()
    ]
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
                raise _unknown_need(by_key[key], need, by_key)
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


def _replacing(base: Rule, own: Rule) -> Rule:
    """``own``, with what it leaves open of its key taken from ``base``."""
    return replace(
        own,
        type=own.type or base.type,
        changes=own.changes or base.changes,
        of_machine=own.of_machine or base.of_machine,
    )


def check_needs(rules: Sequence[Rule], known: Iterable[str]) -> None:
    """Refuse a rule that needs a key which no rule decides.

    Args:
        rules: To check.
        known: Keys of the other rules.

    Raises:
        PlanError: Naming the rule and the nearest key.
    """
    keys = {*known, *(rule.key for rule in rules)}
    for rule in rules:
        for need in rule.needs:
            if need not in keys:
                raise _unknown_need(rule, need, keys)


def _unknown_need(rule: Rule, need: str, keys: Iterable[str]) -> PlanError:
    return PlanError(
        f"The rule for {rule.key!r} ({name_of(rule)}) needs {need!r}, which no rule decides. "
        f"{did_you_mean(need, keys)}"
    )


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
