"""Convert the groups or times of rows to integer codes, for ``Split``."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flambeau.errors import SplitError
from flambeau.wording import name_some

if TYPE_CHECKING:
    from numpy.typing import NDArray

_TIME = r"([01]\d|2[0-4])(:?[0-5]\d(:?[0-6]\d([.,]\d+)?)?)?"
_DAY = r"(0[1-9]|[12]\d|3[01])"
_MONTH = r"(0[1-9]|1[0-2])"
_ISO_8601 = re.compile(
    rf"(?P<moment>\d{{4}}(-{_MONTH}(-{_DAY})?|{_MONTH}{_DAY})?((?P<separator>[T ]){_TIME})?)"
    r"(?P<zone>Z|[-+]\d\d(:?\d\d)?)?"
)


def number_values(values: Any, what: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return each value's rank among the distinct values, and the sorted distinct values.

    Args:
        values: One value per row.
        what: What the values are, for messages: "groups".

    Raises:
        SplitError: A value is missing, there is not one value per row, or the values have several
            types.
    """
    array = _as_array(values)
    if array.ndim != 1:
        raise SplitError(f"{what} has shape {array.shape}. Give one value per row.")
    if (missing := np.flatnonzero(_missing(array))).size:
        raise SplitError(
            f"{what} has no value in {name_rows(missing)}. Fill in the values or drop the rows."
        )
    if array.dtype.kind in "iu" and np.can_cast(array.dtype, np.int64) and len(array):
        low, high = int(array.min()), int(array.max())
        if high - low < len(array):
            return _counted(array, low)
    try:
        distinct, codes = np.unique(array, return_inverse=True)
    except TypeError as error:
        raise SplitError(
            f"{what} mixes types that cannot be sorted ({error}). Give values of one type."
        ) from error
    return codes.reshape(-1).astype(np.int64), distinct


def _counted(array: NDArray[Any], low: int) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return what `number_values` does, without sorting, which needs several times the memory."""
    codes = array.astype(np.int64)
    codes -= low
    found = np.flatnonzero(np.bincount(codes))
    if len(found) <= found[-1]:
        ranks = np.zeros(found[-1] + 1, np.int64)
        ranks[found] = np.arange(len(found))
        codes = ranks[codes]
    return codes, (found + low).astype(array.dtype)


def number_times(times: Any) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Return each time's chronological rank, and the distinct times in chronological order.

    Text is accepted only if its alphabetical order is chronological: ISO 8601, all in one form.

    Raises:
        SplitError: A time is missing, or text is not ISO 8601, or has several forms or zones.
    """
    codes, distinct = number_values(times, "times")
    if not any(isinstance(each, str | bytes) for each in distinct):
        return codes, distinct
    found = [
        _ISO_8601.fullmatch(text) if isinstance(text, str) else None for text in distinct.tolist()
    ]
    if None in found:
        row = int(np.flatnonzero(codes == found.index(None))[0])
        text = distinct.tolist()[codes[row]]
        raise SplitError(
            f"times has the text {text!r:.60} in row {row}, whose alphabetical order "
            "need not be chronological. Convert the text: pd.to_datetime(times, format=…) "
            "for dates, np.asarray(times, float) for numbers; or write it as ISO 8601 with "
            "leading zeros (2020-01-09, 2020-01-09T08:30)."
        )
    matches = cast("list[re.Match[str]]", found)
    first = {_form(match): code for code, match in reversed(list(enumerate(matches)))}
    if len(first) > 1:
        raise SplitError(
            "times has text of several forms or time zones: "
            f"{name_some(repr(str(distinct[code])) for code in sorted(first.values()))}. Convert "
            "it: pd.to_datetime(times, format='ISO8601', utc=True)."
        )
    # Without the zone, which is the same in every row: 08:30:00Z is before 08:30:00.5Z.
    order, ranks = np.unique([match["moment"] for match in matches], return_inverse=True)
    shown = np.empty(len(order), dtype=object)
    shown[ranks] = distinct
    return ranks.reshape(-1)[codes].astype(np.int64), shown


def name_rows(rows: Iterable[Any]) -> str:
    """Return the rows as text: "row 3", "rows 3, 4"."""
    every = list(rows)
    return f"row{'s' if len(every) > 1 else ''} {name_some(every)}"


def _form(match: re.Match[str]) -> tuple[object, ...]:
    """Return the form of a time; text sorts chronologically if all times have the same form."""
    day, _, clock = match["moment"].replace("T", " ").partition(" ")
    dashes, colons = "-" in day or len(day) == 4, ":" in clock or len(clock) < 3
    return dashes, colons, match["separator"], match["zone"]


def _as_array(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind in "US" and not isinstance(values, np.ndarray):
        # NumPy converts numbers and NaN beside text to text.
        return np.array([*values], dtype=object) if array.ndim == 1 else array
    return array


def _missing(array: NDArray[Any]) -> NDArray[np.bool_]:
    if array.dtype.kind in "fcmM":
        return array != array  # noqa: PLR0124  NaN and NaT differ from themselves
    if array.dtype.kind != "O":
        return np.zeros(len(array), np.bool_)
    # pandas' NA by its type name: it cannot be compared, and pandas is not a dependency.
    return np.array(
        [
            value is None or type(value).__name__ == "NAType" or value != value  # noqa: PLR0124
            for value in array
        ],
        np.bool_,
    )
