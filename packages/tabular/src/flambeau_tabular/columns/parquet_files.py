"""``read_parquet_table``: a Parquet file whose columns are read one at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flambeau.errors import InputError, check_path
from flambeau.wording import first_line
from flambeau_tabular.columns.cells import is_text
from flambeau_tabular.columns.column_source import ColumnSource, read_columns
from flambeau_tabular.columns.column_values import arrow_column
from flambeau_tabular.columns.frames import Frame, pandas_index_columns, read_frame


def read_parquet_table(path: str | os.PathLike[str]) -> Frame:
    """Return a Parquet file as a frame that reads each column when it is needed.

    One column is in memory at a time, and text is read as a dictionary. The index that pandas wrote
    is not a column.

    Args:
        path: The file.

    Raises:
        InputError: The file does not exist or is not a Parquet file.
    """
    check_path(path, "path")
    path = Path(path)
    return Frame(ParquetTable(path), None, path.name)


def iter_parquet_tables(path: str | os.PathLike[str], rows: int = 1 << 16) -> Iterator[Frame]:
    """Yield a Parquet file in pieces of at most this many rows; one without rows as one piece.

    Raises:
        InputError: The file does not exist or is not a Parquet file.
    """
    check_path(path, "path")
    table = ParquetTable(Path(path))
    start = 0
    for batch in table.file.iter_batches(rows, columns=table.column_names):
        frame = read_frame(pa.Table.from_batches([batch]), Path(path).name)
        yield replace(frame, rows=np.arange(start, start + len(frame)))
        start += len(frame)
    if not start:  # the names and types of the columns of a file without rows
        empty = table.file.schema_arrow.empty_table().select(table.column_names)
        yield read_frame(empty, Path(path).name)


class ParquetTable:
    """The columns of a Parquet file, read when they are needed; a `ColumnSource`.

    Args:
        path: The file.
        names: Only these columns; None for all.
    """

    def __init__(self, path: Path, names: list[str] | None = None) -> None:
        if not path.is_file():
            raise InputError(
                f"{path} does not exist or is not a file (current folder: {Path.cwd()}). Give a "
                "Parquet file."
            )
        try:
            schema = pq.read_schema(path)
            text = [each.name for each in schema if is_text(each.type)]
            # Not memory-mapped: the pages of a mapped file count as memory of the process. Not
            # buffered ahead: the reader would keep the compressed bytes of the last column.
            self.file = pq.ParquetFile(path, read_dictionary=text, pre_buffer=False)
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"{path} is not a Parquet file: {first_line(error)}.") from error
        index = pandas_index_columns(schema)
        self._path = path
        self._names = names or [each for each in schema.names if each not in index]

    def __reduce__(self) -> tuple[type[ParquetTable], tuple[Path, list[str]]]:
        return ParquetTable, (self._path.absolute(), self._names)  # an open file is not copied

    @property
    def column_names(self) -> list[str]:
        """Names of the columns in their order."""
        return list(self._names)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.file.metadata.num_rows

    def column(self, name: str) -> pa.ChunkedArray:
        """Return the cells of one column, read from the file.

        Raises:
            InputError: The cells are not single values, or the file is damaged.
        """
        return self._read(name, list(range(self.file.num_row_groups)))

    def select(self, names: list[str]) -> ParquetTable:
        """Return these columns only."""
        return ParquetTable(self._path, list(names))

    @cached_property
    def block_starts(self) -> NDArray[np.int64]:
        """The first row of each block (row group) of the file, ascending."""
        sizes = [
            self.file.metadata.row_group(at).num_rows for at in range(self.file.num_row_groups)
        ]
        return np.cumsum([0, *sizes[:-1]], dtype=np.int64)

    def take(self, rows: Any) -> ColumnSource:
        """Return these rows, by position; blocks without such rows are not read."""
        positions = np.asarray(rows, dtype=np.int64)
        block_of = np.searchsorted(self.block_starts, positions, "right") - 1
        blocks = np.unique(block_of)
        lengths = np.diff(np.append(self.block_starts, self.num_rows))[blocks]
        # The blocks that are read follow each other.
        moved = self.block_starts[blocks] - (np.cumsum(lengths) - lengths)
        at = pa.array(positions - moved[np.searchsorted(blocks, block_of)])
        read = blocks.tolist()
        return read_columns(
            (name, lambda name=name: self._read(name, read).take(at)) for name in self._names
        )

    def _read(self, name: str, blocks: list[int]) -> pa.ChunkedArray:
        # Arrow reads one column on one thread in any case, and a thread of its pool would keep the
        # memory of the read for some milliseconds after it returns.
        try:
            if len(blocks) == self.file.num_row_groups:
                table = self.file.read([name], use_threads=False, use_pandas_metadata=False)
            else:
                table = self.file.read_row_groups(
                    blocks, [name], use_threads=False, use_pandas_metadata=False
                )
        except (pa.ArrowException, OSError) as error:
            raise InputError(
                f"Column {name!r} of {self._path} cannot be read: {first_line(error)}."
            ) from error
        # A column of structs is several columns of the file.
        return arrow_column(table.column(name), name, [])
