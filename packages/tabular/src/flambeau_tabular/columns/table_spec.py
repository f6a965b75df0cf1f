"""``TableSpec``: encode any table as the train rows were; pure data, fitted on train rows only."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.errors import FlambeauWarning, InputError, did_you_mean
from flambeau.wording import name_some
from flambeau_tabular.column_kind import UNUSED, ColumnKind, require_inputs
from flambeau_tabular.columns.category_column import CategoryColumn, levels_of
from flambeau_tabular.columns.cell_error import numbered_as, with_prefix
from flambeau_tabular.columns.cells import PIECE_ROWS, is_text, joined, taken, value_type
from flambeau_tabular.columns.column_check import ColumnCheck
from flambeau_tabular.columns.column_source import ColumnSource
from flambeau_tabular.columns.date_column import DateColumn
from flambeau_tabular.columns.encoded_table import EncodedTable
from flambeau_tabular.columns.frames import Frame
from flambeau_tabular.columns.memory import release_memory
from flambeau_tabular.columns.number_column import NumberColumn
from flambeau_tabular.columns.scaling import GRID
from flambeau_tabular.columns.spec_options import SpecOptions
from flambeau_tabular.columns.text_column import TextColumn

# Smallest distance of an edge for distinct values from others, relative to the range.
_LEAST_WIDTH = 1e-3
_CATEGORY_ROWS = 1 << 18

Column = NumberColumn | DateColumn | CategoryColumn | TextColumn
_CLASSES: dict[str, type[Column]] = {
    "number": NumberColumn,
    "category": CategoryColumn,
    "ordered": CategoryColumn,
    "boolean": CategoryColumn,
    "date": DateColumn,
    "text": TextColumn,
}


@dataclass(frozen=True, eq=False)
class TableSpec:
    """The fitted columns of a table; encodes any table with columns of these names.

    Attributes:
        columns: The fitted columns, sorted by name.
        grid: Quantiles of each number in train after scaling, and of its distinct values, float32
            ``(m, 2, GRID + 1)``.

    Example:
        >>> table = pa.table({"age": [20, 30, 40], "job": ["clerk", "nurse", None]})
        >>> kinds = {"age": ColumnKind("number"), "job": ColumnKind("category")}
        >>> spec = TableSpec.fit(table, None, kinds)
        >>> encoded = spec.encode(pa.table({"job": ["nurse", "pilot", None], "age": [30, 30, 30]}))
        >>> encoded.numbers.tolist(), encoded.categories.tolist()
        ([[0.0], [0.0], [0.0]], [[3], [1], [0]])
    """

    columns: tuple[Column, ...]
    grid: Tensor
    _warned: set[str] = field(default_factory=set, repr=False)

    @classmethod
    def fit(
        cls,
        table: ColumnSource | Frame,
        rows: NDArray[np.int64] | None,
        kinds: Mapping[str, ColumnKind],
        options: SpecOptions | None = None,
    ) -> TableSpec:
        """Return the spec of these columns.

        Args:
            table: The columns.
            rows: Positions of the train rows; None for all. Other rows have no influence.
            kinds: The kind of each column, as `infer_kinds` returns it; columns that are not named
                are not used.
            options: How columns are encoded.

        Raises:
            InputError: A column is missing, its cells are not of its kind, or no column is left.
        """
        options = options or SpecOptions()
        used = {name: kinds[name] for name in sorted(kinds) if kinds[name].kind not in UNUSED}
        require_inputs({name: (each.kind, each.reason) for name, each in kinds.items()})
        columns, grids = [], []
        for name, kind in used.items():
            with _named(table):
                cells = _cells(table, name, kind.kind)
                column, grid = _fit_column(name, cells, rows, kind, options)
                del cells
            release_memory(table.num_rows)
            columns.append(column)
            if grid is not None:
                grids.append(grid)
        grid = np.concatenate(grids) if grids else np.zeros((0, 2, GRID + 1), np.float32)
        return cls(tuple(columns), torch.from_numpy(grid))

    def encode(
        self, table: ColumnSource | Frame, rows: NDArray[np.int64] | None = None
    ) -> EncodedTable:
        """Return the tensors of a table, or of some of its rows.

        Columns are found by name; others are ignored. A number or date that is missing in a column
        without missing cells in train is filled like others, with one warning per column.

        Args:
            table: The columns.
            rows: Positions of the rows; None for all. One column at a time is taken, so that the
                rows are never in memory a second time.

        Raises:
            InputError: A column is missing, or its cells are not of the kind in train.
        """
        n = table.num_rows if rows is None else len(rows)
        positions = None if rows is None else np.asarray(rows, np.int64)
        numbers = np.empty((n, len(self.number_names)), np.float32)
        flags = np.empty((n, len(self.flag_names)), np.uint8)
        categories = np.empty((n, len(self.category_names)), self._code_dtype)
        tokens = np.empty((n, len(self.text_names) * self.text_width), np.int32)
        m = f = c = t = 0
        surprising: list[str] = []
        for column in self.columns:
            with _named(table, positions):
                cells = _cells(table, column.name, column.kind)
                pieces = taken(cells, positions, _rows_at_once(column, cells))
                del cells
                if isinstance(column, CategoryColumn):
                    _encode_categories(column, pieces, categories[:, c])
                    c += 1
                elif isinstance(column, TextColumn):
                    tokens[:, t : t + self.text_width] = column.encode(
                        joined(pieces), self.text_width
                    )
                    t += self.text_width
                else:
                    width = len(column.number_names)
                    missing = _encode_numbers(column, pieces, numbers[:, m : m + width])
                    m += width
                    if column.flag_names:
                        flags[:, f] = missing
                        f += 1
                    elif missing.any():
                        surprising.append(column.name)
            del pieces
            release_memory(table.num_rows)
        self._warn_missing(surprising)
        return EncodedTable(
            torch.from_numpy(numbers),
            torch.from_numpy(flags),
            torch.from_numpy(categories),
            torch.from_numpy(tokens) if self.text_names else None,
        )

    def check(self, table: ColumnSource | Frame) -> dict[str, ColumnCheck]:
        """Return for each column how its cells differ from the train rows.

        Raises:
            InputError: As `encode`.
        """
        with _named(table):
            return {
                column.name: column.check(_cells(table, column.name, column.kind))
                for column in self.columns
            }

    def quantile_edges(self, n_bins: int, *, distinct: bool = False) -> list[list[float]]:
        """Return for each number the edges of bins with equally many train rows, without repeats.

        There are at least two edges, also for a number that is constant in train.

        Edges are those of ``numpy.quantile`` over the scaled train values if ``n_bins`` divides
        ``GRID``, and are interpolated between the stored quantiles otherwise.

        Args:
            n_bins: Number of bins.
            distinct: Whether to add the edges of bins with equally many distinct values. If one
                value is that of most rows, nearly all bins of rows end there, and the other values
                share the few that are left. Added edges are at least a thousandth of the range
                away from others; if all values differ, there are none.
        """
        if not 1 <= n_bins <= GRID:
            raise InputError(f"n_bins has to be from 1 to {GRID}, got {n_bins}.")
        levels = np.linspace(0.0, 1.0, n_bins + 1)
        stored = np.linspace(0.0, 1.0, GRID + 1)
        found: list[list[float]] = []
        for grids in self.grid.double().numpy():
            rows, values = (
                np.unique(np.interp(levels, stored, grid).astype(np.float32)) for grid in grids
            )
            found.append((_merged(rows, values) if distinct else rows).tolist())
        return [
            edges if len(edges) > 1 else [edges[0], edges[0] + max(1.0, 1e-6 * abs(edges[0]))]
            for edges in found
        ]

    @property
    def number_names(self) -> tuple[str, ...]:
        """Names of the columns of ``numbers``."""
        return tuple(name for column in self._numbers for name in column.number_names)

    @property
    def flag_names(self) -> tuple[str, ...]:
        """Names of the columns of ``flags``."""
        return tuple(name for column in self._numbers for name in column.flag_names)

    @property
    def category_names(self) -> tuple[str, ...]:
        """Names of the columns of ``categories``."""
        return tuple(column.name for column in self._categories)

    @property
    def cardinalities(self) -> tuple[int, ...]:
        """Number of codes of each category column, with those for missing and unknown."""
        return tuple(column.cardinality for column in self._categories)

    @property
    def text_names(self) -> tuple[str, ...]:
        """Names of the free-text columns."""
        return tuple(column.name for column in self._texts)

    @property
    def text_width(self) -> int:
        """Number of columns of ``tokens`` for each text column; 0 without text columns."""
        return max((column.width for column in self._texts), default=0)

    @property
    def text_buckets(self) -> int:
        """Number of different tokens, with 0 for padding; 0 without text columns."""
        return max((column.buckets for column in self._texts), default=0)

    @property
    def _numbers(self) -> list[NumberColumn | DateColumn]:
        return [each for each in self.columns if isinstance(each, NumberColumn | DateColumn)]

    @property
    def _categories(self) -> list[CategoryColumn]:
        return [each for each in self.columns if isinstance(each, CategoryColumn)]

    @property
    def _texts(self) -> list[TextColumn]:
        return [each for each in self.columns if isinstance(each, TextColumn)]

    @property
    def _code_dtype(self) -> type[np.integer]:
        largest = max(self.cardinalities, default=0) - 1
        return np.uint8 if largest < 2**8 else np.int16 if largest < 2**15 else np.int32

    def arguments(self) -> dict[str, Any]:
        """Return everything but the tensors as JSON values."""
        return {"columns": [{"kind": each.kind, **each.to_json()} for each in self.columns]}

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name."""
        return {"grid": self.grid}

    @classmethod
    def from_parts(cls, arguments: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> TableSpec:
        """Return the spec of `arguments` and `tensors`."""
        columns = []
        for each in arguments["columns"]:
            wanted = _CLASSES[each["kind"]]
            values = dict(each)
            if wanted is not CategoryColumn:
                del values["kind"]
            columns.append(wanted.from_json(values))
        return cls(tuple(columns), tensors["grid"])

    def hash(self) -> str:
        """Return the SHA-256 of the arguments as canonical JSON and of the tensors."""
        text = json.dumps(self.arguments(), sort_keys=True, separators=(",", ":"))
        digest = hashlib.sha256(text.encode())
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def _warn_missing(self, names: list[str]) -> None:
        new = [each for each in names if each not in self._warned]
        if new:
            self._warned.update(new)
            warnings.warn(
                f"Cells are missing in columns that had no missing cells in train: "
                f"{name_some(map(repr, new))}. They are filled with the median of train.",
                FlambeauWarning,
                stacklevel=3,
            )


def _merged(edges: NDArray[np.float32], more: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return sorted edges with those of ``more`` that are not too close to another."""
    least = (edges[-1] - edges[0]) * _LEAST_WIDTH
    added: list[float] = []
    for edge in more.tolist():
        if np.abs(edges - edge).min() >= least and (not added or edge - added[-1] >= least):
            added.append(edge)
    return np.union1d(edges, np.array(added, np.float32))


def _rows_at_once(column: Column, cells: pa.ChunkedArray) -> int:
    """Return how many rows are encoded at once; for categories every piece reads the dictionary."""
    if not isinstance(column, CategoryColumn):
        return PIECE_ROWS
    is_coded = pa.types.is_dictionary(cells.type) and cells.num_chunks
    return max(_CATEGORY_ROWS, 8 * len(cells.chunk(0).dictionary) if is_coded else 0)


def _encode_categories(
    column: CategoryColumn, pieces: Iterator[pa.ChunkedArray], codes: NDArray[np.integer]
) -> None:
    """Write the codes of a column, piece by piece: as a whole it would be in memory five times."""
    start = 0
    for cells in pieces:
        codes[start : start + len(cells)] = column.encode(cells)
        start += len(cells)


def _encode_numbers(
    column: NumberColumn | DateColumn,
    pieces: Iterator[pa.ChunkedArray],
    numbers: NDArray[np.float32],
) -> NDArray[np.bool_]:
    """Write the numbers of a column, and return which cells are missing."""
    missing = np.empty(len(numbers), np.bool_)
    start = 0
    first = next(pieces)
    # Text is read as a whole, so that errors name the row and equal texts are read once.
    is_whole = is_text(value_type(first))
    found = [joined(chain([first], pieces))] if is_whole else chain([first], pieces)
    for cells in found:
        rows = slice(start, start + len(cells))
        numbers[rows], missing[rows] = column.encode(cells)
        start += len(cells)
    return missing


def _fit_column(
    name: str,
    cells: pa.ChunkedArray,
    rows: NDArray[np.int64] | None,
    kind: ColumnKind,
    options: SpecOptions,
) -> tuple[Column, NDArray[np.float32] | None]:
    """Return the fitted column, and the quantiles of its numbers if it has some."""
    clipped = options.out_of_range == "clip"
    if kind.kind == "number":
        return NumberColumn.fit(name, cells, rows, options.scaling, clipped=clipped)
    if kind.kind == "date":
        return DateColumn.fit(name, cells, rows, options.scaling, kind.style, clipped=clipped)
    if kind.kind == "text":
        buckets, most = options.text_buckets, options.max_text_width
        return TextColumn.fit(name, cells, rows, buckets, most), None
    if kind.kind in ("category", "ordered", "boolean"):
        column = CategoryColumn.fit(
            name,
            cells,
            rows,
            kind.kind,
            levels=kind.levels or (levels_of(cells) if kind.kind == "ordered" else None),
            min_count=options.min_count,
            max_categories=options.max_categories,
        )
        return column, None
    raise InputError(f"Column {name!r} has the unknown kind {kind.kind!r}.")


@contextmanager
def _named(
    table: ColumnSource | Frame, positions: NDArray[np.int64] | None = None
) -> Generator[None]:
    """Add the name of a file to errors about its cells, and number rows as in the user's table.

    Args:
        table: The table.
        positions: The positions in the table of the rows that are read; None for all.
    """
    try:
        with numbered_as(table.rows if isinstance(table, Frame) else None), numbered_as(positions):
            yield
    except InputError as error:
        if isinstance(table, Frame) and table.name != "frame":
            raise with_prefix(f"{table.name}: ", error) from error
        raise


def _cells(table: ColumnSource | Frame, name: str, kind: str) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise InputError(
            f"The table has no column {name!r}, which is an input of the kind {kind!r}. "
            f"{did_you_mean(name, table.column_names)}"
        )
    return table.column(name)
