"""``CellError``: an invalid cell, whose row can be numbered as in the table of the user."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from flambeau.errors import InputError

ROW = "\x00"
"""Stands for the number of the row in the text of a ``CellError``."""


class CellError(InputError):
    """A cell of a table is invalid; the message has the number of its row.

    Args:
        text: The message, with `ROW` in place of the number.
        row: Number of the row, from 0.
    """

    names_source_row = True

    def __init__(self, text: str, row: int) -> None:
        super().__init__(text.replace(ROW, str(row)))
        self.text = text
        self.row = row

    def in_rows(self, rows: NDArray[np.int64]) -> CellError:
        """Return the error with the number of its row among these row numbers."""
        return CellError(self.text, int(rows[self.row]))


def with_prefix(prefix: str, error: InputError) -> InputError:
    """Return the error with text before its message; a `CellError` keeps its row."""
    if isinstance(error, CellError):
        return CellError(prefix + error.text, error.row)
    return InputError(f"{prefix}{error}")


@contextmanager
def numbered_as(rows: NDArray[np.int64] | None) -> Generator[None]:
    """Give rows in errors the numbers that they have in another table.

    Args:
        rows: The number of each row in that table; None if it is the same.
    """
    try:
        yield
    except CellError as error:
        if rows is None:
            raise
        raise error.in_rows(rows) from error
