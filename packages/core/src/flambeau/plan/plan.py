"""``Plan``: every choice of a run in one immutable mapping."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from flambeau.errors import PlanError, did_you_mean
from flambeau.plan import table
from flambeau.plan.choice import Choice
from flambeau.plan.diff import PlanDiff, compare
from flambeau.plan.json_values import as_json, checked, from_json, how_to_override, plain
from flambeau.plan.order import dependents, name_of, order
from flambeau.plan.rule import Rule

SCHEMA_VERSION = 1

# A union written where it is asked for is built anew for every choice.
_IMMUTABLE = (bool, int, float, str, type(None))


class Plan:
    """Choices by key, in the order in which they were decided. A change gives a new plan.

    Two plans are equal when their choices are. A plan that was derived or bound knows its rules
    and facts, so that an override can decide anew what hangs on it; one that was read from a file
    is the choices alone.

    Args:
        choices: One for each key.

    Raises:
        PlanError: Two choices have one key, or a value is no plain JSON value.

    Example:
        >>> rule = Rule("epochs", (), lambda facts, values: Choice("epochs", 5, "5 are enough."))
        >>> plan = Plan.derive([rule], facts={})
        >>> plan["epochs"].value, plan.override("epochs", 9)["epochs"].source
        (5, 'user')
    """

    # Equal plans may differ in how they were bound, and evidence holds mappings.
    __hash__ = None  # type: ignore[assignment]

    __slots__ = ("_choices", "_facts", "_rules")

    def __init__(self, choices: Iterable[Choice]) -> None:
        self._choices: dict[str, Choice] = {}
        for choice in choices:
            if choice.key in self._choices:
                raise PlanError(f"The plan has two choices for {choice.key!r}. Keep one.")
            self._choices[choice.key] = checked(choice)
        self._rules: tuple[Rule, ...] = ()
        self._facts: Mapping[str, Any] | None = None

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
        """A plan with one choice for each rule.

        Args:
            rules: One for each key; ``combine`` merges those of core and of a domain.
            facts: What was measured on the train rows.
            user: Values, or whole ``Choice`` objects, that the user fixed. Their rules are not
                asked.

        Raises:
            PlanError: Rules clash, miss a need or run in a circle; a user's key has no rule or its
                rule can make nothing of the value; a rule answers for another key, misses a fact
                or gives a value that is not JSON.
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
        """The plan with the user's value for ``key`` and with what hangs on it decided anew.

        Every other choice is the same object as before, and other choices of the user stay. An
        outcome recorded with ``with_choice`` is decided anew too where it hangs on ``key``.

        Args:
            key: A key of the plan.
            value: The value, or a ``Choice``.

        Raises:
            PlanError: The key is unknown, the value is not JSON or nothing can be made of it or,
                with it, of another choice of the user; or the plan was read from a file and is not
                bound to rules.
        """
        if self._facts is None:
            raise PlanError(
                f"This plan has no rules, so what hangs on {key!r} cannot be decided anew: it was "
                "read from a file. Bind it first, plan.bind(rules, facts), or give the value to "
                "the Learner in choices={...}."
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
        """The plan with ``choice`` in the place of its key, or added; nothing is decided anew.

        For recording an outcome (epochs realised, a learning rate that was found), so that a
        replay need not measure again.

        Raises:
            PlanError: The value is not JSON.
        """
        choices = {**self._choices, choice.key: checked(choice)}
        return self._bound(choices, self._rules, self._facts)

    def bind(self, rules: Iterable[Rule], facts: Mapping[str, Any]) -> Plan:
        """The same choices with rules and facts, so that ``override`` works on a plan from a file.

        A key that has a rule but no choice here (a plan that an earlier release saved) is decided;
        every choice that is here stays the same object.

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
        """The rules by key; empty for a plan that was read from a file and not bound."""
        return {rule.key: rule for rule in self._rules}

    @property
    def values(self) -> Mapping[str, Any]:
        """A fresh copy of each key's value; what data, model and task are built from."""
        # Choices are plain already, so only what can be changed in place needs a copy.
        return {
            key: choice.value
            if isinstance(choice.value, _IMMUTABLE)
            else plain(choice.value, f"the value of {key!r}")
            for key, choice in self._choices.items()
        }

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
        """The choices as aligned text: key, value, source, reason, and how to change it.

        Args:
            width: Characters in a line; None asks the terminal.
        """
        return table.text(list(self._choices.values()), width)

    def _repr_html_(self) -> str:
        return table.html(list(self._choices.values()))

    def diff(self, other: Plan) -> PlanDiff:
        """Where the values of two plans differ; false when nowhere, and it prints."""
        return compare(self._choices, other._choices)

    def require_confidence(self) -> None:
        """Refuses choices of low confidence; what ``choices={"strict": True}`` does.

        Raises:
            PlanError: Naming each, why it is not sure, and what to write.
        """
        unsure = [c for c in self._choices.values() if c.confidence < table.LOW_CONFIDENCE]
        if unsure:
            raise PlanError(
                f"A strict plan has no choice of a confidence below {table.LOW_CONFIDENCE}, but "
                f"{', '.join(choice.key for choice in unsure)} would be. Say what you want:\n"
                + "\n".join(
                    f"  {c.key} = {table.value_text(c.value)} ({c.confidence:.2f}): {c.reason} To "
                    f"keep it: {how_to_override(c.key, c.value)}; to change it: {c.override}"
                    for c in unsure
                )
            )

    # ------------------------------------------------------------ saving

    def to_json(self) -> dict[str, Any]:
        """The choices as plain JSON values; rules and facts stay behind."""
        return {
            "schema_version": SCHEMA_VERSION,
            "choices": [as_json(choice) for choice in self._choices.values()],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Plan:
        """The plan that ``to_json`` described, with equal choices and no rules.

        Raises:
            PlanError: The content was written by another version, or is no plan.
        """
        if not isinstance(content, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] files differ
            raise PlanError(f"A plan is saved as an object, not as a {type(content).__name__}.")
        version = content.get("schema_version")
        if version != SCHEMA_VERSION or type(version) is not int:
            raise PlanError(
                f"The plan has schema version {version!r}; this flambeau reads "
                f"{SCHEMA_VERSION}. Use the release that wrote it, or derive a new plan."
            )
        entries: object = content.get("choices")
        if not isinstance(entries, list):
            raise PlanError(
                f"The plan's 'choices' is a {type(entries).__name__}, not a list: the content is "
                "damaged or no plan. Derive a new one."
            )
        return cls([from_json(entry) for entry in cast("list[object]", entries)])

    def save(self, path: str | Path) -> None:
        """Write the plan as a JSON file, whole or not at all."""
        path = Path(path)
        unfinished = path.with_name(f"{path.name}.unfinished")
        text = json.dumps(self.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        unfinished.write_text(text + "\n", encoding="utf-8")
        os.replace(unfinished, path)

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """The plan that ``save`` wrote.

        Raises:
            PlanError: The file is no plan, or another version's.
        """
        try:
            content: object = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise PlanError(
                f"The plan {path} cannot be read: {error}. Name the file that plan.save(…) wrote."
            ) from error
        except (ValueError, RecursionError) as error:
            raise PlanError(f"{path} is no plan: it is not JSON ({error}).") from error
        if not isinstance(content, dict):
            raise PlanError(f"{path} is no plan: it holds a {type(content).__name__}.")
        try:
            return cls.from_json(cast("dict[str, Any]", content))
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from error
        except RecursionError as error:
            raise PlanError(f"{path} is no plan: it is nested too deep.") from error


def _given_by_user(user: Mapping[str, Any], rules: Sequence[Rule]) -> dict[str, Choice]:
    known = {rule.key: rule for rule in rules}
    choices: dict[str, Choice] = {}
    for key, given in user.items():
        if key not in known:
            raise PlanError(
                f"The plan has no key {key!r} (value given: {given!r:.60}). "
                f"{did_you_mean(key, known)}"
            )
        choice = given if isinstance(given, Choice) else _users(key, given)
        if choice.key != key:
            raise PlanError(
                f"The choice given for {key!r} is one for {choice.key!r}. Pass it under its own "
                "key."
            )
        _check_type(known[key], choice)
        choices[key] = checked(choice)
    return choices


def _users(key: str, value: Any) -> Choice:
    advice = "Leave it out to have it chosen."
    return Choice(key, value, "Given by the user.", override=advice, source="user")


def _check_accepted(rule: Rule, facts: Mapping[str, Any], choices: Mapping[str, Choice]) -> None:
    """Refuse a value of the user's that is not of the key's type or of no use to the rule."""
    choice = choices[rule.key]
    if rule.accepts is None or choice.source != "user":
        return
    fault = rule.accepts(choice.value, facts, {need: choices[need].value for need in rule.needs})
    if fault is not None:
        raise PlanError(f"{rule.key} is {choice.value!r:.80}, but it must be {fault}")


def _check_type(rule: Rule, choice: Choice) -> None:
    fault = None if rule.type is None else rule.type.fault(choice.value)
    if fault is not None:
        raise PlanError(f"{rule.key} is {choice.value!r:.80}, but it must be {fault}")


def _decide(rule: Rule, facts: Mapping[str, Any], choices: Mapping[str, Choice]) -> Choice:
    values = {need: choices[need].value for need in rule.needs}
    try:
        answer = cast(object, rule.decide(facts, values))
    except KeyError as error:
        raise PlanError(
            f"The rule for {rule.key!r} ({name_of(rule)}) asked for {error}, which is neither a "
            f"fact ({', '.join(facts) or 'none'}) nor among its needs "
            f"({', '.join(rule.needs) or 'none'}). Let the data measure it in facts(), or add the "
            "key to the rule's needs."
        ) from error
    if not isinstance(answer, Choice) or answer.key != rule.key:
        got = f"one for {answer.key!r}" if isinstance(answer, Choice) else repr(answer)[:80]
        raise PlanError(
            f"The rule for {rule.key!r} ({name_of(rule)}) must return a Choice for that key, but "
            f"returned {got}."
        )
    try:
        return checked(answer)
    except PlanError as error:
        raise PlanError(f"The rule {name_of(rule)}: {error}") from error
