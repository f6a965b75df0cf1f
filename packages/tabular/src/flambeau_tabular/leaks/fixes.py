"""What to write against a finding, in Python and on the command line."""

from __future__ import annotations

import shlex


def drop_column(name: str) -> str:
    """Return how a column is dropped.

    Example:
        >>> drop_column("net income")
        "TabularOptions(drop=['net income']), on the command line --drop 'net income'"
    """
    return f"TabularOptions(drop=[{name!r}]), on the command line --drop {shlex.quote(name)}"


def declare(role: str, name: str) -> str:
    """Return how a column is declared as the time or the group of the rows.

    Example:
        >>> declare("time", "day")
        "time='day', on the command line --time day"
    """
    return f"{role}={name!r}, on the command line --{role} {shlex.quote(name)}"
