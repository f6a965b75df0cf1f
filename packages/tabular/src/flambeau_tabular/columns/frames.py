"""``Frame``: any table of the user as Arrow columns, with its index kept aside."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flambeau.data.reading import Reading
from flambeau.errors import InputError, did_you_mean
from flambeau.wording import first_line, name_some
from flambeau_tabular.columns.column_source import ColumnSource, PartialTable, read_columns
from flambeau_tabular.columns.column_values import arrow_column
from flambeau_tabular.out_of_scope import refuse_tables


@dataclass(frozen=True)
class CsvDialect:
    """How a delimited text file was read.

    Attributes:
        values: Delimiter, decimal separator …, by the names of `CsvOptions`.
        found: What decided it: columns of numbers by their separators, missing cells by text.
        given: The names that the user set.
    """

    values: Mapping[str, Any]
    found: Mapping[str, int]
    given: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Frame:
    """A table of the user, read once; the user's object is never changed.

    Attributes:
        table: The columns. Their types are those of the source; `TableSpec` reads the cells by
            value.
        index: The index of a pandas frame, in the order of the rows; None for other sources.
        name: What the table is called in messages: "frame", or the name of a file.
        readings: How doubtful columns or a file were interpreted.
        dialect: How the text file was read; None for other sources.
        rows: Number of each row in the table that the user has, int64 ``(n,)``, for messages; None
            if it is the position.

    Example:
        >>> frame = read_frame({"age": [39, 50], "job": ["clerk", None]})
        >>> frame.column_names, len(frame), frame.take([1]).table.to_pylist()
        (['age', 'job'], 2, [{'age': 50, 'job': None}])
    """

    table: ColumnSource
    index: Any | None = None
    name: str = "frame"
    readings: tuple[Reading, ...] = field(default=())
    dialect: CsvDialect | None = None
    rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return self.table.num_rows

    @property
    def column_names(self) -> list[str]:
        """Names of the columns in their order."""
        return list(self.table.column_names)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.table.num_rows

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.table.column_names)

    def column(self, name: str) -> pa.ChunkedArray:
        """Return the cells of one column.

        Raises:
            InputError: There is no such column.
        """
        self.check_name(name)
        return self.table.column(name)

    def check_name(self, name: str) -> None:
        """Check that there is a column of this name, without reading it.

        Raises:
            InputError: There is no such column.
        """
        if name not in self._names:
            raise InputError(
                f"The table ({self.name}) has no column {name!r}. "
                f"{did_you_mean(name, self.table.column_names)}"
            )

    def take(self, rows: Any) -> Frame:
        """Return the frame with these rows, given by position, in this order."""
        positions = np.asarray(rows, dtype=np.int64)
        index = None if self.index is None else self.index[positions]
        rows = positions if self.rows is None else self.rows[positions]
        return replace(self, table=self.table.take(pa.array(positions)), index=index, rows=rows)

    def drop(self, names: Iterable[str]) -> Frame:
        """Return the frame without these columns; names that it does not have are ignored."""
        dropped = set(names)
        kept = [each for each in self.table.column_names if each not in dropped]
        return replace(self, table=self.table.select(kept))


def read_frame(source: Any, name: str = "frame") -> Frame:
    """Return the columns of a table in memory, whatever library it comes from.

    The frame may share memory with the source, so do not change the source in place while the
    frame is in use. The index of a pandas frame is kept aside and is not a column. Missing cells
    (None, NaN, NaT, NA) become null. A column of objects that holds numbers beside text becomes
    text, with a reading; other mixtures are refused.

    Args:
        source: A frame of any library that has ``__arrow_c_stream__`` (pandas, polars, pyarrow,
            DuckDB, …); a mapping of column names to sequences, arrays or series; a list of dicts,
            one per row; a single dict of values, which is one row; or an array ``(n, columns)``,
            whose columns are named "x0", "x1", ….
        name: What the table is called in messages.

    A column that cannot be read (it contains lists, dicts, complex numbers or other objects, or
    mixes types) is an `InputError` when it is used, as are two columns of the same name: so a frame
    may have any other columns. The message names the column, the row and the types.

    Raises:
        InputError: ``source`` is not a table, columns differ in length, or no column can be read.
    """
    if isinstance(source, Frame):
        return source
    refuse_tables(source, name)
    if isinstance(source, Mapping):
        return _from_mapping(source, name)
    if isinstance(source, list | tuple) and source and isinstance(source[0], Mapping):
        return _from_records(source, name)
    if hasattr(source, "iloc") and hasattr(source, "columns"):
        return _from_pandas(source, name)
    if hasattr(source, "to_frame") or isinstance(source, pa.Array | pa.ChunkedArray):
        raise InputError(
            f"A {type(source).__name__} is a single column, not a table. Give a data frame: "
            "series.to_frame(name)."
        )
    if hasattr(source, "__arrow_c_stream__"):
        return _from_arrow(source, name)
    if hasattr(source, "__array__"):
        return _from_array(source, name)
    if hasattr(source, "collect") and hasattr(source, "collect_schema"):
        raise InputError(
            f"A {type(source).__name__} is not computed yet. Give its result: frame.collect()."
        )
    if isinstance(source, str | os.PathLike):
        raise InputError(
            f"{os.fspath(source)!r:.80} is a path, not a table. Read files with from_csv or "
            "from_parquet."
        )
    raise InputError(
        f"A {type(source).__name__} is not a table. Give a data frame (pandas, polars, pyarrow, "
        "DuckDB), a mapping of column names to sequences, a list of dicts, or a dict for one row."
    )


def is_table(items: Any) -> bool:
    """Return whether ``items`` is a frame of several rows: pandas, polars, pyarrow, …."""
    return hasattr(items, "__arrow_c_stream__") or (
        isinstance(items, Mapping) and any(map(_is_column, items.values()))
    )


def _is_column(value: Any) -> bool:
    # Series of pandas and polars, and columns of Arrow, have to_list or to_pylist.
    is_plain = isinstance(value, list | tuple | np.ndarray)
    return is_plain or hasattr(value, "to_list") or hasattr(value, "to_pylist")


def _from_pandas(source: Any, name: str) -> Frame:
    names, readings = _text_names(list(source.columns))
    # A frame without columns has rows, which an Arrow table does not.
    table = _table(names, lambda at: source.iloc[:, at], name, readings)
    return Frame(table, source.index, name, tuple(readings))


def _from_arrow(source: Any, name: str) -> Frame:
    try:
        table = source if isinstance(source, pa.Table) else pa.table(source)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise InputError(
            f"The {type(source).__name__} cannot be read as an Arrow table: {first_line(error)}. "
            "Convert the columns that Arrow does not know to numbers, text or dates."
        ) from error
    if index := pandas_index_columns(table.schema):
        table = table.drop_columns(index)
    names, readings = _text_names(table.column_names)
    read = _table(names, table.column, name, readings)
    return Frame(read, None, name, tuple(readings))


def pandas_index_columns(schema: pa.Schema) -> list[str]:
    """Return the columns that were the index of the pandas frame that was written to Arrow."""
    written = schema.pandas_metadata or {}
    return [
        each
        for each in written.get("index_columns", [])
        if isinstance(each, str) and each in schema.names
    ]


def _from_array(source: Any, name: str) -> Frame:
    array = np.ma.asanyarray(source) if isinstance(source, np.ma.MaskedArray) else _array(source)
    if array.dtype.names is not None:
        columns = {each: array[each] for each in array.dtype.names}
        return _from_mapping(columns, name)
    if array.ndim != 2:
        raise InputError(
            f"An array of shape {array.shape} is not a table. Give an array (n, columns), or a "
            "mapping of column names to arrays."
        )
    readings: list[Reading] = []
    names = [f"x{number}" for number in range(array.shape[1])]
    table = _table(names, lambda at: array[:, at], name, readings)
    return Frame(table, None, name, tuple(readings))


def _array(source: Any) -> np.ndarray:
    if hasattr(source, "detach"):
        source = source.detach().cpu()
    return np.asarray(source)


def _from_mapping(source: Mapping[Any, Any], name: str) -> Frame:
    names, readings = _text_names(list(source))
    values = list(source.values())
    single = [_is_value(each) for each in values]
    if values and all(single):
        return _from_records([source], name)
    if any(single):
        row = names[single.index(True)]
        column = names[single.index(False)]
        raise InputError(
            f"The mapping has a single value for {row!r} and a sequence for {column!r}. Give "
            "single values for one row, or one sequence per column."
        )
    values = [each if hasattr(each, "__len__") else list(each) for each in values]
    lengths = {each: len(column) for each, column in zip(names, values, strict=True)}
    if len(set(lengths.values())) > 1:
        raise InputError(
            "The columns have different lengths: "
            f"{name_some(f'{each} {length:,}' for each, length in lengths.items())}. Give every "
            "column one value per row."
        )
    table = _table(names, values.__getitem__, name, readings)
    return Frame(table, _shared_index(names, values), name, tuple(readings))


def _shared_index(names: Sequence[str], values: Sequence[Any]) -> Any | None:
    """Return the index that all series of a mapping have."""
    indexes = [(each, v.index) for each, v in zip(names, values, strict=True) if hasattr(v, "iloc")]
    for each, index in indexes[1:]:
        if not index.equals(indexes[0][1]):
            raise InputError(
                f"The series {indexes[0][0]!r} and {each!r} have different indexes, so it is "
                "unclear which cells belong to one row. Build a data frame, or pass "
                "series.to_numpy()."
            )
    return indexes[0][1] if indexes else None


def _from_records(source: Sequence[Mapping[Any, Any]], name: str) -> Frame:
    """Return the frame of one dict per row; a key that a row lacks is a missing cell."""
    for row, record in enumerate(source):
        if not isinstance(record, Mapping):
            raise InputError(
                f"Row {row} is a {type(record).__name__}, but row 0 is a dict. Give one dict of "
                "column names to values per row."
            )
    keys = list(dict.fromkeys(key for record in source for key in record))
    names, readings = _text_names(keys)

    def cells_of(at: int) -> np.ndarray:
        cells = np.empty(len(source), dtype=object)
        cells[:] = [_plain_value(record.get(keys[at])) for record in source]
        return cells

    return Frame(_table(names, cells_of, name, readings), None, name, tuple(readings))


def _plain_value(value: Any) -> Any:
    """Return the value of a 0-dimensional array or tensor; other values unchanged."""
    return value.item() if getattr(value, "shape", None) == () else value


def _is_value(value: Any) -> bool:
    if isinstance(value, str | bytes) or getattr(value, "shape", None) == ():
        return True
    return not (hasattr(value, "__len__") or hasattr(value, "__iter__"))


def _text_names(names: Sequence[Any]) -> tuple[list[str], list[Reading]]:
    """Return the names as text, and a reading if some of them were not."""
    texts = [each if isinstance(each, str) else str(each) for each in names]
    converted = [repr(each) for each in names if not isinstance(each, str)]
    if not converted:
        return texts, []
    reading = Reading(
        "columns",
        f"{len(converted)} column names are not text and were converted: {name_some(converted)}.",
        {"names": len(converted)},
        override="Rename the columns: frame.columns = frame.columns.astype(str).",
    )
    return texts, [reading]


def _table(
    names: Sequence[str], cells_of: Callable[[int], Any], table: str, readings: list[Reading]
) -> pa.Table | PartialTable:
    """Return the columns with these names, given a function of their position.

    A column that cannot be read is an error when it is used, and so is a name of several columns.
    """
    positions: dict[str, list[int]] = {}
    for at, name in enumerate(names):
        positions.setdefault(name, []).append(at)

    def read(name: str) -> pa.ChunkedArray:
        first, *others = positions[name]
        if others:
            raise InputError(
                f"The table ({table}) has {len(others) + 1} columns named {name!r}. Give each "
                "column a different name."
            )
        return arrow_column(cells_of(first), name, readings)

    return read_columns((name, lambda name=name: read(name)) for name in positions)
