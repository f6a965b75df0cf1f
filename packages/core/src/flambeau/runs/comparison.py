"""``Comparison``: two or more runs beside each other, as text, page and JSON values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flambeau.report.page import Page
from flambeau.runs.comparison_page import comparison_page
from flambeau.runs.comparison_text import comparison_json, comparison_text
from flambeau.runs.run_groups import RunGroup


@dataclass(frozen=True)
class ScoreResult:
    """One score of two groups of runs.

    Attributes:
        name: Name of the score, without "valid_".
        first: The score of each run of the first group.
        second: The score of each run of the second group.
        low: Lower end of the interval of the difference; None without a paired test.
        high: Upper end of the interval of the difference.
        p: Two-sided p-value of the test over seeds; None without one.
        higher_is_better: Whether a larger score is better; None if it is not known.
        verdict: For the second group: "better", "worse", "larger" or "smaller" (it is not known
            which is better), "tie" (the same value for every sample or seed), "no difference
            shown", or "unknown" (there is no test).
    """

    name: str
    first: tuple[float, ...]
    second: tuple[float, ...]
    low: float | None
    high: float | None
    p: float | None
    higher_is_better: bool | None
    verdict: str

    @property
    def difference(self) -> float:
        """Mean of the second group minus mean of the first group."""
        return _mean(self.second) - _mean(self.first)


@dataclass(frozen=True)
class PairResult:
    """The first group of runs against another one.

    Attributes:
        first: Label of the first group.
        second: Label of the other group.
        method: "seeds" (rank test over the runs), "samples" (paired bootstrap), or None if neither
            is possible.
        why: Why this method was used, or why there is none.
        scores: The scores that both have.
        verdict: That of the score that decides, or "incomparable".
        decisive: Name of the score that decides; None without scores.
        notes: What to keep in mind.
    """

    first: str
    second: str
    method: str | None
    why: str
    scores: tuple[ScoreResult, ...] = ()
    verdict: str = "unknown"
    decisive: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Difference:
    """A choice that differs between the groups.

    Attributes:
        key: Key of the plan, or name of a training option ("option average").
        values: The value of each group, as text; "(absent)" if a plan lacks the key.
        reasons: Why each group has it: the source and the reason of the choice.
        is_of_user: Whether a user set it in one of the groups.
        is_of_machine: Whether it depends on the machine alone.
    """

    key: str
    values: tuple[str, ...]
    reasons: tuple[str, ...]
    is_of_user: bool = False
    is_of_machine: bool = False


@dataclass(frozen=True, eq=False)
class Comparison:
    """Runs beside each other; ``print`` shows the comparison, ``save`` writes a page.

    Attributes:
        groups: The runs, those of one plan together; the first group is what others are compared
            with.
        part: The part whose scores are compared: "valid" or "test".
        differences: The choices that differ: those of the user first, of the machine last.
        pairs: The first group against each other group.
    """

    groups: tuple[RunGroup, ...]
    part: str
    differences: tuple[Difference, ...] = ()
    pairs: tuple[PairResult, ...] = field(default=())

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int | None = None) -> str:
        """Return the comparison as text.

        Args:
            width: Characters per line of the tables; None does not wrap.
        """
        return comparison_text(self, width)

    def page(self) -> Page:
        """Return the comparison as a page, to which sections can be added before saving it."""
        return comparison_page(self)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page to one file: .html (self-contained), .md or .json.

        Raises:
            StorageError: The file cannot be written.
        """
        return self.page().save(path)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return comparison_json(self)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
