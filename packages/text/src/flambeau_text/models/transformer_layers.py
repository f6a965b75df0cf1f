"""The layers of the Transformer: multi-head attention, feed-forward, encoder and decoder layers."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau_text.models.attention import masked_softmax
from flambeau_text.models.seq2seq import PerSource


class LayerConfig(Protocol):
    """The fields of ``TransformerConfig`` that the layers read."""

    @property
    def d_model(self) -> int: ...
    @property
    def nhead(self) -> int: ...
    @property
    def dim_feedforward(self) -> int: ...
    @property
    def norm(self) -> str: ...
    @property
    def activation(self) -> str: ...
    @property
    def dropout(self) -> float: ...


class Cache(NamedTuple):
    """Keys and values of a decoder layer, each ``(batch, heads, positions, size)``.

    Attributes:
        keys: Keys of the target tokens so far.
        values: Values of the target tokens so far.
        memory: Keys and values of the source tokens.
    """

    keys: Tensor
    values: Tensor
    memory: PerSource[tuple[Tensor, Tensor]]


class MultiheadAttention(nn.Module):
    """Multi-head attention; uses torch's fused kernels if the weights are not requested.

    Args:
        size: Width at each position.
        heads: Number of heads; each has ``size / heads`` features.
        dropout: Dropout probability of the attention weights.
    """

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.p = heads, dropout
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size, 2 * size)
        self.out = nn.Linear(size, size)
        for part in (self.query.weight, *self.key_value.weight.chunk(2)):
            nn.init.xavier_uniform_(part.detach())
        for layer in (self.query, self.key_value, self.out):
            nn.init.zeros_(layer.bias)

    def _split_heads(self, values: Tensor) -> Tensor:
        batch, length, _ = values.shape
        return values.view(batch, length, self.heads, -1).transpose(1, 2)

    def _merge_heads(self, found: Tensor) -> Tensor:
        return self.out(found.transpose(1, 2).flatten(2))

    def project(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Return keys and values, ``(batch, heads, positions, size)`` each."""
        keys, contents = self.key_value(values).chunk(2, dim=-1)
        return self._split_heads(keys), self._split_heads(contents)

    def forward(
        self, queries: Tensor, values: Tensor, mask: Tensor | None, *, causal: bool = False
    ) -> Tensor:
        """Return the attention output ``(batch, target, size)``.

        Args:
            queries: ``(batch, target, size)``.
            values: ``(batch, source, size)``.
            mask: bool ``(batch, source)``, or None.
            causal: Whether each query attends only to positions up to its own.
        """
        keys, contents = self.project(values)
        found = F.scaled_dot_product_attention(
            self._split_heads(self.query(queries)),
            keys,
            contents,
            None if mask is None else mask[:, None, None, :],
            self.p if self.training else 0.0,
            is_causal=causal,
        )
        return self._merge_heads(found)

    def attend(
        self, queries: Tensor, keys: Tensor, contents: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return the attention output for projected keys and values, and the weights.

        Several rows of queries per row of keys, one after the other, are allowed.

        Returns:
            The output ``(batch, target, size)`` and weights ``(batch, heads, target, source)``.
        """
        rows = len(queries)
        # The rows of one source as further positions, so that its keys are not repeated.
        queries = queries.reshape(len(keys), -1, queries.shape[2])
        split_queries = self._split_heads(self.query(queries))
        batch, heads, length, size = split_queries.shape
        scores = split_queries @ keys.transpose(2, 3) / math.sqrt(size)
        flat = scores.flatten(1, 2)
        weights = masked_softmax(flat, mask).view(batch, heads, length, -1)
        found = self._merge_heads(weights.to(contents.dtype) @ contents)
        weights = weights.transpose(1, 2).reshape(rows, -1, heads, weights.shape[3])
        return found.view(rows, -1, found.shape[2]), weights.transpose(1, 2)


class FeedForward(nn.Sequential):
    """The two linear layers after the attention."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__(
            nn.Linear(config.d_model, config.dim_feedforward),
            nn.GELU() if config.activation == "gelu" else nn.ReLU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.dim_feedforward, config.d_model),
        )


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward, each with a residual connection."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.self_attention = MultiheadAttention(config.d_model, config.nhead, config.dropout)
        self.feed_forward = FeedForward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.d_model) for _ in range(2))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """Return ``(batch, source, size)``; padding is not attended to."""
        first, second = self.norms
        if self.pre_norm:
            normed = first(values)
            values = values + self.dropout(self.self_attention(normed, normed, mask))
            return values + self.dropout(self.feed_forward(second(values)))
        values = first(values + self.dropout(self.self_attention(values, values, mask)))
        return second(values + self.dropout(self.feed_forward(values)))


class DecoderLayer(nn.Module):
    """Causal self-attention, cross-attention to the source, and feed-forward."""

    def __init__(self, config: LayerConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.self_attention = MultiheadAttention(config.d_model, config.nhead, config.dropout)
        self.cross_attention = MultiheadAttention(config.d_model, config.nhead, config.dropout)
        self.feed_forward = FeedForward(config)
        self.norms = nn.ModuleList(nn.LayerNorm(config.d_model) for _ in range(3))
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, values: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """Run all target positions at once; return ``(batch, target, size)``."""
        first, second, third = self.norms
        if self.pre_norm:
            normed = first(values)
            values = values + self.dropout(self.self_attention(normed, normed, None, causal=True))
            values = values + self.dropout(self.cross_attention(second(values), memory, mask))
            return values + self.dropout(self.feed_forward(third(values)))
        attended = self.self_attention(values, values, None, causal=True)
        values = first(values + self.dropout(attended))
        values = second(values + self.dropout(self.cross_attention(values, memory, mask)))
        return third(values + self.dropout(self.feed_forward(values)))

    def init_cache(self, memory: Tensor) -> Cache:
        """Return the cache before the first target token."""
        keys, values = self.cross_attention.project(memory)
        return Cache(keys[:, :, :0], values[:, :, :0], PerSource((keys, values)))

    def advance(self, values: Tensor, cache: Cache, mask: Tensor) -> tuple[Tensor, Cache, Tensor]:
        """Run the layer for one target position.

        Args:
            values: ``(batch, 1, size)``.
            cache: Cache of the previous positions.
            mask: bool ``(sources, source)``; ``batch`` is a multiple of ``sources``.

        Returns:
            The output ``(batch, 1, size)``; the cache with this position added; and the
            cross-attention weights, averaged over the heads, ``(batch, 1, source)``.
        """
        first, second, third = self.norms
        queries = first(values) if self.pre_norm else values
        keys, contents = self.self_attention.project(queries)
        keys = torch.cat([cache.keys, keys], 2)
        contents = torch.cat([cache.values, contents], 2)
        cache = Cache(keys, contents, cache.memory)
        found, _ = self.self_attention.attend(queries, keys, contents, None)
        values = values + self.dropout(found)
        values = values if self.pre_norm else first(values)
        queries = second(values) if self.pre_norm else values
        found, weights = self.cross_attention.attend(queries, *cache.memory.value, mask)
        values = values + self.dropout(found)
        values = values if self.pre_norm else second(values)
        hidden = self.feed_forward(third(values) if self.pre_norm else values)
        values = values + self.dropout(hidden)
        return values if self.pre_norm else third(values), cache, weights.mean(1)
