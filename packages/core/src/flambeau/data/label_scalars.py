"""Single labels: Python values for scalars of every type, and the names of classes."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from flambeau.data.tables import to_list

if TYPE_CHECKING:
    from numpy.typing import NDArray

SEQUENCES: tuple[type[Any], ...] = (list, tuple, set, frozenset, np.ndarray)
_KEPT: tuple[type[Any], ...] = (np.datetime64, np.timedelta64, np.void)
_PLAIN = (str, int, float, bool)
_LONG_DOUBLE: tuple[type[Any], ...] = (np.longdouble,)
_DURATIONS: tuple[type[Any], ...] = (timedelta, np.timedelta64)
_COMPLEX: tuple[type[Any], ...] = (complex, np.complexfloating)
_TIMES: tuple[type[Any], ...] = (date, time, timedelta, np.datetime64, np.timedelta64)


def to_python(value: Any) -> Any:
    """Return a label as text or a Python number; tensors as arrays, other values unchanged.

    Bytes become text, decimals and fractions floats, and a member of an enumeration its number or
    text if it is one (``IntEnum``, ``StrEnum``), else its name.
    """
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Tensor):
        # By a list: for tensors of any device and dtype, with or without gradient.
        return np.asarray(to_list(value)) if value.ndim else value.item()
    if isinstance(value, np.ndarray):
        array = cast("NDArray[Any]", value)
        if array.ndim:
            return array
        value = array[()]
    scalar: Any = value
    if isinstance(scalar, _LONG_DOUBLE):  # its item is a long double
        return float(scalar)
    if isinstance(scalar, np.generic) and not isinstance(scalar, _KEPT):
        scalar = cast("Any", scalar).item()
    return _plain(scalar)


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return _member(value)
    if isinstance(value, bytes | bytearray):
        return value.decode("utf-8", "backslashreplace")
    return float(value) if isinstance(value, Decimal | Fraction) else value


def _member(member: Enum) -> Any:
    if isinstance(member, int):
        return int(member)
    return str.__str__(member) if isinstance(member, str) else str(member.name)


def class_name(value: Any) -> str:
    """Return the name of the class that a label denotes.

    Whole numbers that are stored as floats (a column of a CSV file) lose the ".0".
    """
    value = to_python(value)
    if isinstance(value, np.datetime64):
        value = cast("Any", value).astype("datetime64[us]").item()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def is_missing(value: Any) -> bool:
    """Return whether a label is None, NaN, NaT or text without a visible character."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return True
    if isinstance(value, _TIMES):
        return bool(value != value)  # noqa: PLR0124  NaT differs from itself
    # pandas' missing values by type name: they cannot be compared, and pandas is not a dependency.
    return (isinstance(value, float) and math.isnan(value)) or type(value).__name__ in (
        "NAType",
        "NaTType",
    )


def unusable_reason(value: Any, *, times: bool) -> str:
    """Return why a label is neither a class nor an amount, and what to give; empty if it is one.

    Args:
        value: A label, as ``to_python`` returns it.
        times: Whether dates, times and durations can be used: as classes.
    """
    if isinstance(value, str | float):
        return ""
    if isinstance(value, _TIMES) and not times:
        what = "duration" if isinstance(value, _DURATIONS) else "time"
        return (
            f"is the {what} {str(value)!r}, which could be a class or an amount. "
            "Give amounts as numbers, such as days: (times - start) / np.timedelta64(1, 'D'); for "
            'one class per value pass task="classification" or text'
        )
    parts: Iterable[Any] = value if isinstance(value, SEQUENCES) else (value,)
    for part in parts:
        if isinstance(part, _COMPLEX):
            return (
                f"is {value!r:.60}, a complex number. Give the real and imaginary parts as two "
                "columns"
            )
    if isinstance(value, np.void):
        return f"is {value!s:.60}, a row with fields. Give one field, or an array of numbers"
    if isinstance(value, (int, *SEQUENCES)) and (bits := _bits_of_huge(parts)):
        return f"is an integer of {bits:,} bits, which no type of number can hold. Give it as text"
    return ""


def _bits_of_huge(parts: Iterable[Any]) -> int:
    """Return the bits of an integer that float64 cannot hold; 0 if there is none."""
    if isinstance(parts, np.ndarray) and cast("NDArray[Any]", parts).dtype != object:
        return 0
    bits = max((part.bit_length() for part in parts if isinstance(part, int)), default=0)
    return bits if bits >= sys.float_info.max_exp else 0
