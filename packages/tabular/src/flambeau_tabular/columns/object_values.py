"""``arrow_objects``: the cells of an array of Python objects, whose types are examined first."""

from __future__ import annotations

import datetime
import decimal

import numpy as np
import pyarrow as pa

from flambeau.data.reading import Reading
from flambeau.errors import InputError
from flambeau.wording import first_line
from flambeau_tabular.columns.cells import canonical_text

# The first group that a type belongs to counts: a bool is an int, and a datetime is a date.
_GROUPS: tuple[tuple[str, tuple[type, ...]], ...] = (
    ("boolean", (bool, np.bool_)),
    ("duration", (datetime.timedelta, np.timedelta64)),
    ("number", (int, float, decimal.Decimal, np.integer, np.floating)),
    ("text", (str,)),
    ("time", (datetime.datetime, np.datetime64)),
    ("date", (datetime.date,)),
    ("time of day", (datetime.time,)),
    ("bytes", (bytes,)),
)
_MISSING = ("NoneType", "NAType", "NaTType")  # pandas' types by name: it may not be installed


def arrow_objects(cells: np.ndarray, name: str, readings: list[Reading]) -> pa.Array:
    """Return the cells of an array of objects ``(n,)``; None, NaN, NaT and NA are null.

    Arrow alone would take the type of the first cell, drop the time of a datetime after a date, and
    take times without zone for UTC beside times with one.

    Args:
        cells: The objects.
        name: Name of the column, for messages.
        readings: A reading is appended if numbers and text are mixed, which gives text.

    Raises:
        InputError: A cell is not a single value, or types are mixed; with rows and types.
    """
    cells = _without_nan(cells)
    groups = _groups(cells)
    for group, each in groups.items():
        if group is None:
            row = _first_row(cells, each)
            raise InputError(
                f"Column {name!r} has a {each.__name__} in row {row}: {cells[row]!r:.60}. A cell "
                "has to be a number, text, a boolean or a date. Split lists and dicts into "
                "columns; convert other objects: frame[column].astype(str)."
            )
    if groups.keys() == {"number", "text"}:
        return _as_text(cells, name, readings, "numbers beside text")
    if groups.keys() == {"date", "time"}:
        cells = _as_times(cells)
        del groups["date"]
    if len(groups) > 1:
        first, second = sorted(
            ((_first_row(cells, each), each) for each in groups.values()), key=lambda pair: pair[0]
        )[:2]
        raise InputError(
            f"Column {name!r} mixes types: a {first[1].__name__} in row {first[0]} "
            f"({cells[first[0]]!r:.40}) and a {second[1].__name__} in row {second[0]} "
            f"({cells[second[0]]!r:.40}). Give all cells one type: frame[column].astype(str)."
        )
    if "time" in groups:
        _check_zones(cells, name)
    try:
        return pa.array(cells, from_pandas=True)
    except OverflowError:
        return _large_integers(cells, name, readings)
    except (pa.ArrowException, ValueError, TypeError) as error:
        if groups.keys() == {"number"}:  # Decimal beside float
            return pa.array([None if value is None else float(value) for value in cells])
        raise InputError(f"Column {name!r} cannot be read: {first_line(error)}.") from error


def _without_nan(cells: np.ndarray) -> np.ndarray:
    """Return the cells with None for each missing one."""
    types = set(map(type, cells))
    special = {each for each in types if each.__name__ in _MISSING or issubclass(each, float)}
    special |= {each for each in types if issubclass(each, np.generic)}
    special.discard(type(None))
    if not special:
        return cells
    cleaned = cells.copy()
    for row, value in enumerate(cells):
        # NaN and NaT differ from themselves, and NA cannot be compared.
        if type(value).__name__ in _MISSING or (type(value) in special and value != value):  # noqa: PLR0124
            cleaned[row] = None
    return cleaned


def _groups(cells: np.ndarray) -> dict[str | None, type]:
    """Return the groups of the types of all cells, each with one type; None for other types."""
    return {_group(each): each for each in set(map(type, cells)) if each is not type(None)}


def _group(each: type) -> str | None:
    return next((group for group, types in _GROUPS if issubclass(each, types)), None)


def _first_row(cells: np.ndarray, wanted: type) -> int:
    return next(row for row, value in enumerate(cells) if type(value) is wanted)


def _as_text(cells: np.ndarray, name: str, readings: list[Reading], what: str) -> pa.Array:
    numbers = sum(value is not None and not isinstance(value, str) for value in cells)
    readings.append(
        Reading(
            "columns",
            f"Column {name!r} has {what} ({numbers:,} of {len(cells):,} cells are numbers); it is "
            "read as text.",
            {"numbers": numbers, "rows": len(cells)},
            confidence=0.4,
            override="Convert the column before, such as pd.to_numeric(frame[column]).",
        )
    )
    return pa.array(map(canonical_text, cells), pa.large_string())


def _large_integers(cells: np.ndarray, name: str, readings: list[Reading]) -> pa.Array:
    try:
        return pa.array(cells, pa.uint64())
    except (OverflowError, pa.ArrowException):
        return _as_text(cells, name, readings, "integers of more than 64 bits")


def _as_times(cells: np.ndarray) -> np.ndarray:
    """Return the cells with each date as the datetime of its midnight."""
    times = cells.copy()
    for row, value in enumerate(cells):
        if type(value) is datetime.date:
            times[row] = datetime.datetime.combine(value, datetime.time())
    return times


def _check_zones(cells: np.ndarray, name: str) -> None:
    rows: dict[bool, int] = {}
    for row, value in enumerate(cells):
        if value is not None:
            rows.setdefault(getattr(value, "tzinfo", None) is None, row)
    if len(rows) > 1:
        raise InputError(
            f"Column {name!r} mixes times with a time zone (row {rows[False]}: "
            f"{cells[rows[False]]}) and times without one (row {rows[True]}: {cells[rows[True]]}). "
            "Give all of them a zone: pd.to_datetime(frame[column], utc=True)."
        )
