"""``table_writer``: write Arrow tables to one CSV, JSONL or Parquet file, piece by piece."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from flambeau.atomic_write import replaced_file
from flambeau.errors import InputError, MissingDependencyError

Write = Callable[[Any], None]
"""Writes the rows of a ``pyarrow.Table``."""


def arrow() -> Any:
    """Return the module pyarrow.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        import pyarrow  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as error:
        raise MissingDependencyError(
            "Writing tables needs pyarrow: pip install 'flambeau[tables]'."
        ) from error
    return pyarrow


@contextmanager
def table_writer(path: Path) -> Generator[Write]:
    """Yield a function that appends the rows of a table to the file.

    The file is written beside ``path`` and renamed at the end, so that it is complete or absent.

    Args:
        path: A file *.csv, *.jsonl or *.parquet; it is replaced.

    Raises:
        StorageError: The file cannot be written.
        InputError: A column of a later piece has another type, for which Parquet has no place.
    """
    writers = {".csv": _csv, ".jsonl": _json_lines, ".parquet": _parquet}
    with replaced_file(path) as part, writers[path.suffix.lower()](part) as write:
        yield write


@contextmanager
def _parquet(part: Path) -> Generator[Write]:
    from pyarrow import parquet  # pyright: ignore[reportMissingTypeStubs]

    found: list[Any] = []
    rows = 0

    def write(table: Any) -> None:
        nonlocal rows
        table = _without_dictionaries(table)
        if not found:
            found.append(parquet.ParquetWriter(part, table.schema))
        found[0].write_table(_with_schema(table, found[0].schema, rows))
        rows += table.num_rows

    try:
        yield write
    finally:
        for writer in found:
            writer.close()


def _with_schema(table: Any, schema: Any, rows: int) -> Any:
    """Return the table with the column types of the first piece, if no value changes."""
    for wanted, column in zip(schema, table.columns, strict=True):
        if column.type == wanted.type or column.null_count == len(column):
            continue
        raise InputError(
            f"Column {wanted.name!r} has cells of {wanted.type} up to row {rows:,} and cells of "
            f"{column.type} in the rows after it, but a column of Parquet has one type. Write to a "
            "file .csv or .jsonl, or give the column one type in the input."
        )
    return table.cast(schema)


@contextmanager
def _csv(part: Path) -> Generator[Write]:
    from pyarrow import csv as module  # pyright: ignore[reportMissingTypeStubs]

    csv = cast(Any, module)
    with open(part, "wb") as file:

        def write(table: Any) -> None:
            options = csv.WriteOptions(include_header=file.tell() == 0)
            csv.write_csv(_without_lists(_without_dictionaries(table)), file, options)

        yield write


@contextmanager
def _json_lines(part: Path) -> Generator[Write]:
    with open(part, "w", encoding="utf-8", newline="") as file:

        def write(table: Any) -> None:
            rows = table.to_pylist()
            file.writelines(json.dumps(r, ensure_ascii=False, default=str) + "\n" for r in rows)

        yield write


def _without_dictionaries(table: Any) -> Any:
    """Return the table with plain cells, which do not depend on the piece of a file."""
    types = arrow().types
    for at, field in enumerate(table.schema):
        if types.is_dictionary(field.type):
            cells = table.column(at).cast(field.type.value_type)
            table = table.set_column(at, field.name, cells)
    return table


def _without_lists(table: Any) -> Any:
    """Return the table with lists as JSON, which other programs can read."""
    types = arrow().types
    for at, field in enumerate(table.schema):
        if types.is_list(field.type):
            texts = [json.dumps(row, ensure_ascii=False) for row in table.column(at).to_pylist()]
            table = table.set_column(at, field.name, arrow().array(texts))
    return table
