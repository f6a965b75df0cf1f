"""Attention over the positions of a source: additive, dot, general, concat.

All of them share ``forward(query, keys, values, mask)``; ``keys`` are what ``project(values)``
gives, once a sentence. Scores at padding are -inf before a softmax in float32 or wider, so padding
gets the weight 0 to the bit; a row without any position gets zeros, not NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError, InputError, nearest


class Attention(nn.Module):
    """What the four kinds share: a subclass says how a query and a key make a score.

    Args:
        query_size: Numbers in a query.
        memory_size: Numbers in each position of the source.
        dropout: Share of the weights that training sets to 0, after the softmax.
    """

    def __init__(self, query_size: int, memory_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.query_size, self.memory_size = query_size, memory_size
        self.dropout = nn.Dropout(dropout)

    def project(self, values: Tensor) -> Tensor:
        """Keys of the positions, ``(batch, source, …)``: computed once, used at every step."""
        return values

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """``(batch, target, source)`` from ``(batch, target, query_size)`` and the keys."""
        raise NotImplementedError(f"{type(self).__name__} must define scores(query, keys).")

    def forward(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """What each query reads.

        Args:
            query: ``(batch, target, query_size)``.
            keys: What ``project(values)`` gives.
            values: ``(batch, source, memory_size)``.
            mask: bool ``(batch, source)``, True where a position counts; None for all.

        Returns:
            Context ``(batch, target, memory_size)`` and weights ``(batch, target, source)``, which
            sum to 1 over the source.
        """
        weights = masked_softmax(self.scores(query, keys), mask)
        mixing = self.dropout(weights).to(values.dtype)
        return torch.bmm(mixing, values), weights


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Weights over the last axis, in float32 or wider; 0 where the mask is False.

    Args:
        scores: ``(batch, target, source)``.
        mask: bool ``(batch, source)``, or None.
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    if mask is None:
        return scores.softmax(-1)
    hidden = ~mask.unsqueeze(1)
    # The lowest finite number, not -inf: a row that is all padding would make NaN of -inf - -inf.
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(hidden, 0.0)


class DotAttention(Attention):
    """The product of query and position; both have the same width.

    Args:
        query_size: Numbers in a query.
        memory_size: The same.
        dropout: As for `Attention`.
        scaled: Divide by the square root of the width.

    Raises:
        InputError: The widths differ.

    Source:
        Luong, Pham and Manning, "Effective Approaches to Attention-based Neural Machine
        Translation" (arXiv 1508.04025), section 3.1: "dot", which is not scaled.
    """

    def __init__(
        self, query_size: int, memory_size: int, dropout: float = 0.0, scaled: bool = False
    ) -> None:
        super().__init__(query_size, memory_size, dropout)
        if query_size != memory_size:
            raise InputError(
                f"Dot attention multiplies query and memory number by number, but they have "
                f"{query_size} and {memory_size}. Make them equal, or take general attention."
            )
        self.scale = 1.0 / math.sqrt(query_size) if scaled else 1.0

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.bmm(query * self.scale, keys.transpose(1, 2))


class GeneralAttention(Attention):
    """A bilinear product: the positions are brought to the query's width by a matrix.

    Source:
        Luong, Pham and Manning (arXiv 1508.04025), section 3.1: "general".
    """

    def __init__(self, query_size: int, memory_size: int, dropout: float = 0.0) -> None:
        super().__init__(query_size, memory_size, dropout)
        self.key = nn.Linear(memory_size, query_size, bias=False)

    def project(self, values: Tensor) -> Tensor:
        return self.key(values)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.bmm(query, keys.transpose(1, 2))


class AdditiveAttention(Attention):
    """``v · tanh(W query + U position)``: a small network looks at both.

    Args:
        query_size: Numbers in a query.
        memory_size: Numbers in each position of the source.
        dropout: As for `Attention`.
        size: Width of the small network; None takes the query's.

    Source:
        Bahdanau, Cho and Bengio, "Neural Machine Translation by Jointly Learning to Align and
        Translate" (arXiv 1409.0473), appendix A.1.2.
    """

    def __init__(
        self, query_size: int, memory_size: int, dropout: float = 0.0, size: int | None = None
    ) -> None:
        super().__init__(query_size, memory_size, dropout)
        size = size or query_size
        self.query = nn.Linear(query_size, size, bias=False)
        self.key = nn.Linear(memory_size, size, bias=False)
        self.vector = nn.Linear(size, 1, bias=False)

    def project(self, values: Tensor) -> Tensor:
        return self.key(values)

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        mixed = torch.tanh(self.query(query).unsqueeze(2) + keys.unsqueeze(1))
        return self.vector(mixed).squeeze(-1)


class ConcatAttention(Attention):
    """``v · tanh(W [query; position])``, with one matrix and a bias over both.

    Computed as the sum of two products, so that the positions' part is made once a sentence.

    Source:
        Luong, Pham and Manning (arXiv 1508.04025), section 3.1: "concat". Without the bias it is
        additive attention written otherwise.
    """

    def __init__(
        self, query_size: int, memory_size: int, dropout: float = 0.0, size: int | None = None
    ) -> None:
        super().__init__(query_size, memory_size, dropout)
        self.mix = nn.Linear(query_size + memory_size, size or query_size)
        self.vector = nn.Linear(size or query_size, 1, bias=False)

    def project(self, values: Tensor) -> Tensor:
        return nn.functional.linear(values, self.mix.weight[:, self.query_size :])

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        own = nn.functional.linear(query, self.mix.weight[:, : self.query_size], self.mix.bias)
        return self.vector(torch.tanh(own.unsqueeze(2) + keys.unsqueeze(1))).squeeze(-1)


ATTENTION: Mapping[str, Callable[[int, int, float], Attention]] = {
    "additive": AdditiveAttention,
    "concat": ConcatAttention,
    "dot": DotAttention,
    "general": GeneralAttention,
}
"""Kinds of attention by name."""


def make_attention(kind: str, query_size: int, memory_size: int, dropout: float) -> Attention:
    """The attention of that name.

    Raises:
        ArgumentError: There is none.
    """
    if kind not in ATTENTION:
        raise ArgumentError(f"There is no attention {kind!r}. {nearest(kind, ATTENTION)}")
    return cast("Attention", ATTENTION[kind](query_size, memory_size, dropout))
