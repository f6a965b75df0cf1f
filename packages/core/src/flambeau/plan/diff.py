"""Differences between two plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from flambeau.plan.choice import Choice
from flambeau.plan.table import value_text


@dataclass(frozen=True)
class Change:
    """A key whose value differs between two plans; None for a plan that lacks the key."""

    key: str
    before: Choice | None
    after: Choice | None

    def __str__(self) -> str:
        before, after = (
            "(absent)" if choice is None else value_text(choice.value)
            for choice in (self.before, self.after)
        )
        reason = "" if self.after is None else f"  ({self.after.source}: {self.after.reason})"
        return f"{self.key}: {before} → {after}{reason}"


@dataclass(frozen=True)
class PlanDiff:
    """The changes from one plan to another; false in a condition if the plans are equal."""

    changes: tuple[Change, ...]

    def __len__(self) -> int:
        return len(self.changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __str__(self) -> str:
        return "\n".join(map(str, self.changes)) or "The plans choose the same values."


def compare(before: Mapping[str, Choice], after: Mapping[str, Choice]) -> PlanDiff:
    """Return the keys whose values differ, and the keys that only one plan has."""
    return PlanDiff(
        tuple(
            Change(key, before.get(key), after.get(key))
            for key in dict.fromkeys([*before, *after])
            if not _same_value(before.get(key), after.get(key))
        )
    )


def _same_value(left: Choice | None, right: Choice | None) -> bool:
    if left is None or right is None:
        return left is right
    return type(left.value) is type(right.value) and left.value == right.value
