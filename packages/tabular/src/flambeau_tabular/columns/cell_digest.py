"""``cell_digest``: a hash of the cells of a table, which tells another table from this one."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from flambeau_tabular.columns.frames import Frame
from flambeau_tabular.columns.parquet_files import ParquetTable

MOST_CELLS = 1_000_000
"""Cells that are hashed; of more, those of evenly spread rows."""

_MISSING = "\x00missing"


def cell_digest(frame: Frame, names: Sequence[str]) -> str | None:
    """Return a hash of the cells of columns in memory; None for a file that is read by column.

    The cells are compared as text, so that types that print alike (strings of pandas and polars,
    widths of whole numbers) have one hash.

    Args:
        frame: The table.
        names: The columns.
    """
    if isinstance(frame.table, ParquetTable):
        return None
    step = max(1, math.ceil(len(frame) * len(names) / MOST_CELLS))
    rows = pa.array(np.arange(0, len(frame), step))
    found = hashlib.blake2b(digest_size=6)
    for name in names:
        found.update(repr((name, len(frame))).encode("utf-8", "surrogatepass"))
        for part in _text(frame.column(name).take(rows)).chunks:
            for buffer in part.buffers():
                if buffer is not None:
                    found.update(buffer)
    return found.hexdigest()


def _text(cells: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the cells as text in a new array, in which missing ones have a text, too."""
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(cells.type.value_type)
    try:
        text = cells.cast(pa.large_string())
    except pa.ArrowException:  # types without such a cast
        text = pa.chunked_array([[repr(each) for each in cells.to_pylist()]], pa.large_string())
    filled = pc.fill_null(text, _MISSING)  # pyright: ignore[reportAttributeAccessIssue]
    # A copy, because a slice shares the buffers of the whole.
    return pa.chunked_array([pa.array(filled.to_numpy(), pa.large_string())])
