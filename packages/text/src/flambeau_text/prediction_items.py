"""``items_in``: the inputs in an array, a column, a data set or a frame given to ``predict``."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from flambeau.data.tables import read_table

_KNOWN = (str, bytes, Mapping, PathLike, list, tuple)


def items_in(argument: Any) -> list[Any] | None:
    """Return the inputs in an argument of ``predict``; None if ``predict`` knows what it is.

    Args:
        argument: An array, a column, or a data set, whose entries are inputs; or a frame (polars,
            pyarrow) whose rows are.
    """
    if isinstance(argument, _KNOWN) or not hasattr(argument, "__len__"):
        return None
    if not hasattr(argument, "columns"):
        return list(argument) if hasattr(argument, "__getitem__") else None
    table = read_table(argument)
    columns = [table.column(name) for name in table.names]
    return [dict(zip(table.names, cells, strict=True)) for cells in zip(*columns, strict=True)]
