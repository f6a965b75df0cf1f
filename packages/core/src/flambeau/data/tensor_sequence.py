"""``TensorSequence``: tensors in memory, read as a sequence of samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from torch import Tensor


class TensorSequence(Sequence[Any]):
    """A view of tensors ``(n, …)`` as a sequence of n samples, without a copy.

    A sample is a tensor if there is one column, else a dict of tensors by column name.

    Args:
        columns: Tensors of equal length by name.
    """

    def __init__(self, columns: Mapping[str, Tensor]) -> None:
        self._columns = dict(columns)

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> TensorSequence: ...
    def __getitem__(self, index: int | slice) -> Any:
        rows = {name: value[index] for name, value in self._columns.items()}
        if isinstance(index, slice):
            return TensorSequence(rows)
        return next(iter(rows.values())) if len(rows) == 1 else rows
