"""``TableSample``: some rows of each part of a table, which bounds the cost of the checks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from flambeau import random as keyed
from flambeau.data.split import PARTS, Rows
from flambeau.doctor import TrainingSetup
from flambeau.errors import InputError
from flambeau_tabular.column_kind import UNUSED, ColumnKind
from flambeau_tabular.columns.cells import LARGEST, as_categories, as_numbers
from flambeau_tabular.columns.frames import Frame
from flambeau_tabular.columns.kinds import infer_kinds
from flambeau_tabular.columns.moments import as_moments
from flambeau_tabular.columns.parquet_files import ParquetTable
from flambeau_tabular.data import TabularData

Scalar = TypeVar("Scalar", bound=np.generic)

MOST_TRAIN, MOST_OTHER = 20_000, 5_000
"""Rows of train, and of each other part, that the checks read."""

_MOST_CELLS, _FEWEST = 2_000_000, 1_000  # wider tables have fewer rows, but at least these
_MOST_BLOCKS = 3  # blocks of a Parquet file that are read for one part


@dataclass(frozen=True, eq=False)
class Column:
    """The cells of a column in a sample.

    Attributes:
        name: Name of the column.
        kind: Kind of the column.
        values: float64 ``(n,)``, NaN where missing: numbers, microseconds since 1970 for dates, or
            the numbers of the categories.
    """

    name: str
    kind: ColumnKind
    values: NDArray[np.float64]

    @property
    def is_ordered(self) -> bool:
        """Whether the order of the values has a meaning, as that of numbers and dates."""
        return self.kind.kind in ("number", "date")


class TableSample:
    """Some rows of each part: all if there are few, else drawn at random.

    Rows of a Parquet file are drawn from a few of its blocks, so that not all of it is read.

    Args:
        data: The data.
    """

    def __init__(self, data: TabularData) -> None:
        self.data = data
        wide = max(_FEWEST, _MOST_CELLS // max(1, len(data.frame.column_names)))
        drawn = {
            part: _draw(data.split.part(part), min(wide, most), data.frame, part)
            for part, most in zip(PARTS, (MOST_TRAIN, *[MOST_OTHER] * 3), strict=True)
        }
        self.rows: dict[str, Rows] = drawn
        ends = np.cumsum([0, *map(len, drawn.values())])
        self._at = {
            part: slice(int(ends[number]), int(ends[number + 1]))
            for number, part in enumerate(drawn)
        }
        self._known: dict[str, Column | None] = {}

    @cached_property
    def frame(self) -> Frame:
        """The rows of all parts, one part after another."""
        return self.data.frame.take(np.concatenate(list(self.rows.values())))

    @property
    def is_whole(self) -> bool:
        """Whether the sample has all train rows."""
        return len(self.rows["train"]) == len(self.data.split.train)

    def describe(self) -> str:
        """Return how many train rows were read: "all 400 train rows"."""
        n = len(self.rows["train"])
        return f"all {n:,} train rows" if self.is_whole else f"{n:,} sampled train rows"

    @cached_property
    def kinds(self) -> dict[str, ColumnKind]:
        """The kinds of all columns, also of those that are not inputs."""
        kinds = dict(self.data.columns)
        train = np.arange(len(self.rows["train"]))
        for name in set(self.frame.column_names) - set(kinds):
            # A column that is not an input may have cells of any kind.
            with contextlib.suppress(InputError):
                others = [each for each in self.frame.column_names if each != name]
                kinds |= infer_kinds(self.frame.drop(others), train)
        return kinds

    def inputs(self) -> Iterator[Column]:
        """Yield the columns that are inputs of the model, in the order of their names."""
        for name, kind in sorted(self.data.columns.items()):
            if kind.kind not in UNUSED and (found := self.column(name)) is not None:
                yield found

    def column(self, name: str) -> Column | None:
        """Return a column; None if its cells do not fit its kind, which the fit reports."""
        if name not in self._known:
            try:
                self._known[name] = Column(
                    name, self.kinds[name], _values(self.frame.column(name), self.kinds[name])
                )
            except (InputError, KeyError):
                self._known[name] = None
        return self._known[name]

    def missing(self, name: str) -> NDArray[np.bool_]:
        """Return whether the cells of a column are missing, or blank text, ``(n,)``."""
        column = self.column(name)
        if column is not None and column.kind.kind not in ("empty", "constant"):
            return np.isnan(column.values)
        codes, texts = as_categories(self.frame.column(name))
        blank = np.array([text is None or not text.strip() for text in texts] + [True])
        return blank[codes]

    def of(self, part: str, values: NDArray[Scalar]) -> NDArray[Scalar]:
        """Return the values of one part."""
        return values[self._at[part]]

    def targets(self, rows: Rows | None = None) -> dict[str, NDArray[np.float64]]:
        """Return what is to be predicted in these rows, by default the sampled train rows, by name.

        Numbers are float64 ``(n,)``; classes have a column of 0 and 1 each, ``(n, classes)``, as
        have labels.
        """
        targets = self.data.targets
        rows = self.rows["train"] if rows is None else rows
        values = targets.values[torch.from_numpy(np.array(rows))].double().numpy()
        if targets.kind == "classification":
            [name] = self.data.facts().get("target_names", ("target",))
            return {name: (values[:, None] == np.arange(len(targets.names))).astype(np.float64)}
        columns = values.reshape(len(values), -1)
        if targets.kind == "multi_label":
            return {
                name: np.stack([1 - columns[:, at], columns[:, at]], axis=1)
                for at, name in enumerate(targets.names)
            }
        found = {name: columns[:, at] for at, name in enumerate(targets.names)}
        exposure = self.data.options.exposure
        if exposure is not None:  # the rate is predicted
            per = as_numbers(self.data.frame.take(rows).column(exposure), exposure)
            found |= {f"{name} / {exposure}": values / per for name, values in found.items()}
        return found


def sample_of(setup: TrainingSetup) -> TableSample | None:
    """Return the sampled rows of a table; None for other data."""
    data = setup.data
    return TableSample(data) if isinstance(data, TabularData) else None


def _draw(rows: Rows, most: int, frame: Frame, part: str) -> Rows:
    """Return up to ``most`` of these rows, ascending; nearly as many, because none is twice."""
    if isinstance(frame.table, ParquetTable) and len(rows) > most:
        rows = _in_blocks(rows, frame.table)
    if len(rows) <= most:
        return np.sort(rows)
    generator = keyed.generator(0, f"doctor/rows of {part}")
    positions = torch.randint(len(rows), (most,), generator=generator).unique().numpy()
    return np.sort(rows[positions])


def _in_blocks(rows: Rows, table: ParquetTable) -> Rows:
    """Return the rows that are in a few blocks of the file, spread over all, ascending.

    A flag per row of the file takes an eighth of the memory of the row numbers.
    """
    flags = np.zeros(table.num_rows, np.bool_)
    flags[rows] = True
    starts = table.block_starts
    ends = np.append(starts[1:], table.num_rows)
    used = [at for at in range(len(starts)) if flags[starts[at] : ends[at]].any()]
    spread = np.linspace(0, len(used) - 1, min(len(used), _MOST_BLOCKS)).round().astype(int)
    chosen = [used[at] for at in spread]
    return np.concatenate(
        [starts[at] + np.flatnonzero(flags[starts[at] : ends[at]]) for at in chosen]
    )


def _values(cells: pa.ChunkedArray, kind: ColumnKind) -> NDArray[np.float64]:
    if kind.kind == "number":
        numbers = as_numbers(cells, "")
        return np.where(np.abs(numbers) <= LARGEST, numbers, np.nan)
    if kind.kind == "date":
        moments = as_moments(cells, "", kind.style)
        return np.where(moments.missing, np.nan, moments.microseconds.astype(np.float64))
    codes, texts = as_categories(cells)
    known = sorted({text for text in texts if text is not None and text.strip()})
    order = {text: at for at, text in enumerate(known)}
    numbers = np.array([order.get(text or "", np.nan) for text in texts] + [np.nan], np.float64)
    return numbers[codes]  # code -1 is the last one
