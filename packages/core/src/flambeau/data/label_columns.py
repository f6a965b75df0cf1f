"""``label_rows_of_columns``: several label columns of a table as one row of numbers per sample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flambeau.data.tables import Table
from flambeau.errors import InputError


def label_rows_of_columns(table: Table, names: Sequence[str]) -> list[Any]:
    """Return one array of numbers per row.

    Args:
        table: The table.
        names: The columns, of numbers, or of the texts True and False.

    Raises:
        InputError: A cell is not a number.
    """
    columns = [_numbers_of_flags(table.column(name)) for name in names]
    rows: list[tuple[Any, ...]] = list(zip(*columns, strict=True))
    for row, values in enumerate(rows):
        for name, value in zip(names, values, strict=True):
            if not isinstance(value, int | float):
                raise InputError(
                    f"The label column {name!r} has {value!r:.60} in row {row}, but several label "
                    "columns must contain numbers: regression targets, or 0 and 1 for each class. "
                    "If the classes are text, name one label column."
                )
    array: Any = np.array(rows)
    return list(array)


def _numbers_of_flags(cells: list[Any]) -> list[Any]:
    """Return the cells as bool if all are the texts True and False, as pandas writes them."""
    if not set(cells) <= {"True", "False"}:
        return cells
    return [cell == "True" for cell in cells]
