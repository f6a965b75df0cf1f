"""``FrameRows``: rows of a table as a sequence of inputs, without converting them to Python."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from flambeau.errors import InputError

if TYPE_CHECKING:
    from flambeau_tabular.columns import Frame


class FrameRows(Sequence[Any]):
    """Rows of a frame: an index gives one row as a dict, a slice gives rows.

    Args:
        frame: The table.
    """

    def __init__(self, frame: Frame) -> None:
        self.frame = frame

    def __len__(self) -> int:
        return len(self.frame)

    @overload
    def __getitem__(self, at: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, at: slice) -> FrameRows: ...

    def __getitem__(self, at: int | slice) -> dict[str, Any] | FrameRows:
        if isinstance(at, slice):
            return FrameRows(self.frame.take(np.arange(len(self))[at]))
        if not -len(self) <= at < len(self):
            raise IndexError(f"row {at} of {len(self)}")
        from flambeau_tabular.columns.column_source import readable_names

        row = self.frame.take([at % len(self)])
        names = readable_names(row.table)
        return {name: row.column(name)[0].as_py() for name in names}


def as_frame(items: Any) -> Frame:
    """Return the table that ``predict`` was given: rows of a frame, a frame, or dicts.

    Raises:
        InputError: The items are not rows with columns by name.
    """
    from flambeau_tabular.columns import read_frame

    if isinstance(items, FrameRows):
        return items.frame
    if isinstance(items, list | tuple) and items:
        for at, item in enumerate(items):
            if not isinstance(item, Mapping):
                raise InputError(
                    f"Item {at}: {item!r:.40} of type {type(item).__name__} is no row. Give a data "
                    "frame, or one dict per row with the columns by name."
                )
    return read_frame(items)


class TablePiece(FrameRows):
    """Rows of a file that is read in pieces; its predictions are an Arrow table."""

    def column(self, name: str) -> Any:
        """Return the cells of a column, a ``pyarrow.ChunkedArray``.

        Raises:
            InputError: The file has no such column.
        """
        return self.frame.column(name)
