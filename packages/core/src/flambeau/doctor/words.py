"""How findings put things into words."""

from __future__ import annotations

from collections.abc import Iterable


def listed(names: Iterable[str], most: int = 5) -> str:
    """The first names, and how many more there are.

    >>> listed("abcdefg", most=2)
    'a, b and 5 more'
    """
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more


def number(value: float) -> str:
    """A figure as a person reads it."""
    return f"{value:.3g}"
