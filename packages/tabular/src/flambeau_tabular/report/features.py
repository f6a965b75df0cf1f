"""``Features``: rows of a table as matrices for models of other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flambeau_tabular.columns import TableSpec
from flambeau_tabular.explain import column_slots

_BUCKETS = 64  # counts of hashed words for all text columns together
_MOST_CODES = 250  # HistGradientBoosting has 255 bins


@dataclass(frozen=True, eq=False)
class Features:
    """Rows of a table, encoded as for the network.

    Attributes:
        numbers: Scaled numbers and parts of dates, NaN where the cell is missing, ``(n, m)``.
        filled: The same with the median of train in place of NaN.
        flags: 1 where a number is missing, ``(n, f)``.
        codes: Codes of categories, ``(n, c)``: 0 missing, 1 unknown.
        words: Logarithm of 1 + counts of hashed words, ``(n, 64)``; no columns without text.
    """

    numbers: NDArray[np.float64]
    filled: NDArray[np.float64]
    flags: NDArray[np.float64]
    codes: NDArray[np.int64]
    words: NDArray[np.float64]

    @classmethod
    def of(cls, spec: TableSpec, inputs: dict[str, Tensor]) -> Features:
        """Return the features of rows that ``spec`` encoded."""
        filled = inputs["numbers"].double().numpy()
        flags = inputs["flags"].double().numpy()
        numbers = filled.copy()
        for slots in column_slots(spec).values():
            if "flags" in slots and "numbers" in slots:
                missing = flags[:, slots["flags"]].any(axis=1)
                numbers[missing, slots["numbers"]] = np.nan
        codes = inputs["categories"].long().numpy()
        return cls(numbers, filled, flags, codes, _words(inputs.get("tokens"), len(filled)))

    def __len__(self) -> int:
        return len(self.numbers)

    def take(self, rows: Any) -> Features:
        """Return some rows."""
        parts: list[NDArray[Any]]
        parts = [self.numbers, self.filled, self.flags, self.codes, self.words]
        return Features(*(each[rows] for each in parts))

    def for_trees(self) -> tuple[NDArray[np.float64], list[int]]:
        """Return a matrix ``(n, columns)`` with NaN for missing cells, and its category columns."""
        codes = np.where(self.codes == 0, np.nan, self.codes - 1.0)
        start = self.numbers.shape[1] + self.words.shape[1]
        matrix = np.concatenate([self.numbers, self.words, codes], axis=1)
        return matrix, list(range(start, start + codes.shape[1]))

    def for_linear(self) -> tuple[NDArray[np.float64], list[int], list[int]]:
        """Return a matrix without NaN, its columns to standardise, and those to encode one-hot."""
        parts = [self.filled, self.words, self.flags, self.codes.astype(np.float64)]
        starts = np.cumsum([0, *(each.shape[1] for each in parts)]).tolist()
        scaled, coded = range(starts[0], starts[2]), range(starts[3], starts[4])
        return np.concatenate(parts, axis=1), list(scaled), list(coded)


def with_few_codes(train: Features, other: Features) -> tuple[Features, Features]:
    """Return both with at most 250 codes per column: the most frequent in train, else unknown."""
    first, second = train.codes.copy(), other.codes.copy()
    for column in range(first.shape[1]):
        counts = np.bincount(first[:, column])
        if len(counts) <= _MOST_CODES and second[:, column].max(initial=0) < _MOST_CODES:
            continue
        kept = np.argsort(-counts[2:], kind="stable")[: _MOST_CODES - 2] + 2
        size = max(len(counts), int(second[:, column].max(initial=0)) + 1)
        new = np.ones(size, np.int64)
        new[0] = 0
        new[kept] = np.arange(2, 2 + len(kept))
        first[:, column], second[:, column] = new[first[:, column]], new[second[:, column]]
    return (
        Features(train.numbers, train.filled, train.flags, first, train.words),
        Features(other.numbers, other.filled, other.flags, second, other.words),
    )


def _words(tokens: Tensor | None, n: int) -> NDArray[np.float64]:
    if tokens is None:
        return np.zeros((n, 0))
    found = tokens.long().numpy()
    rows = np.repeat(np.arange(n), found.shape[1])
    cells = rows * _BUCKETS + found.ravel() % _BUCKETS
    counts = np.bincount(cells[found.ravel() > 0], minlength=n * _BUCKETS)
    return np.log1p(counts.reshape(n, _BUCKETS).astype(np.float64))
