"""Columns with a role: time, group, weight and exposure of the rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.data.checked_weights import checked_weights
from flambeau.errors import InputError
from flambeau_tabular.columns import Frame
from flambeau_tabular.columns.cell_error import ROW, CellError, with_prefix
from flambeau_tabular.columns.cells import as_categories, as_numbers, is_text, value_type
from flambeau_tabular.options import TabularOptions


@dataclass(frozen=True, eq=False)
class Structure:
    """Time, group, weight and offset of each row; None if the data have no such column.

    Attributes:
        times: Times in a form that ``Split.by_time`` orders: datetime64, numbers or ISO 8601 text.
        groups: Group numbers, int64 ``(n,)``.
        weights: Weights in loss and metrics, ``(n,)``.
        offsets: Logarithms of the exposure, ``(n,)``.
    """

    times: NDArray[Any] | None = None
    groups: NDArray[np.int64] | None = None
    weights: Tensor | None = None
    offsets: Tensor | None = None

    @classmethod
    def of(cls, frame: Frame, options: TabularOptions) -> Structure:
        """Return the structure of a table.

        Raises:
            InputError: A column does not exist, a cell in it is missing, or a weight is invalid.
        """
        times = groups = weights = None
        if options.time is not None:
            times = _times(_complete(frame, options.time, "time"))
        if options.group is not None:
            codes, texts = as_categories(_complete(frame, options.group, "group"))
            # Values of equal text are one group: 1 and 1.0.
            numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
            groups = np.array([numbers[text] for text in texts], dtype=np.int64)[codes]
        if options.weight is not None:
            cells = _complete(frame, options.weight, "weight")
            try:
                weights = checked_weights(
                    torch.tensor(as_numbers(cells, options.weight)), rows=frame.rows
                )
            except InputError as error:
                prefix = f"The column {options.weight!r} of the weights: "
                raise with_prefix(prefix, error) from error
            weights = weights.to(torch.get_default_dtype())
        column = OffsetColumn.of(options)
        offsets = None if column is None else column.read(frame)
        return cls(times, groups, weights, offsets)

    def take(self, rows: NDArray[np.int64]) -> Structure:
        """Return the structure of these rows."""
        return Structure(
            None if self.times is None else self.times[rows],
            None if self.groups is None else self.groups[rows],
            None if self.weights is None else self.weights[torch.from_numpy(rows)],
            None if self.offsets is None else self.offsets[torch.from_numpy(rows)],
        )


@dataclass(frozen=True)
class OffsetColumn:
    """The column with the exposure of each row, or with its logarithm.

    Attributes:
        name: Name of the column.
        is_log: Whether it has the logarithm.
    """

    name: str
    is_log: bool

    @classmethod
    def of(cls, options: TabularOptions) -> OffsetColumn | None:
        """Return the column that the options name, if any."""
        if options.offset is not None:
            return cls(options.offset, True)
        return None if options.exposure is None else cls(options.exposure, False)

    def read(self, frame: Frame) -> Tensor:
        """Return the logarithm of the exposure ``(n,)``, in torch's default dtype.

        Raises:
            InputError: A cell is missing, not finite or, for an exposure, not above 0.
        """
        role = "offset" if self.is_log else "exposure"
        numbers = as_numbers(_complete(frame, self.name, role), self.name)
        wrong = ~np.isfinite(numbers) if self.is_log else ~((numbers > 0) & (numbers < np.inf))
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            needed = "finite" if self.is_log else "above 0 and finite"
            raise CellError(
                f"The {role} {self.name!r} is {numbers[row]:g} in row {ROW}, but must be {needed}. "
                "Correct the cells or drop these rows.",
                row,
            )
        logs = numbers if self.is_log else np.log(numbers)
        return torch.tensor(logs, dtype=torch.get_default_dtype())

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return {"name": self.name, "is_log": self.is_log}


def _complete(frame: Frame, name: str, role: str) -> pa.ChunkedArray:
    cells = frame.column(name)
    if cells.null_count:
        row = int(np.flatnonzero(cells.is_null().to_numpy())[0])
        raise CellError(
            f"The column {name!r} of the {role}s is missing in {cells.null_count:,} rows (first in "
            f"row {ROW}). Fill in the cells or drop these rows.",
            row,
        )
    return cells


def _times(cells: pa.ChunkedArray) -> NDArray[Any]:
    kind = value_type(cells)
    if pa.types.is_dictionary(cells.type):
        cells = cells.cast(kind)
    if pa.types.is_date(kind):
        return np.asarray(cells.cast(pa.timestamp("s")).to_numpy())
    if pa.types.is_timestamp(kind):
        return np.asarray(cells.to_numpy())  # in UTC if it has a zone
    if is_text(kind):
        return np.array(cells.to_pylist(), dtype=object)
    return as_numbers(cells, "time")
