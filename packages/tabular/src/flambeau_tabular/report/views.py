"""``View``: the cells of one column in the units of the user, for plots, slices and drift."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flambeau_tabular.column_kind import ColumnKind
from flambeau_tabular.columns import Frame
from flambeau_tabular.columns.cells import as_categories, as_numbers, as_text, moment_text, pc
from flambeau_tabular.columns.moments import as_moments

_DAY = 86_400e6  # microseconds
_DAYS = 10  # of a range above which the time of day is not shown
_CODED = ("category", "ordered", "boolean")


@dataclass(frozen=True, eq=False)
class View:
    """The cells of a column.

    Attributes:
        name: Name of the column.
        kind: Kind of the column.
        numbers: Numbers, microseconds of dates, or numbers of words of text, NaN where missing,
            ``(n,)``; None for categories.
        codes: Positions in ``names``, -1 where missing, ``(n,)``; None for numbers.
        names: The categories.
    """

    name: str
    kind: str
    numbers: NDArray[np.float64] | None = None
    codes: NDArray[np.int64] | None = None
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.missing)

    @property
    def missing(self) -> NDArray[np.bool_]:
        """Which cells are missing."""
        if self.numbers is not None:
            return np.isnan(self.numbers)
        return np.asarray(self.codes) < 0

    def text(self, number: float) -> str:
        """Return a number of the column as text: a date for dates."""
        if self.kind == "date":
            days = np.ptp(np.asarray(self.numbers)[~self.missing]) / _DAY
            return moment_text(int(number))[: 10 if days > _DAYS else 16].replace("T", " ")
        return f"{number:,.0f}" if abs(number) >= 10_000 else f"{number:.4g}"

    def take(self, rows: NDArray[np.int64]) -> View:
        """Return some rows."""
        numbers = None if self.numbers is None else self.numbers[rows]
        codes = None if self.codes is None else self.codes[rows]
        return View(self.name, self.kind, numbers, codes, self.names)


def view_of(
    frame: Frame, name: str, kind: ColumnKind, rows: NDArray[np.int64] | None = None
) -> View | None:
    """Return the cells of a column; None for ids, constants and empty columns.

    Args:
        frame: The table.
        name: Name of the column.
        kind: Its kind.
        rows: Row numbers; None for all.
    """
    cells = frame.column(name)
    if rows is not None:
        cells = cells.take(np.asarray(rows, np.int64))
    if kind.kind == "number":
        numbers = as_numbers(cells, name)
        return View(name, kind.kind, np.where(np.isfinite(numbers), numbers, np.nan))
    if kind.kind == "date":
        moments = as_moments(cells, name, kind.style)
        numbers = moments.microseconds.astype(np.float64)
        numbers[moments.missing] = np.nan
        return View(name, kind.kind, numbers)
    if kind.kind == "text":
        words = pc.list_value_length(pc.split_pattern_regex(as_text(cells, name), r"\s+"))
        return View(name, kind.kind, np.asarray(words.to_numpy(), dtype=np.float64))
    if kind.kind not in _CODED:
        return None
    positions, texts = as_categories(cells)
    used = np.unique(positions[positions >= 0]).tolist()
    names = list(dict.fromkeys(text for at in used if (text := texts[at]) is not None))
    order = list(kind.levels or ())
    names = sorted(names, key=lambda each: (order.index(each) if each in order else -1, each))
    number_of = {text: at for at, text in enumerate(names)}
    numbered = [-1 if text is None else number_of.get(text, -1) for text in texts]
    table = np.array([*numbered, -1], np.int64)
    return View(name, kind.kind, None, table[positions], tuple(names))
