"""``NumberColumn``: encode a column of numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flambeau.errors import InputError
from flambeau_tabular.columns.cells import LARGEST, as_numbers
from flambeau_tabular.columns.column_check import ColumnCheck
from flambeau_tabular.columns.scaling import Scaler, quantile_grids
from flambeau_tabular.options import Scaling


@dataclass(frozen=True)
class NumberColumn:
    """A column of numbers: filled with the median of the train rows and scaled.

    Infinite numbers, and numbers beyond ±1e150, are missing.

    Attributes:
        name: Name of the column.
        scaler: How the numbers are scaled.
        low: Smallest number in train.
        high: Largest number in train.
        missing: Share of missing cells in train; above 0 the column has a flag.
        clipped: Whether other numbers below ``low`` or above ``high`` become these.
    """

    name: str
    scaler: Scaler
    low: float
    high: float
    missing: float
    clipped: bool = False

    kind: ClassVar[str] = "number"

    @classmethod
    def fit(
        cls,
        name: str,
        cells: pa.ChunkedArray,
        rows: NDArray[np.int64] | None,
        scaling: Scaling,
        *,
        clipped: bool = False,
    ) -> tuple[NumberColumn, NDArray[np.float32]]:
        """Return the column fitted on these rows, and its quantiles ``(1, 2, GRID + 1)``.

        Raises:
            InputError: A cell is not a number, or all are missing.
        """
        numbers = _finite(as_numbers(cells, name))
        numbers = numbers if rows is None else numbers[rows]
        known = numbers[~np.isnan(numbers)]
        if len(known) == 0:
            raise InputError(
                f"Column {name!r} cannot be a number: all of its {len(numbers):,} train rows are "
                f"missing. Drop the column, or set kinds={{{name!r}: 'empty'}}."
            )
        known.sort()
        scaler = Scaler.fit(known, scaling)
        missing = 1.0 - len(known) / len(numbers)
        column = cls(name, scaler, float(known[0]), float(known[-1]), missing, clipped)
        return column, quantile_grids(scaler.apply(known))[None]

    @property
    def number_names(self) -> tuple[str, ...]:
        """Names of the columns of ``numbers``."""
        return (self.name,)

    @property
    def flag_names(self) -> tuple[str, ...]:
        """Names of the columns of ``flags``."""
        return (f"{self.name} is missing",) if self.missing else ()

    def encode(self, cells: pa.ChunkedArray) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the scaled numbers ``(n, 1)`` and which cells are missing ``(n,)``."""
        numbers = _finite(as_numbers(cells, self.name))
        if self.clipped:
            np.clip(numbers, self.low, self.high, out=numbers)  # NaN stays
        return self.scaler.apply(numbers)[:, None], np.isnan(numbers)

    def check(self, cells: pa.ChunkedArray) -> ColumnCheck:
        """Return the shares of missing cells and of numbers outside of the range in train."""
        numbers = _finite(as_numbers(cells, self.name))
        outside = (numbers < self.low) | (numbers > self.high)  # False for NaN
        return ColumnCheck.of(self.kind, np.isnan(numbers), outside=outside)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return {**asdict(self), "scaler": self.scaler.to_json()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> NumberColumn:
        """Return the column of `to_json`."""
        return cls(**{**values, "scaler": Scaler.from_json(values["scaler"])})


def _finite(numbers: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the numbers with NaN for infinite and huge ones, and 0 for -0."""
    return np.where(np.abs(numbers) <= LARGEST, numbers, np.nan) + 0.0
