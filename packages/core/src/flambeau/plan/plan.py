"""``Plan``: an immutable mapping of keys to the choices of a run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flambeau.atomic_write import replace_text
from flambeau.errors import PlanError, did_you_mean, explains_arguments
from flambeau.plan import table
from flambeau.plan.choice import Choice
from flambeau.plan.json_values import (
    as_json,
    as_python,
    checked,
    from_json,
    how_to_override,
    plain,
)
from flambeau.plan.order import dependents, name_of, order
from flambeau.plan.rule import Rule

if TYPE_CHECKING:
    from flambeau.plan.diff import PlanDiff

SCHEMA_VERSION = 1

_IMMUTABLE = frozenset((bool, int, float, str, type(None)))


@explains_arguments()
class Plan:
    """Choices by key, in the order in which they were decided. Methods return changed copies.

    Two plans are equal if their choices are equal. A plan from ``derive`` or ``bind`` keeps its
    rules and facts, so that ``override`` can recompute dependent choices; a plan read from a file
    has only choices.

    Args:
        choices: One choice for each key.

    Raises:
        PlanError: Two choices have the same key, or a value cannot be saved as JSON.

    Example:
        >>> rule = Rule("epochs", (), lambda facts, values: Choice("epochs", 5, "5 are enough."))
        >>> plan = Plan.derive([rule], facts={})
        >>> plan["epochs"].value, plan.override("epochs", 9)["epochs"].source
        (5, 'user')
    """

    # Equal plans may have different rules, and evidence contains mappings.
    __hash__ = None  # type: ignore[assignment]

    __slots__ = ("_choices", "_facts", "_mutable", "_rules", "_values")

    def __init__(self, choices: Iterable[Choice]) -> None:
        self._choices: dict[str, Choice] = {}
        for choice in choices:
            if choice.key in self._choices:
                raise PlanError(f"The plan has two choices for {choice.key!r}. Keep one.")
            self._choices[choice.key] = checked(choice)
        self._rules: tuple[Rule, ...] = ()
        self._facts: Mapping[str, Any] | None = None
        self._values: dict[str, Any] | None = None  # and which of them are lists or mappings
        self._mutable: list[str] = []

    @classmethod
    def _bound(
        cls,
        choices: Mapping[str, Choice],
        rules: tuple[Rule, ...],
        facts: Mapping[str, Any] | None,
    ) -> Plan:
        plan = cls(())
        plan._choices, plan._rules, plan._facts = dict(choices), rules, facts
        return plan

    # ------------------------------------------------------------ deciding

    @classmethod
    def derive(
        cls,
        rules: Iterable[Rule],
        facts: Mapping[str, Any],
        user: Mapping[str, Any] | None = None,
    ) -> Plan:
        """Return a plan with one choice for each rule.

        Args:
            rules: One rule for each key; ``combine`` merges core's rules and those of a domain.
            facts: Measurements of the train data, by name.
            user: Values, or ``Choice`` objects, that the user set; their rules do not run.

        Raises:
            PlanError: Two rules have the same key, a needed key has no rule, or rules form a cycle;
                a key of the user has no rule, or its value is invalid; a rule returns a choice for
                another key, needs a missing fact, or returns a value that is not JSON.
        """
        ordered = order(rules)
        choices = _given_by_user(user or {}, ordered)
        for rule in ordered:
            if rule.key in choices:
                _check_accepted(rule, facts, choices)
            else:
                choices[rule.key] = _decide(rule, facts, choices)
        choices = {rule.key: choices[rule.key] for rule in ordered}
        return cls._bound(choices, ordered, dict(facts))

    def override(self, key: str, value: Any) -> Plan:
        """Return the plan with the user's value for ``key`` and recomputed dependent choices.

        All other choices stay the same objects, including those of the user. A choice that
        ``with_choice`` recorded is recomputed, too, if it depends on ``key``.

        Args:
            key: A key of the plan.
            value: The value, or a ``Choice``.

        Raises:
            PlanError: The key is unknown; the value is invalid or not JSON, or it makes another
                choice of the user invalid; or the plan was read from a file and is not bound.
        """
        if self._facts is None:
            raise PlanError(
                f"This plan was read from a file and has no rules, so the choices that depend on "
                f"{key!r} cannot be recomputed. Bind it first, plan.bind(rules, facts), or "
                "pass the value to the Learner in choices={...}."
            )
        given = _given_by_user({key: value}, self._rules)
        choices = {**self._choices, **given}
        fixed = [name for name, choice in choices.items() if choice.source == "user"]
        changing = dependents(self._rules, key, fixed)
        moved = {key, *changing}
        for rule in self._rules:
            if rule.key in changing:
                choices[rule.key] = _decide(rule, self._facts, choices)
            elif rule.key == key or (rule.key in fixed and not moved.isdisjoint(rule.needs)):
                _check_accepted(rule, self._facts, choices)
        return self._bound(choices, self._rules, self._facts)

    def with_choice(self, choice: Choice) -> Plan:
        """Return the plan with ``choice`` replaced or added; other choices are not recomputed.

        Use it to record a result (the epochs trained, a measured learning rate), so that a replay
        does not measure again.

        Raises:
            PlanError: The value is not JSON.
        """
        choices = {**self._choices, choice.key: checked(choice)}
        return self._bound(choices, self._rules, self._facts)

    def bind(self, rules: Iterable[Rule], facts: Mapping[str, Any]) -> Plan:
        """Return the plan with rules and facts, so that ``override`` works on a plan from a file.

        The rules decide keys that the plan lacks, for example because an older version saved it.
        All existing choices stay the same objects.

        Raises:
            PlanError: As ``derive``.
        """
        ordered = order(rules)
        choices = dict(self._choices)
        for rule in ordered:
            if rule.key not in choices:
                choices[rule.key] = _decide(rule, facts, choices)
            else:
                _check_type(rule, choices[rule.key])
        return self._bound(choices, ordered, dict(facts))

    # ------------------------------------------------------------ reading

    @property
    def rules(self) -> Mapping[str, Rule]:
        """The rules by key; empty for a plan that was read from a file and is not bound."""
        return {rule.key: rule for rule in self._rules}

    @property
    def values(self) -> Mapping[str, Any]:
        """A copy of each key's value; data, model and task are built from these."""
        if self._values is None:
            values = {key: choice.value for key, choice in self._choices.items()}
            self._mutable = [key for key in values if type(values[key]) not in _IMMUTABLE]
            self._values = values
        copied = self._values.copy()
        for key in self._mutable:
            copied[key] = plain(copied[key], f"the value of {key!r}")
        return copied

    def __getitem__(self, key: str) -> Choice:
        if key not in self._choices:
            raise PlanError(
                f"The plan has no choice for {key!r}. {did_you_mean(key, self._choices)}"
            )
        return self._choices[key]

    def __contains__(self, key: object) -> bool:
        return key in self._choices

    def __iter__(self) -> Iterator[str]:
        return iter(self._choices)

    def __len__(self) -> int:
        return len(self._choices)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self._choices == other._choices

    def __repr__(self) -> str:
        return f"Plan({', '.join(f'{key}={value!r}' for key, value in self.values.items())})"

    def __str__(self) -> str:
        return self.table()

    def table(self, width: int | None = None) -> str:
        """Return the choices as an aligned text table with reasons and how to change each.

        Args:
            width: Characters per line; None uses the width of the terminal.
        """
        return table.text(list(self._choices.values()), width)

    def _repr_html_(self) -> str:
        return table.html(list(self._choices.values()))

    def diff(self, other: Plan) -> PlanDiff:
        """Return the differences from this plan to ``other``; false if both plans are equal."""
        from flambeau.plan.diff import compare

        return compare(self._choices, other._choices)

    def require_confidence(self) -> None:
        """Raise an error if a choice has low confidence, as ``choices={"strict": True}`` does.

        Raises:
            PlanError: Such a choice exists; the message lists each one with its reason and how to
                keep or change it.
        """
        unsure = [c for c in self._choices.values() if c.confidence < table.LOW_CONFIDENCE]
        if unsure:
            raise PlanError(
                f"A strict plan allows no choice with confidence below {table.LOW_CONFIDENCE}, but "
                f"these have less: {', '.join(choice.key for choice in unsure)}. Set them:\n"
                + "\n".join(
                    f"  {c.key} = {table.value_text(c.value)} ({c.confidence:.2f}): {c.reason} To "
                    f"keep it: {how_to_override(c.key, c.value)}; to change it: {c.override}"
                    for c in unsure
                )
            )

    # ------------------------------------------------------------ saving

    def to_json(self) -> dict[str, Any]:
        """Return the choices as JSON values, without rules and facts."""
        return {
            "schema_version": SCHEMA_VERSION,
            "choices": [as_json(choice) for choice in self._choices.values()],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Plan:
        """Return the plan that ``to_json`` converted, without rules.

        Raises:
            PlanError: The content was written by another version, or is not a plan.
        """
        if not isinstance(content, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] files differ
            raise PlanError(f"A saved plan must be a JSON object, not a {type(content).__name__}.")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION or type(version) is not int:
            raise PlanError(
                f"The plan has schema version {version!r}; this flambeau reads "
                f"{SCHEMA_VERSION}. Use the version that wrote it, or create a new plan."
            )
        entries: object = content.get("choices")
        if not isinstance(entries, list):
            raise PlanError(
                f"The plan's 'choices' is a {type(entries).__name__}, not a list: the content is "
                "damaged or not a plan. Create a new plan."
            )
        return cls([from_json(entry) for entry in cast("list[object]", entries)])

    def save(self, path: str | Path) -> None:
        """Write the plan to a JSON file, atomically.

        Raises:
            StorageError: The file cannot be written; an existing one is unchanged.
        """
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        replace_text(Path(path), text + "\n")

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Return the plan that ``save`` wrote.

        Raises:
            PlanError: The file is not a plan, or was written by another version.
        """
        try:
            content: object = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(
                f"The plan {path} cannot be read: {error}. Give the path of a saved plan."
            ) from error
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{path} is not a plan: it is not valid JSON ({error}).") from error
        if not isinstance(content, dict):
            raise PlanError(f"{path} is not a plan: it contains a {type(content).__name__}.")
        try:
            return cls.from_json(cast("dict[str, Any]", content))
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from error
        except RecursionError as error:
            raise PlanError(f"{path} is not a plan: it is nested too deeply.") from error


def _given_by_user(user: Mapping[str, Any], rules: Sequence[Rule]) -> dict[str, Choice]:
    known = {rule.key: rule for rule in rules}
    choices: dict[str, Choice] = {}
    for key, given in user.items():
        if key not in known:
            raise PlanError(
                f"The plan has no key {key!r} (value: {given!r:.60}). {did_you_mean(key, known)}"
            )
        choice = given if isinstance(given, Choice) else _user_choice(key, given)
        choice = replace(choice, value=as_python(choice.value))
        if choice.key != key:
            raise PlanError(
                f"The choice passed as {key!r} has the key {choice.key!r}. Pass it under its own "
                "key."
            )
        _check_type(known[key], choice)
        choices[key] = checked(choice)
    return choices


def _user_choice(key: str, value: Any) -> Choice:
    if isinstance(value, np.generic):
        value = cast("Any", value).item()  # lr from np.logspace
    advice = "Remove it to let the plan choose."
    return Choice(key, value, "Set by the user.", override=advice, source="user")


def _check_accepted(rule: Rule, facts: Mapping[str, Any], choices: Mapping[str, Choice]) -> None:
    """Raise an error if the user's value has the wrong type or the rule does not accept it."""
    choice = choices[rule.key]
    if rule.accepts is None or choice.source != "user":
        return
    fault = rule.accepts(choice.value, facts, {need: choices[need].value for need in rule.needs})
    if fault is not None:
        raise PlanError(f"{rule.key} is {choice.value!r:.80}, but it must be {fault}")


def _check_type(rule: Rule, choice: Choice) -> None:
    fault = None if rule.type is None else rule.type.fault(choice.value)
    if fault is not None:
        shown = f"{choice.value!r:.80}".partition("\n")[0]
        if rule.key == "optimizer" and not isinstance(choice.value, str):
            fault += " Pass a class as TrainingOptions(optimizer=torch.optim.NAdam)."
        raise PlanError(f"{rule.key} is {shown}, but it must be {fault}")


def _decide(rule: Rule, facts: Mapping[str, Any], choices: Mapping[str, Choice]) -> Choice:
    values = {need: choices[need].value for need in rule.needs}
    try:
        result = cast(object, rule.decide(facts, values))
    except KeyError as error:
        raise PlanError(
            f"The rule for {rule.key!r} ({name_of(rule)}) reads {error}, which is neither a fact "
            f"({', '.join(facts) or 'none'}) nor one of its needs "
            f"({', '.join(rule.needs) or 'none'}). Return it from the data's facts(), or add the "
            "key to the rule's needs."
        ) from error
    if not isinstance(result, Choice) or result.key != rule.key:
        got = f"one for {result.key!r}" if isinstance(result, Choice) else repr(result)[:80]
        raise PlanError(
            f"The rule for {rule.key!r} ({name_of(rule)}) must return a Choice for that key, but "
            f"returned {got}."
        )
    try:
        return checked(result)
    except PlanError as error:
        raise PlanError(f"The rule {name_of(rule)}: {error}") from error
