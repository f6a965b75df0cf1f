"""A case whose figures are set by hand, so that statistics and verdicts can be known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from flambeau_bench.case import Case, Comparison, Gate, Question, Size, same_losses
from flambeau_bench.measurement import Measurement

WORK = Measurement(
    {"slope_us": 100.0},
    steps=10,
    items=320,
    init_hash="a",
    order_hash="b",
    settings={"threads": 1, "optimizer": "AdamW"},
    quality={"losses": "c"},
)


class ToyCase(Case):
    """The candidate takes ``extra_us`` more."""

    name: ClassVar = "toy"
    asks: ClassVar = "Does it work?"
    sizes: ClassVar = {"quick": Size("quick", {"steps": 10}), "cpu": Size("cpu", {"steps": 10})}

    def __init__(self, extra_us: float = 5.0, **wrong: object) -> None:
        self.extra_us = extra_us
        self.wrong = wrong
        self.calls: list[tuple[str, int]] = []

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        question = Question("slope_us", "difference", "µs/step", limit=10.0)
        return [Comparison("only", "by hand", "ours", (question,))]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        self.calls.append((side, pair))
        if side == "by hand":
            return WORK
        return replace(WORK, figures={"slope_us": 100.0 + self.extra_us}, **self.wrong)

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        return same_losses(pairs)


@pytest.fixture
def toy() -> type[ToyCase]:
    """The class: tests make their own."""
    return ToyCase


@pytest.fixture
def work() -> Measurement:
    """What every side of a toy has done."""
    return WORK
