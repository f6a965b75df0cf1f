"""A case with given figures, so that statistics and verdicts are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size, equal_losses
from flambeau_bench.measurement import Measurement

WORK = Measurement(
    {"slope_us": 100.0},
    steps=10,
    samples=320,
    init_hash="a",
    order_hash="b",
    settings={"threads": 1, "optimizer": "AdamW"},
    quality={"losses": "c"},
)


class ToyCase(Case):
    """A case whose candidate takes ``extra_us`` longer."""

    name: ClassVar = "toy"
    question: ClassVar = "Does it work?"
    sizes: ClassVar = {"quick": Size("quick", {"steps": 10}), "cpu": Size("cpu", {"steps": 10})}

    def __init__(self, extra_us: float = 5.0, **wrong: object) -> None:
        self.extra_us = extra_us
        self.wrong = wrong
        self.calls: list[tuple[str, int]] = []

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        criterion = Criterion("slope_us", "difference", "µs/step", limit=10.0)
        return [Comparison("only", "by hand", "candidate", (criterion,))]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        self.calls.append((side, pair))
        if side == "by hand":
            return WORK
        return replace(WORK, figures={"slope_us": 100.0 + self.extra_us}, **self.wrong)

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        return equal_losses(pairs)


@pytest.fixture
def toy() -> type[ToyCase]:
    """Return the class of toy cases."""
    return ToyCase


@pytest.fixture
def work() -> Measurement:
    """Return the work of each side of a toy case."""
    return WORK
