"""``Case``: a benchmark with its two programs (sides), its sizes and its quality condition."""

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
"""How a criterion computes one number from a pair."""

SIZES = ("quick", "cpu", "gpu")
"""The suites by name. A case may lack some suites."""


@dataclass(frozen=True)
class Size:
    """The size of a case in one suite.

    Attributes:
        name: The suite.
        counts: Numbers of steps, rows, epochs …, by name.
        pairs: Number of pairs to measure.
        floor_pairs: Number of pairs of the baseline with itself; 0 if the figure is a count, which
            has no noise.
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
class Criterion:
    """A figure to compute from each pair, and its limit.

    Attributes:
        figure: A name in ``Measurement.figures``.
        form: How to compute one number from a pair; a name in ``FORMS``.
        unit: Unit of the number.
        limit: The whole 95% interval must be at or below it (``at_most``), else at or above it;
            None sets no limit.
        at_most: Whether the limit is an upper limit, because lower is better.
        per: The number is divided by it, for example by callbacks times events.
        within_floor: Use the noise floor as the limit, because a difference of 0 is expected.
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
            raise ArgumentError(f"Unknown form {self.form!r}. {did_you_mean(self.form, FORMS)}")

    def value(self, baseline: Measurement, candidate: Measurement) -> float:
        """Return the number for one pair."""
        measured = candidate.figures[self.figure]
        if self.form == "value":
            return measured / self.per
        reference = baseline.figures[self.figure]
        if self.form == "difference":
            return (measured - reference) / self.per
        ratio = measured / reference if self.form == "ratio" else reference / measured
        return ratio / self.per


@dataclass(frozen=True)
class Comparison:
    """The two sides (programs) of one variant of a case.

    Attributes:
        variant: Name of the variant.
        baseline: Name of the reference side.
        candidate: Name of the side that is compared with the baseline.
        criteria: Figures to compute from the pairs.
        may_differ: Name → reason of the values that may differ between the sides by design
            ("init_hash", "order_hash", "settings.precision", "steps" …).
    """

    variant: str
    baseline: str
    candidate: str
    criteria: tuple[Criterion, ...]
    may_differ: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Gate:
    """The quality condition: whether both sides gave equally good results.

    Attributes:
        passed: Whether speeds may be reported.
        reason: What was compared and what was found.
    """

    passed: bool
    reason: str


class Case(ABC):
    """The base class of cases. A subclass defines the two sides; ``measure_pairs`` runs pairs.

    Attributes:
        name: Name on the command line.
        question: The question that the case answers.
        sizes: Sizes by suite.
        fresh: Whether each run is in a new process, unless there is only one pair of a figure with
            noise, which is not compared with a limit. On a CPU the two processes of a pair
            alternate, so such a case reads wall time from ``time_slices.running_s``.
    """

    name: ClassVar[str]
    question: ClassVar[str]
    sizes: ClassVar[Mapping[str, Size]]
    fresh: ClassVar[bool] = False

    @abstractmethod
    def comparisons(self, size: Size) -> Sequence[Comparison]:
        """Return the comparisons at this size."""

    @abstractmethod
    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        """Run ``side`` once and measure it; ``pair`` starts at 0 and may determine the seed."""

    @abstractmethod
    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Return whether both sides gave equally good results in the valid ``pairs``, and why."""

    def section(self, records: Sequence[Mapping[str, Any]], folder: Path) -> str:
        """Return extra Markdown for a report, and write its plots to ``folder``.

        Args:
            records: Records of all cases.
            folder: Folder of the report.
        """
        return ""

    def skip_reason(self, size: Size) -> str:
        """Return why the case cannot run here; empty if it can."""
        if size.device == "cuda" and not torch.cuda.is_available():
            return "torch finds no CUDA device"
        return ""


def equal_losses(pairs: Sequence[tuple[Measurement, Measurement]]) -> Gate:
    """Return the quality condition: bitwise equal losses and final weights."""
    unequal = sum(a.quality["losses"] != b.quality["losses"] for a, b in pairs)
    if unequal:
        return Gate(False, f"losses differ in {unequal} of {len(pairs)} pairs")
    return Gate(bool(pairs), f"losses and final weights bitwise equal in {len(pairs)} pairs")
