"""``CategoryEmbedding``: one-hot vectors of small categories, learned vectors of large ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flambeau.errors import InputError

MISSING, UNKNOWN, FIRST_VALUE = 0, 1, 2
"""Codes of a category column: missing, not seen in train (or too rare), and the first value."""

ONE_HOT_VALUES = 8
"""A column with at most so many values is encoded as one-hot (RealMLP: 9 codes with missing)."""


def embedding_width(cardinality: int) -> int:
    """Return the width of the learned vectors of a column: ``min(100, round(1.6 n^0.56))``.

    Args:
        cardinality: Number of codes, including those for missing and unknown.

    Source:
        The rule of fastai's ``emb_sz_rule``, with the bound 100 of AutoGluon in place of 600.
    """
    return min(100, round(1.6 * cardinality**0.56))


def category_widths(
    cardinalities: Sequence[int], *, one_hot_values: int = ONE_HOT_VALUES
) -> list[int]:
    """Return the width of each column for ``CategoryEmbedding``; 0 encodes it as one-hot."""
    return [0 if n - FIRST_VALUE <= one_hot_values else embedding_width(n) for n in cardinalities]


class CategoryEmbedding(nn.Module):
    """Vectors for the codes of category columns, concatenated.

    A one-hot column has one element for unknown and one for each value; two values share one
    element, -1 and 1. A missing value is a vector of zeros: in a one-hot column always, in a
    learned table before training.

    In train mode a small share of the known values becomes unknown, drawn anew in each call from
    torch's global generator, so that the model learns what to predict for values that it has never
    seen.

    Args:
        cardinalities: Number of codes of each column, including 0 (missing) and 1 (unknown).
        widths: Width of the learned vectors of each column; 0 encodes it as one-hot. None follows
            ``category_widths``.
        unknown_dropout: Probability that a known value becomes unknown in train mode.

    Attributes:
        chunks: Widths of the columns' parts of the output: one-hot columns first, then learned
            ones, each in the order of the columns.

    Raises:
        InputError: A cardinality is below 2, the widths are not one for each column, or the
            probability is out of range.
    """

    offsets: Tensor
    positions: Tensor
    values: Tensor

    def __init__(
        self,
        cardinalities: Sequence[int],
        widths: Sequence[int] | None = None,
        *,
        unknown_dropout: float = 0.01,
    ) -> None:
        super().__init__()
        chosen = category_widths(cardinalities) if widths is None else list(widths)
        _check(cardinalities, chosen, unknown_dropout)
        self.unknown_dropout = unknown_dropout
        self.n_columns = len(cardinalities)
        self.one_hot_columns = [i for i, width in enumerate(chosen) if width == 0]
        self.learned_columns = [i for i, width in enumerate(chosen) if width > 0]
        sizes = [cardinalities[i] for i in self.one_hot_columns]
        one_hot_widths = self._register_one_hot(sizes)
        self.n_one_hot = sum(one_hot_widths)
        self.tables = nn.ModuleList()
        for i in self.learned_columns:
            vectors = torch.randn(cardinalities[i], chosen[i])
            vectors[MISSING] = 0.0  # as in a one-hot column, if train has no missing value
            self.tables.append(nn.Embedding.from_pretrained(vectors, freeze=False))
        self.chunks = [*one_hot_widths, *(chosen[i] for i in self.learned_columns)]
        self.width = sum(self.chunks)

    def forward(self, codes: Tensor) -> Tensor:
        """Return the vectors ``(batch, width)`` of integer codes ``(batch, n_columns)``."""
        codes = codes.long()
        if self.training and self.unknown_dropout and self.n_columns:
            drawn = torch.rand(codes.shape, device=codes.device) < self.unknown_dropout
            codes = codes.masked_fill(drawn & (codes >= FIRST_VALUE), UNKNOWN)
        parts: list[Tensor] = []
        if self.one_hot_columns:
            parts.append(self._one_hot(codes))
        parts += [
            table(codes[:, column])
            for table, column in zip(self.tables, self.learned_columns, strict=True)
        ]
        if not parts:
            return codes.new_zeros((len(codes), 0), dtype=torch.get_default_dtype())
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def _one_hot(self, codes: Tensor) -> Tensor:
        """Return the one-hot columns: one element of each is set to the value of its code."""
        if self.learned_columns:
            codes = codes[:, self.one_hot_columns]
        entries = codes + self.offsets
        zeros = self.values.new_zeros(len(codes), self.n_one_hot)
        return zeros.scatter_(1, self.positions[entries], self.values[entries])

    def _register_one_hot(self, sizes: Sequence[int]) -> list[int]:
        """Register position and value of each code in the output; return the columns' widths."""
        offsets: list[int] = []
        positions: list[int] = []
        values: list[float] = []
        widths: list[int] = []
        for size in sizes:
            offsets.append(len(positions))
            start, n_values = sum(widths), size - FIRST_VALUE
            # Missing sets an element to 0.
            own, signs = list(range(1, n_values + 1)), [1.0] * n_values
            if n_values == 2:
                own, signs = [1, 1], [-1.0, 1.0]
            positions += [start, start, *(start + place for place in own)]
            values += [0.0, 1.0, *signs]
            widths.append(1 + len(set(own)))
        # They follow from the arguments of the constructor.
        self.register_buffer("offsets", torch.tensor(offsets, dtype=torch.int64), persistent=False)
        self.register_buffer(
            "positions", torch.tensor(positions, dtype=torch.int64), persistent=False
        )
        self.register_buffer("values", torch.tensor(values), persistent=False)
        return widths


def _check(cardinalities: Sequence[int], widths: Sequence[int], unknown_dropout: float) -> None:
    for i, n in enumerate(cardinalities):
        if n < FIRST_VALUE:
            raise InputError(
                f"The cardinality of category column {i} is {n}, but it includes the codes 0 "
                "(missing) and 1 (unknown), so it must be at least 2."
            )
    if len(widths) != len(cardinalities) or any(width < 0 for width in widths):
        raise InputError(
            f"category_width is {list(widths)}, but there are {len(cardinalities)} category "
            "columns. Give one width ≥ 0 for each (0 for one-hot)."
        )
    if not 0 <= unknown_dropout < 1:
        raise InputError(
            f"unknown_dropout is {unknown_dropout}, but must be at least 0 and below 1."
        )
