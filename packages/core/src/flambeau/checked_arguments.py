"""Checks of numbers and flags that users pass as arguments."""

from __future__ import annotations

import math
from typing import Any, cast

from flambeau.errors import ArgumentError, InputError


def checked_count(value: object, name: str, *, at_least: int = 1, unit: str = "") -> int:
    """Return a whole number as ``int``.

    Accepted are integers of Python, NumPy and torch, also arrays without dimensions, and whole
    fractions; not floats, True, False or text.

    Args:
        value: The argument.
        name: Its name, for the message.
        at_least: Smallest accepted value.
        unit: What is counted, in the plural.

    Raises:
        ArgumentError: It is not a number.
        InputError: It is not whole, or too small.
    """
    wanted = f"a whole number{f' of {unit}' if unit else ''}, at least {at_least}"
    number = _plain_number(value, name, wanted)
    if not isinstance(number, int) or number < at_least:
        raise InputError(f"{name} must be {wanted}, not {value!r:.60}.")
    return number


def checked_number(
    value: object,
    name: str,
    *,
    at_least: float = -math.inf,
    above: float = -math.inf,
    at_most: float = math.inf,
    below: float = math.inf,
) -> float:
    """Return a finite number within bounds as ``float``; see ``checked_count``.

    Raises:
        ArgumentError: It is not a number.
        InputError: It is NaN, infinite or out of bounds.
    """
    bounds = [
        f"{words} {bound:g}"
        for words, bound in (
            ("at least", at_least),
            ("above", above),
            ("at most", at_most),
            ("below", below),
        )
        if math.isfinite(bound)
    ]
    wanted = "a finite number" + (f", {' and '.join(bounds)}" if bounds else "")
    number = _plain_number(value, name, wanted)
    is_inside = at_least <= number <= at_most and above < number < below
    if not (math.isfinite(number) and is_inside):
        raise InputError(f"{name} must be {wanted}, not {value!r:.60}.")
    return float(number)


def checked_flag(value: object, name: str) -> bool:
    """Return True or False, also of NumPy or torch.

    Raises:
        ArgumentError: It is another value, such as the text "False" or the number 1.
    """
    found = as_plain(value)
    if not isinstance(found, bool):
        raise ArgumentError(f"{name} must be True or False, not {value!r:.60}.")
    return found


def checked_seed(value: object) -> int:
    """Return a seed as ``int``.

    Raises:
        ArgumentError: It is not a whole number.
    """
    seed = as_plain(value)
    if type(seed) is not int:
        raise ArgumentError(f"seed is {value!r:.60}, but it must be a whole number.")
    return seed


def as_plain(value: object) -> Any:
    """Return numbers and flags of other types as those of Python; other values unchanged.

    These types are NumPy's and torch's scalars, arrays without dimensions, fractions and decimals.
    """
    if type(value) in (int, float, bool, str):
        return value
    scalar = cast("Any", value)
    # NumPy and torch: an array with one dimension is a list, not a number.
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0 and not _is_complex(scalar):
        scalar = scalar.item()
    if isinstance(scalar, bool | int | str):
        return scalar
    # Fractions, decimals and floats of other libraries; their modules are not imported here.
    if isinstance(scalar, float) or not hasattr(scalar, "as_integer_ratio"):
        return scalar
    is_whole = getattr(scalar, "denominator", 0) == 1
    return int(scalar) if is_whole else float(scalar)


def _is_complex(value: Any) -> bool:
    return "complex" in str(getattr(value, "dtype", ""))


def _plain_number(value: object, name: str, wanted: str) -> int | float:
    number = as_plain(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        hint = ""
        if isinstance(number, str):
            hint = " Give a number without quotes."
        raise ArgumentError(
            f"{name} must be {wanted}, not {value!r:.60} of type {type(value).__name__}.{hint}"
        )
    return number
