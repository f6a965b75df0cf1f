"""``ColumnSource``: columns by name; one that cannot be read is an error only when it is used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pyarrow as pa

from flambeau.errors import InputError


class ColumnSource(Protocol):
    """What the columns are read from: a ``pyarrow.Table``, or a file that is read by column."""

    @property
    def column_names(self) -> list[str]:
        """Names of the columns in their order."""
        ...

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        ...

    def column(self, name: str) -> pa.ChunkedArray:
        """Return the cells of one column."""
        ...

    def select(self, names: list[str]) -> ColumnSource:
        """Return these columns only."""
        ...

    def take(self, rows: Any) -> ColumnSource:
        """Return these rows, by position."""
        ...


@dataclass(frozen=True, eq=False)
class PartialTable:
    """A table with columns that cannot be read, which matters only if they are used.

    Attributes:
        table: The other columns, at least one.
        names: Names of all columns in their order.
        errors: Why the others cannot be read, by name.
    """

    table: pa.Table
    names: tuple[str, ...]
    errors: Mapping[str, InputError]

    @property
    def column_names(self) -> list[str]:
        """Names of the columns in their order."""
        return list(self.names)

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return self.table.num_rows

    def column(self, name: str) -> pa.ChunkedArray:
        """Return the cells of one column.

        Raises:
            InputError: The column cannot be read.
        """
        if name in self.errors:
            raise InputError(str(self.errors[name]))
        return self.table.column(name)

    def select(self, names: list[str]) -> ColumnSource:
        """Return these columns only."""
        return read_columns((name, lambda name=name: self.column(name)) for name in names)

    def take(self, rows: Any) -> PartialTable:
        """Return these rows, by position."""
        return replace(self, table=self.table.take(rows))


def read_columns(
    readers: Iterable[tuple[str, Callable[[], pa.ChunkedArray]]],
) -> pa.Table | PartialTable:
    """Return the columns that functions read, by name.

    Raises:
        InputError: None of the columns can be read.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    errors: dict[str, InputError] = {}
    names: list[str] = []
    for name, read in readers:
        names.append(name)
        try:
            columns[name] = read()
        except InputError as error:
            errors[name] = error
    if errors and not columns:
        raise next(iter(errors.values()))
    table = pa.table(columns)
    return PartialTable(table, tuple(names), errors) if errors else table


def readable_names(table: ColumnSource) -> list[str]:
    """Return the names of the columns that can be read, as far as is known."""
    return [
        name
        for name in table.column_names
        if not (isinstance(table, PartialTable) and name in table.errors)
    ]
