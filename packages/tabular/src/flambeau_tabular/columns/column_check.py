"""``ColumnCheck``: how the cells of one column differ from the train rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ColumnCheck:
    """How the cells of a column differ from the train rows, as shares of the rows.

    Attributes:
        kind: Kind that the column was fitted as.
        rows: Number of rows.
        missing: Share of missing cells.
        unseen: Share of categories that are not known from train.
        outside: Share of numbers or dates outside of the range in train.
    """

    kind: str
    rows: int
    missing: float
    unseen: float = 0.0
    outside: float = 0.0

    @classmethod
    def of(
        cls,
        kind: str,
        missing: NDArray[np.bool_],
        *,
        unseen: NDArray[np.bool_] | None = None,
        outside: NDArray[np.bool_] | None = None,
    ) -> ColumnCheck:
        """Return the shares, given one boolean ``(n,)`` per row."""
        return cls(kind, len(missing), _share(missing), _share(unseen), _share(outside))


def _share(cells: NDArray[np.bool_] | None) -> float:
    return float(cells.mean()) if cells is not None and len(cells) else 0.0
