"""The order in which rules decide, and which keys depend on which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import wraps
from typing import Any

from flambeau.errors import PlanError, did_you_mean
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule


def combine(base: Sequence[Rule], own: Sequence[Rule]) -> tuple[Rule, ...]:
    """Return ``base`` with the rules of ``own``: same keys replaced, new keys appended.

    A domain changes a choice of core by contributing a rule with the same key. A rule made by
    ``Rule.extending`` gets the choice of an earlier rule with the same key, from ``own`` or else
    from ``base``, and changes it.

    Raises:
        PlanError: Two rules of ``base``, or two of ``own``, decide the same key; or a rule of
            ``own`` extends a key that no rule before it decides.
    """
    check_extended(own, [rule.key for rule in base])
    _by_key(rule for rule in own if rule.extend is None)
    combined = _by_key(base)
    for rule in own:
        before = combined.get(rule.key)
        combined[rule.key] = rule if before is None else _replacing(before, rule)
    return tuple(combined.values())


def order(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Return the rules sorted so that each follows the rules it needs; otherwise keep their order.

    Raises:
        PlanError: Two rules decide the same key, a needed key has no rule, or there is a cycle.
    """
    by_key = _by_key(rules)
    ordered: dict[str, Rule] = {}
    path: list[str] = []

    def visit(key: str) -> None:
        if key in ordered:
            return
        if key in path:
            cycle = " → ".join([*path[path.index(key) :], key])
            raise PlanError(
                f"The rules depend on each other in a cycle: {cycle}. Remove one of these keys "
                "from the needs of the rule that reads it."
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
    """Return the keys that depend on ``key``, directly or through other keys.

    Args:
        rules: Sorted by ``order``.
        key: The key that changes.
        fixed: Keys that the user set: they do not change, and nothing depends on ``key`` through
            them.
    """
    stays = set(fixed)
    changed = {key}
    for rule in rules:
        if rule.key not in stays and not changed.isdisjoint(rule.needs):
            changed.add(rule.key)
    return frozenset(changed - {key})


def name_of(rule: Rule) -> str:
    """Return the name of the rule's function for messages: ``package.module.function``."""
    decide = rule.extend or rule.decide
    module = getattr(decide, "__module__", type(decide).__module__)
    return f"{module}.{getattr(decide, '__qualname__', type(decide).__qualname__)}"


def _replacing(base: Rule, own: Rule) -> Rule:
    """Return ``own``, with the attributes of ``base`` where ``own`` sets none."""
    merged = replace(
        own,
        type=own.type or base.type,
        changes=own.changes or base.changes,
        of_machine=own.of_machine or base.of_machine,
        determines=own.determines or base.determines,
        cheaper=own.cheaper or base.cheaper,
    )
    extend = own.extend
    if extend is None:
        return merged

    @wraps(extend)
    def decide(facts: Any, values: Mapping[str, Any]) -> Choice:
        base_choice = base.decide(facts, {need: values[need] for need in base.needs})
        return extend(base_choice, facts, values)

    needs = tuple(dict.fromkeys((*base.needs, *own.needs)))
    return replace(
        merged, needs=needs, decide=decide, accepts=own.accepts or base.accepts, extend=None
    )


def check_extended(rules: Sequence[Rule], known: Iterable[str]) -> None:
    """Check that each rule made by ``Rule.extending`` has a rule to extend.

    Raises:
        PlanError: Its key is neither in ``known`` nor decided by a rule before it (the message
            suggests the nearest key), or a rule after it would replace it.
    """
    keys, extended = set(known), set[str]()
    for rule in rules:
        if rule.extend is None:
            if rule.key in extended:
                raise PlanError(
                    f"A rule for {rule.key!r} follows Rule.extending({rule.key!r}) and would "
                    f"replace it. Put {name_of(rule)} before it."
                )
            keys.add(rule.key)
        elif rule.key not in keys:
            raise PlanError(
                f"Rule.extending({rule.key!r}) has no rule to extend: no rule before it decides "
                f"{rule.key!r}. {did_you_mean(rule.key, keys)} For a new key, use Rule(...)."
            )
        else:
            extended.add(rule.key)


def check_needs(rules: Sequence[Rule], known: Iterable[str]) -> None:
    """Check that a rule exists for every needed key.

    Args:
        rules: The rules to check.
        known: Keys of the other rules.

    Raises:
        PlanError: A needed key has no rule; the message suggests the nearest key.
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
                "Keep one. To replace a rule of core in a domain, contribute a rule with the same "
                "key; flambeau.plan.combine then uses it instead of core's."
            )
        found[rule.key] = rule
    return found
