"""Read the cells of an Arrow column by value: as numbers, or as categories."""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute
from numpy.typing import NDArray

from flambeau.errors import InputError
from flambeau_tabular.columns.cell_error import ROW, CellError

pc: Any = pyarrow.compute
"""The functions of Arrow, which are created at run time, so that their types are unknown."""

LARGEST = 1e150
"""Numbers beyond ± this are missing, like infinity: their squares would not be finite."""

_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)(e[-+]?[0-9]{1,3})?", re.IGNORECASE)
_INFINITE = re.compile(r"[-+]?inf(inity)?", re.IGNORECASE)
PIECE_ROWS = 1 << 17
"""Rows of numbers that are encoded at once: in float64, with ten times the memory of the cells."""

# Floats up to this have whole numbers as text: 3.0 is "3".
_EXACT = 1e18
_UNIT_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def canonical_text(value: Any) -> str | None:
    """Return the text that stands for a value as a category; None if it is missing.

    Equal values have equal text, whatever their type: 1, 1.0 and Decimal("1.00") are "1".

    Example:
        >>> canonical_text(1.0), canonical_text(True), canonical_text("1.0"), canonical_text(2.5)
        ('1', 'True', '1.0', '2.5')
    """
    if value is None or value != value:  # noqa: PLR0124  NaN and NaT differ from themselves
        return None
    if isinstance(value, str | bool | np.bool_):
        return str(value)
    if isinstance(value, int | np.integer):
        return str(int(value))
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return _time_text(value)
    if isinstance(value, datetime.timedelta):
        return canonical_text(value.total_seconds())
    return _number_text(value)


def number_of(text: str) -> float | None:
    """Return the number that a text is, NaN for empty text, None if it is no number.

    Example:
        >>> number_of(" 1.50"), number_of("1e3"), number_of("1_000"), number_of("seven")
        (1.5, 1000.0, None, None)
    """
    stripped = text.strip()
    if not stripped or stripped.lower() == "nan":
        return float("nan")
    if _NUMBER.fullmatch(stripped) or _INFINITE.fullmatch(stripped):
        return float(stripped)
    return None


def is_text(kind: pa.DataType) -> bool:
    """Return whether cells of this type are text."""
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def value_type(cells: pa.ChunkedArray) -> pa.DataType:
    """Return the type of the values: that of the dictionary if the cells refer to one."""
    return cells.type.value_type if pa.types.is_dictionary(cells.type) else cells.type


def as_numbers(cells: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    """Return float64 ``(n,)``; missing cells are NaN, infinite ones are as they are.

    Text is parsed; durations and times of day are in seconds; False and True are 0 and 1.

    Args:
        cells: The column.
        name: Its name, for messages.

    Raises:
        InputError: A cell is not a number; the message gives its row.
    """
    kind = cells.type
    if pa.types.is_dictionary(kind):
        codes, values = dictionary_codes(cells)
        if is_text(values.type):
            return _numbers_of_texts(codes, values, name)
        numbers = as_numbers(pa.chunked_array([values]), name) if len(values) else np.zeros(0)
        return np.append(numbers, np.nan)[codes]  # code -1 is the last one
    if is_text(kind):
        return _parsed(cells, name)
    if pa.types.is_null(kind):
        return np.full(len(cells), np.nan)
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        integer = pa.int32() if pa.types.is_time32(kind) else pa.int64()
        return as_numbers(cells.cast(integer), name) * _UNIT_SECONDS[kind.unit]
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        raise InputError(
            f"Column {name!r} is a number, but its cells are dates ({kind}). Give numbers, or set "
            f"kinds={{{name!r}: 'date'}} when you build the data."
        )
    return np.asarray(cells.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)


def taken(
    cells: pa.ChunkedArray, rows: NDArray[np.int64] | None, most: int = PIECE_ROWS
) -> Iterator[pa.ChunkedArray]:
    """Yield the cells of these rows, by position, in pieces.

    Arrow would join all chunks of the column first, which needs its memory once more.

    Args:
        cells: The column.
        rows: Positions; None for all.
        most: Rows of a piece at most.
    """
    n = len(cells) if rows is None else len(rows)
    if n == 0:
        yield cells[:0]
    is_ascending = rows is not None and bool((rows[1:] >= rows[:-1]).all())
    for start in range(0, n, most):
        if rows is None:
            yield cells[start : start + most]
            continue
        chosen = rows[start : start + most]
        if is_ascending:
            first = int(chosen[0])
            yield _taken(cells[first : int(chosen[-1]) + 1], chosen - first)
        else:
            yield _taken(cells, chosen)


def _taken(cells: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    return cells.take(pa.array(rows))


def joined(pieces: Iterator[pa.ChunkedArray]) -> pa.ChunkedArray:
    """Return pieces of a column as one; at least one."""
    parts = list(pieces)
    if len(parts) == 1:
        return parts[0]
    chunks = [chunk for part in parts for chunk in part.chunks]
    return pa.chunked_array(chunks, parts[0].type)


def dictionary_codes(cells: pa.ChunkedArray) -> tuple[NDArray[np.int32], pa.Array]:
    """Return for each cell the position of its value, -1 if it is missing, and the values.

    The values are in no particular order; they may contain NaN, repeat, and be of no cell.
    """
    if not pa.types.is_dictionary(cells.type):
        kind = cells.type
        if pa.types.is_float16(kind):
            cells = cells.cast(pa.float32())
        elif is_text(kind):
            cells = cells.cast(pa.large_string())
        cells = cells.dictionary_encode()
    cells = cells.unify_dictionaries()
    if cells.num_chunks == 0:
        return np.zeros(0, np.int32), pa.array([], cells.type.value_type)
    codes = [
        chunk.indices.cast(pa.int32()).fill_null(-1).to_numpy(zero_copy_only=False)
        for chunk in cells.chunks
    ]
    values = cells.chunk(0).dictionary
    found = np.concatenate(codes)
    if values.null_count:  # of a cell that refers to null
        nulls = np.append(values.is_null().to_numpy(zero_copy_only=False), False)
        found = np.where(nulls[found], -1, found)
    return found, values


def as_categories(cells: pa.ChunkedArray) -> tuple[NDArray[np.int32], list[str | None]]:
    """Return for each cell the position of its text, -1 if null, and the texts of all values.

    A text is None where the value is missing (NaN); texts may repeat and may be of no cell.
    """
    codes, values = dictionary_codes(cells)
    return codes, texts_of(values)


def texts_of(values: pa.Array) -> list[str | None]:
    """Return the canonical text of each value."""
    kind = values.type
    if pa.types.is_float16(kind) or pa.types.is_float32(kind):
        # The shortest text of the width: 0.1 in float32 is 0.1 in float64.
        numbers = values.to_numpy(zero_copy_only=False)
        return [canonical_text(float(str(number))) for number in numbers]
    if pa.types.is_timestamp(kind):  # Python's datetime ends in the year 9999
        times = values.cast(pa.timestamp("us", kind.tz), safe=False).cast(pa.int64()).to_pylist()
        return [None if each is None else moment_text(each) for each in times]
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        values = pa.array(as_numbers(pa.chunked_array([values]), ""))
    return [canonical_text(value) for value in values.to_pylist()]


def as_text(cells: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Return the cells as text (``large_string``): the canonical text of other values."""
    if is_text(value_type(cells)):
        return cells.cast(pa.large_string())
    codes, texts = as_categories(cells)
    values = pa.array([*texts, None], pa.large_string())
    return pa.chunked_array([values.take(pa.array(codes % len(values)))])


def _parsed(cells: pa.ChunkedArray, name: str) -> NDArray[np.float64]:
    try:
        return as_numbers(_without_blanks(cells).cast(pa.float64()), name)
    except pa.ArrowInvalid:
        return _numbers_of_texts(*dictionary_codes(cells), name)


def _without_blanks(texts: Any) -> Any:
    """Return texts without surrounding spaces; empty ones are null."""
    trimmed = pc.utf8_trim_whitespace(texts.cast(pa.large_string()))
    return pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.large_string()), trimmed)


def _numbers_of_texts(codes: NDArray[np.int32], values: pa.Array, name: str) -> NDArray[np.float64]:
    """Return the number of each cell, given the position of its text in ``values`` or -1."""
    try:
        numbers = as_numbers(pa.chunked_array([_without_blanks(values).cast(pa.float64())]), name)
        return np.append(numbers, np.nan)[codes]
    except pa.ArrowInvalid:
        pass
    numbers = np.full(len(values) + 1, np.nan)
    # Only texts of cells: part of a table may refer to the dictionary of all of it.
    for code in np.unique(codes[codes >= 0]).tolist():
        text = values[code].as_py()
        number = number_of(text)
        if number is None:
            row = int(np.flatnonzero(codes == code)[0])
            raise CellError(
                f"Column {name!r} is a number, but row {ROW} has the text {text!r:.60}. Give a "
                "number or leave the cell empty; if the column is not a number, set "
                f"kinds={{{name!r}: 'category'}} when you build the data.",
                row,
            )
        numbers[code] = number
    return numbers[codes]


def _number_text(value: Any) -> str | None:
    if isinstance(value, decimal.Decimal):
        if not value.is_finite():
            return None
        return "0" if value == 0 else format(value.normalize(), "f")
    number = float(value)
    if not np.isfinite(number):
        return None
    return str(int(number)) if number.is_integer() and abs(number) < _EXACT else repr(number)


def moment_text(microseconds: int) -> str:
    """Return a time since 1970 as ISO text: "2024-01-31", or "2024-01-31T08:30:00".

    Example:
        >>> moment_text(0), moment_text(90_500_000)
        ('1970-01-01', '1970-01-01T00:01:30.500000')
    """
    text = str(np.datetime64(int(microseconds), "us"))
    return text.removesuffix(".000000").removesuffix("T00:00:00")


def _time_text(value: datetime.datetime | datetime.date | datetime.time) -> str:
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(datetime.UTC).replace(tzinfo=None)
        if value.time() == datetime.time():
            value = value.date()
    return value.isoformat()
