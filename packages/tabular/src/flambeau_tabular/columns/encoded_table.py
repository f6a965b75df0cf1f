"""``EncodedTable``: the columns of a table as tensors."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class EncodedTable:
    """The columns of a table as CPU tensors.

    Attributes:
        numbers: Scaled numbers, float32 ``(n, m)``.
        flags: Which numbers and dates are missing, uint8 0 or 1 ``(n, f)``.
        categories: Codes of the categories, ``(n, c)`` in the smallest type that holds all codes
            (uint8, int16 or int32): 0 missing, 1 unknown.
        tokens: Hashed words of the text columns, int32 ``(n, t · width)``; 0 is padding. None
            without text columns.
    """

    numbers: Tensor
    flags: Tensor
    categories: Tensor
    tokens: Tensor | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def inputs(self) -> dict[str, Tensor]:
        """Return the tensors by name, in the order in which models take them."""
        named = {"numbers": self.numbers, "flags": self.flags, "categories": self.categories}
        return named if self.tokens is None else {**named, "tokens": self.tokens}
