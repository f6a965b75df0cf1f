"""``TableCheck``: how the rows of a table differ from the training rows."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flambeau.errors import FlambeauWarning
from flambeau.wording import name_some
from flambeau_tabular.frame_rows import as_frame

if TYPE_CHECKING:
    from flambeau_tabular.columns import ColumnCheck, TableSpec

WARN_SHARE = 0.1
"""Share of the rows of a column above which cells that train does not have cause a warning."""

WARN_MISSING = 0.25
"""Difference to the share of missing cells in train above which a column causes a warning."""

WARN_ROWS = 5
"""Fewer rows with such cells cause no warning."""


class TableCheck:
    """Shares of cells that the training rows do not have, by column.

    Args:
        spec: The fitted columns.

    Example:
        >>> from flambeau_tabular.columns import ColumnKind, TableSpec, read_frame
        >>> train = read_frame({"age": [20, 30, 40], "job": ["clerk", "nurse", "clerk"]})
        >>> kinds = {"age": ColumnKind("number"), "job": ColumnKind("category")}
        >>> check = TableCheck(TableSpec.fit(train, None, kinds))
        >>> check.add({"age": [25, 50], "job": ["pilot", "clerk"]})
        >>> check.unseen, check.outside
        ({'job': 0.5}, {'age': 0.5})
    """

    def __init__(self, spec: TableSpec) -> None:
        self.spec = spec
        self.rows = 0
        self._unseen: dict[str, float] = {}
        self._outside: dict[str, float] = {}
        self._missing: dict[str, float] = {}

    def add(self, rows: Any) -> None:
        """Count the cells of these rows: a frame, or rows of one."""
        found: Mapping[str, ColumnCheck] = self.spec.check(as_frame(rows))
        self.rows += next((each.rows for each in found.values()), 0)
        for name, each in found.items():
            self._unseen[name] = self._unseen.get(name, 0.0) + each.unseen * each.rows
            self._outside[name] = self._outside.get(name, 0.0) + each.outside * each.rows
            self._missing[name] = self._missing.get(name, 0.0) + each.missing * each.rows

    @property
    def unseen(self) -> dict[str, float]:
        """Share of the rows with a category that is not known from train, where it is above 0."""
        return self._shares(self._unseen)

    @property
    def outside(self) -> dict[str, float]:
        """Share of the rows with a number or date outside of the range in train, if above 0."""
        return self._shares(self._outside)

    @property
    def missing(self) -> dict[str, float]:
        """Share of the rows with a missing cell, where it is far larger than in train."""
        most = {each.name: each.missing + WARN_MISSING for each in self.spec.columns}
        shares = self._shares(self._missing)
        return {name: share for name, share in shares.items() if share > most[name]}

    def summary(self) -> str:
        """Return a line with the columns and shares."""
        parts = [
            f"{what}: {_named(shares)}"
            for what, shares in (
                ("categories that train does not have", self.unseen),
                ("values outside of the range in train", self.outside),
                ("far more missing cells than in train", self.missing),
            )
            if shares
        ]
        found = "; ".join(parts) or "all categories and ranges are those of train"
        return f"Checked {self.rows:,} rows: {found}."

    def warn(self) -> None:
        """Warn of the columns where `WARN_SHARE` of the rows have cells that train does not have.

        Also of columns whose share of missing cells is `WARN_MISSING` larger than in train, except
        numbers and dates without missing cells in train, of which `TableSpec.encode` warns.

        Warns:
            FlambeauWarning: There are such columns, with at least `WARN_ROWS` such rows.
        """
        unseen, outside = self._many(self._unseen), self._many(self._outside)
        known = {
            each.name
            for each in self.spec.columns
            if each.kind in ("number", "date") and not each.missing
        }
        many = self._many(self._missing).keys() - known
        missing = {name: share for name, share in self.missing.items() if name in many}
        parts = [
            f"{what} ({_named(shares)})"
            for what, shares in (
                ("categories that train does not have", unseen),
                ("values outside of the range in train", outside),
                ("missing cells, far more than in train", missing),
            )
            if shares
        ]
        if not parts:
            return
        warnings.warn(
            f"In more than {WARN_SHARE:.0%} of {self.rows:,} rows, columns have "
            f"{' and '.join(parts)}. Predictions for such rows are guesses: check that the columns "
            "have the same meaning and units as in train, or train again with newer rows.",
            FlambeauWarning,
            stacklevel=4,
        )

    def _shares(self, counts: Mapping[str, float]) -> dict[str, float]:
        return {name: count / self.rows for name, count in counts.items() if count > 0}

    def _many(self, counts: Mapping[str, float]) -> dict[str, float]:
        least = max(WARN_SHARE * self.rows, WARN_ROWS - 0.5)
        return {name: count / self.rows for name, count in counts.items() if count > least}


def _named(shares: Mapping[str, float]) -> str:
    order: Sequence[str] = sorted(shares, key=lambda name: -shares[name])
    return name_some(f"{name!r} {_percent(shares[name])}" for name in order)


def _percent(share: float) -> str:
    return "below 0.1%" if share < 0.001 else f"{share:.1%}"
