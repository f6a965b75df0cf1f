"""``tabular``: training on a table with a learner's recipe, compared with a tensor loop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size, equal_losses
from flambeau_bench.cases.tabular_sides import BY_HAND, FLAMBEAU, SIDES, Job, Trained, table_of
from flambeau_bench.measurement import Measurement
from flambeau_bench.timing import slope, threads
from flambeau_tabular import TabularData

VARIANTS: Mapping[str, int] = {"batches of 256": 256, "batches of 4,096": 4096}
"""Rows per step by variant."""


class Tabular(Case):
    """Train the default network for tables (RealMLP) with its recipe on a table like Adult.

    The tensor loop has the table encoded in tensors, and shuffles, schedules, evaluates after each
    epoch and keeps the best weights as the recipe does. The losses of all steps, the validation
    losses and the final weights of both sides must be bitwise equal. The time of an epoch with its
    evaluation is the slope between a short and a long fit, in CPU seconds of one thread.
    """

    name: ClassVar = "tabular"
    question: ClassVar = "How many rows of a table are trained per second, beside a tensor loop?"
    sizes: ClassVar = {
        "quick": Size("quick", {"rows": 2_000, "epochs": 1}, pairs=1, floor_pairs=1),
        "cpu": Size("cpu", {"rows": 48_842, "epochs": 1}, pairs=11, floor_pairs=11),
        "gpu": Size("gpu", {"rows": 48_842, "epochs": 2}, pairs=11, floor_pairs=11, device="cuda"),
    }

    def __init__(self) -> None:
        self._tables: dict[int, TabularData] = {}

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        criteria = (
            Criterion("us_per_row", "speed-up", "× the rows/s of a loop", 0.98, at_most=False),
            Criterion("rows_per_s", "value", "rows/s"),
            Criterion("fixed_ms", "difference", "ms/fit"),
        )
        return [Comparison(name, BY_HAND, FLAMBEAU, criteria) for name in VARIANTS]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        job = Job(size["rows"], VARIANTS[comparison.variant], pair, size.device)
        data = self._table(size["rows"])
        last = Trained()

        def seconds_of(epochs: int) -> float:
            nonlocal last
            last = SIDES[side](job, data, epochs)
            return last.seconds

        with threads(1):
            line = slope(seconds_of, size["epochs"])
            n = len(data.split.train)
            return _measurement(last, line.per_step_us / n, line.fixed_ms)

    def _table(self, rows: int) -> TabularData:
        if rows not in self._tables:  # all variants and pairs have the same rows
            self._tables = {rows: table_of(rows)}
        return self._tables[rows]

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require bitwise equal losses and final weights."""
        return equal_losses(pairs)


def _measurement(done: Trained, us_per_row: float, fixed_ms: float) -> Measurement:
    losses = fingerprint.of_numbers(done.losses) + fingerprint.of_numbers(done.valid_losses)
    settings: Mapping[str, Any] = done.settings
    return Measurement(
        {"us_per_row": us_per_row, "rows_per_s": 1e6 / us_per_row, "fixed_ms": fixed_ms},
        steps=len(done.losses),
        samples=sum(map(len, done.rows)),
        init_hash=done.init_hash,
        order_hash=fingerprint.of_tensors(done.rows),
        settings=settings,
        quality={"losses": losses + done.weights_hash, "accuracy": done.accuracy},
    )
