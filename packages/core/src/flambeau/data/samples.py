"""``Samples``: a table of the samples that were found, before they are split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from torch import Tensor

from flambeau.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SHOWN_ROWS = 5
_SHOWN_WIDTH = 40


@dataclass(frozen=True)
class Problem:
    """A sample that could not be read.

    Attributes:
        source: The file, row or sample.
        reason: Why it could not be read.
    """

    source: str
    reason: str

    def __str__(self) -> str:
        return f"{self.source}: {self.reason}"


@dataclass(frozen=True)
class Samples:
    """A table of samples: named columns of equal length, and the samples that were unreadable.

    Attributes:
        columns: Sequences (lists, arrays, tensors) by name, with one entry per sample.
        problems: Samples that could not be read; the columns do not contain them.

    Raises:
        InputError: There are no columns, or their lengths differ.

    Example:
        >>> samples = Samples({"file": ["a.png", "b.png"], "label": ["cat", "dog"]})
        >>> len(samples), samples["label"][1]
        (2, 'dog')
    """

    columns: Mapping[str, Sequence[Any]]
    problems: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        # Copies, so that later changes by the caller do not change the table.
        object.__setattr__(self, "columns", dict(self.columns))
        object.__setattr__(self, "problems", tuple(self.problems))
        if not self.columns:
            raise InputError("Samples need at least one column, but there are none.")
        lengths = {name: len(column) for name, column in self.columns.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{name!r} has {length}" for name, length in lengths.items())
            raise InputError(
                f"The columns of a table of samples have different lengths: {found}. "
                "Give every column one entry per sample."
            )

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def __getitem__(self, name: str) -> Sequence[Any]:
        if name not in self.columns:
            raise InputError(f"No column {name!r}. {did_you_mean(name, self.columns)}")
        return self.columns[name]

    def select(self, indices: Iterable[int]) -> Samples:
        """Return the rows ``indices``, in that order; ``problems`` are kept.

        Raises:
            InputError: An index is negative or greater than the last row's.
        """
        rows = np.asarray(
            indices if isinstance(indices, np.ndarray) else list(indices), dtype=np.int64
        )
        wrong = rows[(rows < 0) | (rows >= len(self))]
        if wrong.size:
            raise InputError(f"Row {wrong[0]} does not exist: the table has {len(self)} rows.")
        columns = {name: _take(column, rows) for name, column in self.columns.items()}
        return Samples(columns, self.problems)

    def __str__(self) -> str:
        shown = range(min(len(self), _SHOWN_ROWS))
        cells = [
            [name, *(_cell(column[row]) for row in shown)] for name, column in self.columns.items()
        ]
        widths = [max(map(len, column)) for column in cells]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in zip(*cells, strict=True)
        ]
        lines.append(f"{len(self)} samples, {len(self.problems)} could not be read")
        lines += [f"  {problem}" for problem in self.problems[:_SHOWN_ROWS]]
        return "\n".join(lines)


def _cell(value: object) -> str:
    if isinstance(value, Tensor) and value.ndim == 0:
        value = value.item()
    text = str(value).replace("\n", " ")
    return text if len(text) <= _SHOWN_WIDTH else "…" + text[1 - _SHOWN_WIDTH :]


def _take(column: Any, rows: NDArray[np.int64]) -> Sequence[Any]:
    if isinstance(column, np.ndarray | Tensor):
        return cast(Sequence[Any], column[rows])
    return [column[row] for row in rows]
