"""Attention over the source positions: additive, dot, general and concat.

All of them are called as ``forward(query, keys, values, mask)``, where ``keys`` is
``project(values)``, computed once per source. The softmax is computed in float32 or wider. Padding
gets a weight of exactly 0, and a row that is all padding gets zeros, not NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError, InputError, did_you_mean


class Attention(nn.Module):
    """The base class of attention; a subclass defines the score of a query and a key.

    Args:
        query_size: Width of a query.
        memory_size: Width of the encoder output at each source position.
        dropout: Dropout probability of the attention weights.
    """

    def __init__(self, query_size: int, memory_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.query_size, self.memory_size = query_size, memory_size
        self.dropout = nn.Dropout(dropout)

    def project(self, values: Tensor) -> Tensor:
        """Return the keys of the source positions, ``(batch, source, …)``."""
        return values

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        """Return the scores ``(batch, target, source)``.

        Args:
            query: ``(batch, target, query_size)``.
            keys: The result of ``project``.
        """
        raise NotImplementedError(f"{type(self).__name__} must define scores(query, keys).")

    def forward(
        self, query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Compute the attention to the source positions.

        Args:
            query: ``(batch, target, query_size)``; several rows per source, one after the other,
                are allowed.
            keys: The result of ``project(values)``.
            values: ``(batch, source, memory_size)``.
            mask: bool ``(batch, source)``, True at tokens; None if there is no padding.

        Returns:
            Context ``(batch, target, memory_size)`` and weights ``(batch, target, source)``, which
            sum to 1 over the source.
        """
        rows = len(query)
        # The rows of one source as further target positions, so that its keys are not repeated.
        query = query.reshape(len(keys), -1, query.shape[2])
        weights = masked_softmax(self.scores(query, keys), mask)
        dropped = self.dropout(weights).to(values.dtype)
        context = torch.bmm(dropped, values)
        return context.view(rows, -1, context.shape[2]), weights.view(rows, -1, weights.shape[2])


def masked_softmax(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Return the softmax over the last axis, in float32 or wider, with 0 where the mask is False.

    Args:
        scores: ``(batch, target, source)``.
        mask: bool ``(batch, source)``, or None.
    """
    if scores.dtype in (torch.float16, torch.bfloat16):
        scores = scores.float()
    if mask is None:
        return scores.softmax(-1)
    hidden = ~mask.unsqueeze(1)
    # The lowest finite number, not -inf: -inf - -inf would give NaN in a row that is all padding.
    scores = scores.masked_fill(hidden, torch.finfo(scores.dtype).min)
    return scores.softmax(-1).masked_fill(hidden, 0.0)


class DotAttention(Attention):
    """Attention whose score is the dot product of query and value, which have the same width.

    Args:
        query_size: Width of a query.
        memory_size: Must equal ``query_size``.
        dropout: Dropout probability of the attention weights.
        scaled: Whether to divide the score by the square root of the width.

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
                f"Dot attention needs queries and memory of equal width, but they have "
                f"{query_size} and {memory_size}. Make them equal, or use general attention."
            )
        self.scale = 1.0 / math.sqrt(query_size) if scaled else 1.0

    def scores(self, query: Tensor, keys: Tensor) -> Tensor:
        return torch.bmm(query * self.scale, keys.transpose(1, 2))


class GeneralAttention(Attention):
    """Attention with a bilinear score: a linear layer projects the values to the query's width.

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
    """Attention with the score ``v · tanh(W query + U value)``.

    Args:
        query_size: Width of a query.
        memory_size: Width of the encoder output at each source position.
        dropout: Dropout probability of the attention weights.
        size: Width of the hidden layer; None uses ``query_size``.

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
        hidden = torch.tanh(self.query(query).unsqueeze(2) + keys.unsqueeze(1))
        return self.vector(hidden).squeeze(-1)


class ConcatAttention(Attention):
    """Attention with the score ``v · tanh(W [query; value] + b)``.

    ``W [query; value]`` is computed as the sum of two products, so that the product with the values
    is computed once per source. Without the bias ``b`` this is additive attention.

    Args:
        query_size: Width of a query.
        memory_size: Width of the encoder output at each source position.
        dropout: Dropout probability of the attention weights.
        size: Width of the hidden layer; None uses ``query_size``.

    Source:
        Luong, Pham and Manning (arXiv 1508.04025), section 3.1: "concat".
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
        weight, bias = self.mix.weight[:, : self.query_size], self.mix.bias
        projected = nn.functional.linear(query, weight, bias)
        return self.vector(torch.tanh(projected.unsqueeze(2) + keys.unsqueeze(1))).squeeze(-1)


ATTENTION: Mapping[str, Callable[[int, int, float], Attention]] = {
    "additive": AdditiveAttention,
    "concat": ConcatAttention,
    "dot": DotAttention,
    "general": GeneralAttention,
}
"""Attention classes by name."""


def make_attention(kind: str, query_size: int, memory_size: int, dropout: float) -> Attention:
    """Build the attention named ``kind``.

    Raises:
        ArgumentError: The name is unknown.
    """
    if kind not in ATTENTION:
        raise ArgumentError(f"Unknown attention {kind!r}. {did_you_mean(kind, ATTENTION)}")
    return cast("Attention", ATTENTION[kind](query_size, memory_size, dropout))
