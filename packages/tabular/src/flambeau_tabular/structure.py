"""Columns that say how rows depend on each other: time, group, and their weights."""

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
from flambeau_tabular.columns.cells import as_categories, as_numbers, is_text, value_type
from flambeau_tabular.options import TabularOptions


@dataclass(frozen=True, eq=False)
class Structure:
    """Time, group and weight of each row; None if the data have no such column.

    Attributes:
        times: Times in a form that ``Split.by_time`` orders: datetime64, numbers or ISO 8601 text.
        groups: Group numbers, int64 ``(n,)``.
        weights: Weights in loss and metrics, ``(n,)``.
    """

    times: NDArray[Any] | None = None
    groups: NDArray[np.int64] | None = None
    weights: Tensor | None = None

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
                weights = checked_weights(torch.tensor(as_numbers(cells, options.weight)))
            except InputError as error:
                raise InputError(
                    f"The column {options.weight!r} of the weights: {error}"
                ) from error
            weights = weights.to(torch.get_default_dtype())
        return cls(times, groups, weights)

    def take(self, rows: NDArray[np.int64]) -> Structure:
        """Return the structure of these rows."""
        return Structure(
            None if self.times is None else self.times[rows],
            None if self.groups is None else self.groups[rows],
            None if self.weights is None else self.weights[torch.from_numpy(rows)],
        )


def _complete(frame: Frame, name: str, role: str) -> pa.ChunkedArray:
    cells = frame.column(name)
    if cells.null_count:
        row = int(np.flatnonzero(cells.is_null().to_numpy())[0])
        raise InputError(
            f"The column {name!r} of the {role}s is missing in {cells.null_count:,} rows (first in "
            f"row {row}). Fill in the cells or drop these rows."
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
