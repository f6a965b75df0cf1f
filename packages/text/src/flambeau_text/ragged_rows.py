"""``RaggedRows``: rows of token ids of different lengths, in one flat tensor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flambeau_text.tokenization.tokenizer import PADDING_ID


class RaggedRows:
    """Rows of different lengths, stored in one flat tensor.

    Args:
        rows: The numbers in each row.

    Attributes:
        lengths: Length of each row, int64 ``(n,)``.
    """

    def __init__(self, rows: Sequence[Sequence[int]]) -> None:
        self.lengths = torch.tensor([len(row) for row in rows], dtype=torch.int64)
        self._starts = torch.cat([torch.zeros(1, dtype=torch.int64), self.lengths.cumsum(0)])
        flat = np.fromiter((token for row in rows for token in row), dtype=np.int32)
        # One extra number, so that the index after the end of the last row exists.
        self._flat = torch.cat([torch.from_numpy(flat), torch.zeros(1, dtype=torch.int32)])

    def __len__(self) -> int:
        return len(self.lengths)

    def padded(self, rows: Tensor, width: int | None = None) -> tuple[Tensor, Tensor]:
        """Return rows padded at their ends, int64 ``(n, width)``, and their mask.

        Args:
            rows: Indices of the rows, int64 ``(n,)``.
            width: Width of the result; None uses the longest row.
        """
        lengths = self.lengths[rows]
        width = self.longest(rows) if width is None else width
        positions = torch.arange(width)
        mask = positions < lengths.unsqueeze(1)
        at = (self._starts[rows].unsqueeze(1) + positions).clamp_(max=len(self._flat) - 1)
        tokens = self._flat[at].to(torch.int64)
        return tokens.masked_fill_(~mask, PADDING_ID), mask

    def longest(self, rows: Tensor) -> int:
        """Return the length of the longest of the rows."""
        return int(self.lengths[rows].max()) if len(rows) else 0
