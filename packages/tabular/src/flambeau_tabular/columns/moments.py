"""``as_moments``: dates and times of a column as microseconds since 1970, whatever their type."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_tabular.columns.cell_error import ROW, CellError
from flambeau_tabular.columns.cells import as_numbers, dictionary_codes, is_text, value_type

FORMATS = (
    *("%Y/%m/%d", "%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y%m%d"),
    *("%d %b %Y", "%d-%b-%Y", "%b %d, %Y"),
)
"""Formats of dates that are tried where text is not ISO 8601; each also with a time of day."""

UNITS = {"s": 1_000_000, "ms": 1_000, "us": 1, "ns": 1e-3}
"""Microseconds of the units in which whole numbers may count the time since 1970."""

_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
_EPOCH = datetime.datetime(1970, 1, 1)
_MICROSECOND = datetime.timedelta(microseconds=1)
_NO_TIME = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Moments:
    """The dates of a column.

    Attributes:
        microseconds: Since 1970-01-01 (in UTC if zoned), int64 ``(n,)``; 0 where missing.
        missing: Which cells are missing, ``(n,)``.
        zoned: Whether the times have a time zone; None for dates without time of day.
    """

    microseconds: NDArray[np.int64]
    missing: NDArray[np.bool_]
    zoned: bool | None


def as_moments(cells: pa.ChunkedArray, name: str, style: str = "iso") -> Moments:
    """Return the dates of a column.

    Args:
        cells: Dates, timestamps of any unit and zone, text, or whole numbers.
        name: Name of the column, for messages.
        style: How text or whole numbers are read: "iso", a ``strptime`` format, or a unit
            since 1970 ("s", "ms", "us", "ns").

    Raises:
        InputError: A cell is not a date; the message gives its row.
    """
    kind = value_type(cells)
    if pa.types.is_null(kind) or len(cells) == 0:
        return Moments(np.zeros(len(cells), np.int64), np.ones(len(cells), bool), None)
    if is_text(kind) or pa.types.is_dictionary(cells.type):
        return _of_values(cells, name, style)
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _of_times(cells, name)
    if style in UNITS:
        numbers = as_numbers(cells, name)
        missing = ~np.isfinite(numbers)
        counted = np.where(missing, 0, numbers) * UNITS[style]
        return Moments(np.floor(counted).astype(np.int64), missing, True)
    if style != "iso" and pa.types.is_integer(kind):  # 20240131 with the format %Y%m%d
        return _of_values(cells.cast(pa.large_string()), name, style)
    raise InputError(
        f"Column {name!r} is a date, but its cells have the type {kind}. Give dates; for whole "
        f"numbers say what they count: kinds={{{name!r}: 'date:s'}} for seconds since 1970 (or ms, "
        "us, ns), 'date:%Y%m%d' for 20240131."
    )


def find_style(texts: Iterable[str]) -> tuple[str, ...]:
    """Return the styles in which all texts are dates: none, one, or several if it is unclear.

    Example:
        >>> find_style(["2024-01-31"]), find_style(["31.01.2024"]), find_style(["01/02/2024"])
        (('iso',), ('%d.%m.%Y',), ('%d/%m/%Y', '%m/%d/%Y'))
    """
    known = [text for text in map(str.strip, texts) if text]
    if not known:
        return ()
    if _parse_iso(known[0]) is not None:
        return ("iso",) if all(_parse_iso(text) is not None for text in known) else ()
    styles = [each + time for each in FORMATS for time in _TIMES]
    for text in known:
        styles = [each for each in styles if _parse(text, each) is not None]
        if not styles:
            break
    return tuple(styles)


def _of_times(cells: pa.ChunkedArray, name: str) -> Moments:
    kind = cells.type
    zoned = None if pa.types.is_date(kind) else kind.tz is not None
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        # Floor division: a cast would round times before 1970 up.
        counted = cells.cast(pa.int64()).fill_null(0).to_numpy() // 1000
    else:
        try:
            times = cells.cast(pa.timestamp("us", None if zoned is None else kind.tz))
        except pa.ArrowInvalid as error:
            raise InputError(
                f"Column {name!r} has dates beyond the year 294246. Correct them."
            ) from error
        counted = times.cast(pa.int64()).fill_null(0).to_numpy()
    return Moments(np.asarray(counted), np.asarray(cells.is_null().to_numpy()), zoned)


def _of_values(cells: pa.ChunkedArray, name: str, style: str) -> Moments:
    """Return the dates of cells that repeat few values: each distinct value is read once."""
    codes, values = dictionary_codes(cells)
    if is_text(values.type):
        counted, zones = _of_texts(values.to_pylist(), codes, name, style)
    else:
        inner = as_moments(pa.chunked_array([values]), name, style)
        counted = np.where(inner.missing, _NO_TIME, inner.microseconds)
        zones = {inner.zoned}
    found = np.append(counted, _NO_TIME)[codes]
    missing = found == _NO_TIME
    zoned = True if True in zones else False if False in zones else None
    return Moments(np.where(missing, 0, found), missing, zoned)


def _of_texts(
    texts: list[str | None], codes: NDArray[np.int32], name: str, style: str
) -> tuple[NDArray[np.int64], set[bool | None]]:
    """Return the microseconds of each text, `_NO_TIME` for blank ones, and the kinds of zones."""
    counted = np.full(len(texts), _NO_TIME, np.int64)
    examples: dict[bool | None, str] = {}
    used = np.zeros(len(texts), bool)
    used[codes[codes >= 0]] = True
    for code, text in enumerate(texts):
        stripped = (text or "").strip()
        if not stripped or not used[code]:
            continue
        moment = _parse(stripped, style)
        if moment is None:
            row = int(np.flatnonzero(codes == code)[0])
            raise CellError(
                f"Column {name!r} is a date, but row {ROW} has the text {text!r:.60}, which is not "
                f"{'an ISO date (2024-01-31)' if style == 'iso' else f'in the form {style}'}. "
                f"Convert the column, or state the form: kinds={{{name!r}: 'date:%d.%m.%Y'}}.",
                row,
            )
        counted[code], zoned = moment
        examples.setdefault(zoned, stripped)
    if {True, False} <= examples.keys():
        raise InputError(
            f"Column {name!r} has times with a time zone ({examples[True]}) and without one "
            f"({examples[False]}). Give all of them a zone, or none."
        )
    return counted, set(examples)


def _parse(text: str, style: str) -> tuple[int, bool | None] | None:
    """Return microseconds and whether the text has a zone; None if it is not in this style."""
    if style == "iso":
        return _parse_iso(text)
    if style in UNITS:
        is_whole = text.lstrip("-").isdecimal()
        return (int(int(text) * UNITS[style]), True) if is_whole else None
    return _moment(text, lambda: datetime.datetime.strptime(text, style), "%H" in style)


def _parse_iso(text: str) -> tuple[int, bool | None] | None:
    # Digits alone may be a number, and fromisoformat takes weeks and days of the year, too.
    if len(text) < 10 or text[4] != "-" or text[7] != "-":
        return None
    # Nanoseconds, which Python does not read, are cut.
    digits = text[20:].partition("+")[0].partition("-")[0].rstrip("Z")
    if len(digits) > 6 and digits.isdecimal():
        text = text[:26] + text[20 + len(digits) :]
    return _moment(text, lambda: datetime.datetime.fromisoformat(text), len(text) > 10)


def _moment(
    text: str, parse: Callable[[], datetime.datetime], has_time: bool
) -> tuple[int, bool | None] | None:
    try:
        moment = parse()
    except ValueError:
        return None
    if moment.tzinfo is not None:
        moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
        return (moment - _EPOCH) // _MICROSECOND, True
    return (moment - _EPOCH) // _MICROSECOND, False if has_time else None


def describe_styles(name: str, styles: Iterable[str]) -> str:
    """Return what to write to read a column in one of these styles."""
    return name_some((f"kinds={{{name!r}: 'date:{each}'}}" for each in styles), 3)
