"""``DateColumn``: encode a column of dates as parts, cycles and the time since the first one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flambeau.errors import InputError
from flambeau_tabular.columns.column_check import ColumnCheck
from flambeau_tabular.columns.moments import Moments, as_moments
from flambeau_tabular.columns.scaling import Scaler, quantile_grids
from flambeau_tabular.options import Scaling

_SECOND = 1_000_000
_DAY = 86_400 * _SECOND
_CYCLES = {"month": (1, 12), "weekday": (0, 7), "hour": (0, 24)}  # first value, length
# Time in which a part has had all its values. In a shorter time it is another form of the elapsed
# time, and its other values would be new to a model.
_HOUR = 3600 * _SECOND
_PERIODS = {
    "month": 334 * _DAY,
    "day": 27 * _DAY,
    "month end": 27 * _DAY,
    "weekday": 6 * _DAY,
    "hour": 23 * _HOUR,
    "minute": 59 * 60 * _SECOND,
    "second": 59 * _SECOND,
}


def date_parts(microseconds: NDArray[np.int64]) -> Iterator[tuple[str, NDArray[np.int32]]]:
    """Yield the parts of times since 1970 as whole numbers ``(n,)`` by name, one at a time.

    The parts are year, month (1 to 12), day (1 to 31), weekday (Monday is 0), month end (0 or 1),
    hour, minute and second.
    """
    days = microseconds // _DAY  # floor division: right before 1970, too
    seconds = ((microseconds - days * _DAY) // _SECOND).astype(np.int32)
    dates = days.astype("datetime64[D]")
    months = dates.astype("datetime64[M]")
    yield "year", (dates.astype("datetime64[Y]").astype(np.int64) + 1970).astype(np.int32)
    yield "month", (months.astype(np.int64) % 12 + 1).astype(np.int32)
    yield "day", ((dates - months).astype(np.int64) + 1).astype(np.int32)
    yield "weekday", ((days + 3) % 7).astype(np.int32)  # 1970-01-01 was a Thursday
    yield "month end", ((dates + 1).astype("datetime64[M]") != months).astype(np.int32)
    yield "hour", seconds // 3600
    yield "minute", seconds // 60 % 60
    yield "second", seconds % 60


@dataclass(frozen=True)
class DateColumn:
    """A column of dates or times as several numbers.

    These are the parts that vary in train (year, month, day, weekday, month end, hour, minute,
    second), the sine and cosine of month, weekday and hour, and the days since the first train
    date. A part that recurs is left out if train is too short for all its values: in train of six
    months the month is the elapsed time, and the other six are unknown. Times with a zone are
    converted to UTC.

    Attributes:
        name: Name of the column.
        parts: Names of the numbers, each with its scaler.
        low: First date in train, in microseconds since 1970.
        high: Last date in train.
        missing: Share of missing cells in train; above 0 the column has a flag.
        zoned: Whether the times in train had a time zone.
        style: How text and whole numbers are read; see `as_moments`.
        clipped: Whether year and elapsed days of dates before ``low`` and after ``high`` are those
            of these dates.
    """

    name: str
    parts: tuple[tuple[str, Scaler], ...]
    low: int
    high: int
    missing: float
    zoned: bool
    style: str
    clipped: bool = False

    kind: ClassVar[str] = "date"

    @classmethod
    def fit(
        cls,
        name: str,
        cells: pa.ChunkedArray,
        rows: NDArray[np.int64] | None,
        scaling: Scaling,
        style: str,
        *,
        clipped: bool = False,
    ) -> tuple[DateColumn, NDArray[np.float32]]:
        """Return the column fitted on these rows, and the quantiles of its numbers.

        Raises:
            InputError: A cell is not a date, or all are missing.
        """
        moments = as_moments(cells, name, style)
        micros, missing = moments.microseconds, moments.missing
        if rows is not None:
            micros, missing = micros[rows], missing[rows]
        known = micros[~missing]
        if len(known) == 0:
            raise InputError(
                f"Column {name!r} cannot be a date: all of its {len(missing):,} train rows are "
                f"missing. Drop the column, or set kinds={{{name!r}: 'empty'}}."
            )
        low, high = int(known.min()), int(known.max())
        parts, grids = [], []
        for part, numbers in _numbers(known, low):
            ordered = np.sort(numbers)
            if ordered[0] == ordered[-1] and part != "elapsed days":
                continue
            is_cycle = part.endswith(("sin", "cos"))
            base = part.rpartition(" ")[0] if is_cycle else part
            if high - low < _PERIODS.get(base, 0):
                continue
            # A missing cell is in the centre of the circle.
            scaler = Scaler("none", 0.0, 1.0, 0.0) if is_cycle else Scaler.fit(ordered, scaling)
            parts.append((part, scaler))
            grids.append(quantile_grids(scaler.apply(ordered)))
        share = 1.0 - len(known) / len(missing)
        column = cls(name, tuple(parts), low, high, share, bool(moments.zoned), style, clipped)
        return column, np.stack(grids)

    @property
    def number_names(self) -> tuple[str, ...]:
        """Names of the columns of ``numbers``."""
        return tuple(f"{self.name} {part}" for part, _ in self.parts)

    @property
    def flag_names(self) -> tuple[str, ...]:
        """Names of the columns of ``flags``."""
        return (f"{self.name} is missing",) if self.missing else ()

    def encode(self, cells: pa.ChunkedArray) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the scaled numbers ``(n, parts)`` and which cells are missing ``(n,)``."""
        moments = self._moments(cells)
        scalers = dict(self.parts)
        encoded = np.empty((len(moments.missing), len(scalers)), np.float32)
        column = 0
        for part, numbers in _numbers(moments.microseconds, self.low, self._latest):
            if part in scalers:
                numbers[moments.missing] = np.nan
                encoded[:, column] = scalers[part].apply(numbers)
                column += 1
        return encoded, moments.missing

    @property
    def _latest(self) -> int | None:
        return self.high if self.clipped else None

    def check(self, cells: pa.ChunkedArray) -> ColumnCheck:
        """Return the shares of missing cells and of dates outside of the range in train."""
        moments = self._moments(cells)
        outside = (moments.microseconds < self.low) | (moments.microseconds > self.high)
        return ColumnCheck.of(self.kind, moments.missing, outside=outside & ~moments.missing)

    def _moments(self, cells: pa.ChunkedArray) -> Moments:
        moments = as_moments(cells, self.name, self.style)
        # Dates without time of day fit both, except that a zone moves them.
        differs = not moments.zoned and moments.zoned is not None if self.zoned else moments.zoned
        if differs:
            had, has = ("a", "no") if self.zoned else ("no", "a")
            raise InputError(
                f"Column {self.name!r} had times with {had} time zone in train, but the table has "
                f"times with {has} time zone. Convert them: .dt.tz_localize(zone), or "
                ".dt.tz_localize(None)."
            )
        return moments

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        parts = [[part, scaler.to_json()] for part, scaler in self.parts]
        return {
            "name": self.name,
            "parts": parts,
            "low": self.low,
            "high": self.high,
            "missing": self.missing,
            "zoned": self.zoned,
            "style": self.style,
            "clipped": self.clipped,
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> DateColumn:
        """Return the column of `to_json`."""
        parts = tuple((part, Scaler.from_json(scaler)) for part, scaler in values["parts"])
        return cls(**{**values, "parts": parts})


def _numbers(
    microseconds: NDArray[np.int64], start: int, latest: int | None = None
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """Yield all numbers of a date by name, one at a time.

    With ``latest``, those that never recur are limited to the time from ``start`` to ``latest``.
    """
    in_range = microseconds if latest is None else microseconds.clip(start, latest)
    for part, values in date_parts(microseconds):
        if part == "year":
            values = next(date_parts(in_range))[1]  # noqa: PLW2901
        yield part, values.astype(np.float64)
        if part in _CYCLES:
            first, length = _CYCLES[part]
            angles = np.arange(length) * (2.0 * np.pi / length)
            yield f"{part} sin", np.sin(angles)[values - first]
            yield f"{part} cos", np.cos(angles)[values - first]
    yield "elapsed days", (in_range - start) / float(_DAY)
