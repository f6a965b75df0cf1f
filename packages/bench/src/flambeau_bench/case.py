"""``Case``: what is asked, of which sides, at which sizes, and behind which gate."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from flambeau.errors import ArgumentError, did_you_mean
from flambeau_bench.measurement import Measurement

Form = Literal["difference", "ratio", "speed-up", "value"]
FORMS: Mapping[str, str] = {
    "difference": "candidate - baseline",
    "ratio": "candidate / baseline",
    "speed-up": "baseline / candidate",
    "value": "candidate alone",
}
"""How a question's figure is made from a pair."""

SIZES = ("quick", "cpu", "gpu")
"""Every suite by name; a case may lack one."""


@dataclass(frozen=True)
class Size:
    """How large a case is in one suite.

    Attributes:
        name: The suite.
        counts: Steps, rows, epochs … by name.
        pairs: How many pairs are measured.
        floor_pairs: How many pairs of the baseline against itself; 0 where a count has no noise.
        device: Where models and batches are.
    """

    name: str
    counts: Mapping[str, int]
    pairs: int = 11
    floor_pairs: int = 11
    device: str = "cpu"

    def __getitem__(self, name: str) -> int:
        return self.counts[name]


@dataclass(frozen=True)
class Question:
    """A figure that is wanted, and the bar that it should meet.

    Attributes:
        figure: A name in ``Measurement.figures``.
        form: How a pair makes one number of it; a name in ``FORMS``.
        unit: Of that number.
        limit: The bar: the whole 95% interval must lie on its good side. None asks without a bar.
        at_most: Whether less is better.
        per: What the number is divided by (callbacks times events).
        within_floor: There is no limit but the noise floor: zero is what is expected.
    """

    figure: str
    form: Form
    unit: str
    limit: float | None = None
    at_most: bool = True
    per: float = 1.0
    within_floor: bool = False

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ArgumentError(f"There is no form {self.form!r}. {did_you_mean(self.form, FORMS)}")

    def of(self, baseline: Measurement, candidate: Measurement) -> float:
        """The number that a pair gives."""
        ours = candidate.figures[self.figure]
        if self.form == "value":
            return ours / self.per
        theirs = baseline.figures[self.figure]
        if self.form == "difference":
            return (ours - theirs) / self.per
        return (ours / theirs if self.form == "ratio" else theirs / ours) / self.per


@dataclass(frozen=True)
class Comparison:
    """Two sides of one variant of a case.

    Attributes:
        variant: Which of the case's variants.
        baseline: The side that the other is held against.
        candidate: The other side.
        questions: What is asked of the pairs.
        may_differ: Evidence in which the sides may differ by design ("init_hash", "order_hash",
            "settings.precision", "steps" …), with the reason.
    """

    variant: str
    baseline: str
    candidate: str
    questions: tuple[Question, ...]
    may_differ: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Gate:
    """Whether a speed may be told: was the result as good?

    Attributes:
        passed: Without it no speed is written.
        says: What was looked at and what was found.
    """

    passed: bool
    says: str


class Case(ABC):
    """One thing that is measured. A subclass says what its sides do; the pairing is elsewhere.

    Attributes:
        name: On the command line.
        asks: The question in words.
        sizes: By suite.
        fresh: Whether every run is in a process of its own. On a CPU the two of a pair take turns,
            so such a case reads wall time from ``turns.running_s``.
    """

    name: ClassVar[str]
    asks: ClassVar[str]
    sizes: ClassVar[Mapping[str, Size]]
    fresh: ClassVar[bool] = False

    @abstractmethod
    def comparisons(self, size: Size) -> Sequence[Comparison]:
        """What is compared at that size."""

    @abstractmethod
    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        """One timed run of ``side``; ``pair`` counts from 0 and keys the seed, if there is one."""

    @abstractmethod
    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Whether both sides gave equally good results, over all pairs that are not void."""

    def section(self, records: Sequence[Mapping[str, Any]], folder: Path) -> str:
        """Markdown of the case's own for a report, with pictures drawn to ``folder``; or nothing.

        Args:
            records: Of all cases.
            folder: Where the report will be.
        """
        return ""

    def why_not(self, size: Size) -> str:
        """Why the case cannot run here; empty where it can."""
        if size.device == "cuda" and not torch.cuda.is_available():
            return "torch sees no CUDA device here"
        return ""


def same_losses(pairs: Sequence[tuple[Measurement, Measurement]]) -> Gate:
    """The gate of cases whose losses must be equal to the last bit."""
    unequal = sum(a.quality["losses"] != b.quality["losses"] for a, b in pairs)
    if unequal:
        return Gate(False, f"losses differ in {unequal} of {len(pairs)} pairs")
    return Gate(bool(pairs), f"losses and final weights bitwise equal in {len(pairs)} pairs")
