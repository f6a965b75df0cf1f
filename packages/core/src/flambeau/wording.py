"""Functions that format lists, sizes, numbers and errors for messages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def name_some(names: Iterable[object], most: int = 5) -> str:
    """Return the first names, separated by commas, and how many more there are.

    Args:
        names: Anything with a ``str``; pass ``map(repr, names)`` for quotes.
        most: Largest number of names that are shown.

    Example:
        >>> name_some("abcdefg", most=2)
        'a, b and 5 more'
    """
    every = [str(name) for name in names]
    more = f" and {len(every) - most:,} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def count_of(n: int, noun: str) -> str:
    """Return the number with the noun: "1 epoch", "2 epochs"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def format_bytes(count: float) -> str:
    """Return a size in memory or on disk as text, in decimal units (1 GB = 10⁹ bytes).

    Example:
        >>> format_bytes(1_234_000_000), format_bytes(560_000), format_bytes(5_600), format_bytes(5)
        ('1.2 GB', '0.6 MB', '5.6 kB', '5 B')
    """
    for unit, size, least in (("GB", 1e9, 1e9), ("MB", 1e6, 1e5), ("kB", 1e3, 1e3)):
        if count >= least:
            return f"{count / size:,.1f} {unit}"
    return f"{count:.0f} B"


def format_count(value: float) -> str:
    """Return a large number with its decimal prefix, as text.

    Example:
        >>> format_count(3_600_000_000), format_count(884_736), format_count(12)
        ('3.6 G', '884.7 k', '12')
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.1f} {unit}"
    return f"{value:.0f}"


def format_seconds(value: float) -> str:
    """Return a duration as text, with a unit that suits it.

    Example:
        >>> format_seconds(250.0), format_seconds(2.5), format_seconds(0.025), format_seconds(25e-6)
        ('250 s', '2.5 s', '25.0 ms', '25 µs')
    """
    if value >= 100:
        return f"{value:,.0f} s"
    if value >= 1:
        return f"{value:.1f} s"
    return f"{value * 1e3:.1f} ms" if value >= 1e-3 else f"{value * 1e6:.0f} µs"


def duration_text(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def format_number(value: float) -> str:
    """Return a number with three significant digits."""
    return f"{value:.3g}"


def named_numbers(values: Mapping[str, float]) -> str:
    """Return numbers as text with their names; a single one without its name.

    Example:
        >>> named_numbers({"value": 0.25}), named_numbers({"low": 2019.0, "high": 2024.5})
        ('0.25', 'low 2019, high 2024.5')
    """
    if len(values) == 1:
        return f"{next(iter(values.values())):g}"
    return ", ".join(f"{name} {value:g}" for name, value in values.items())


def first_line(error: BaseException) -> str:
    r"""Return the first line of an error's message, or its type if it has no message.

    Example:
        >>> first_line(ValueError("no rows\nin this file")), first_line(KeyError())
        ('no rows', 'KeyError')
    """
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def type_and_first_line(error: BaseException) -> str:
    """Return an error's type and the first line of its message, without a full stop.

    Example:
        >>> type_and_first_line(ValueError("There are no rows."))
        'ValueError: There are no rows'
    """
    lines = str(error).strip().splitlines()
    return (
        f"{type(error).__name__}: {lines[0].removesuffix('.')}" if lines else type(error).__name__
    )


def class_name(part: object) -> str:
    """Return the name of a function or class, or of the class of an object."""
    return str(getattr(part, "__qualname__", type(part).__qualname__))


def describe_values(values: Mapping[str, Any]) -> str:
    """Return values by name as text: "temperature 1.52, thresholds [0.4, 0.6]"."""
    return ", ".join(f"{name} {_short_value(value)}" for name, value in values.items())


def _short_value(value: Any) -> str:
    if isinstance(value, dict):  # scores of many samples
        return f"of {', '.join(map(str, value))}"  # pyright: ignore[reportUnknownArgumentType]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_short_value, value))}]"  # pyright: ignore[reportUnknownArgumentType]
    return str(value)
