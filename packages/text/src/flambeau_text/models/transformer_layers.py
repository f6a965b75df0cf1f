"""The layers of the Transformer: attention with several heads, and what stands around it."""

from __future__ import annotations

import math
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau_text.models.attention import masked_softmax


class Shape(Protocol):
    """What the layers read of ``TransformerShape``."""

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
        keys: Of the words so far.
        values: Of the words so far.
        memory_keys: Of the source.
        memory_values: Of the source.
    """

    keys: Tensor
    values: Tensor
    memory_keys: Tensor
    memory_values: Tensor


class HeadsAttention(nn.Module):
    """Attention with several heads; torch's fused kernels compute it where weights are not asked.

    Args:
        size: Numbers at each position.
        heads: Heads; each sees ``size / heads`` numbers.
        dropout: Of the weights, in training.
    """

    def __init__(self, size: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.share = heads, dropout
        self.query = nn.Linear(size, size)
        self.key_value = nn.Linear(size, 2 * size)
        self.out = nn.Linear(size, size)
        for part in (self.query.weight, *self.key_value.weight.chunk(2)):
            nn.init.xavier_uniform_(part.detach())
        for layer in (self.query, self.key_value, self.out):
            nn.init.zeros_(layer.bias)

    def _parted(self, values: Tensor) -> Tensor:
        batch, length, _ = values.shape
        return values.view(batch, length, self.heads, -1).transpose(1, 2)

    def _together(self, found: Tensor) -> Tensor:
        return self.out(found.transpose(1, 2).flatten(2))

    def project(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, ``(batch, heads, positions, size)`` each."""
        keys, contents = self.key_value(values).chunk(2, dim=-1)
        return self._parted(keys), self._parted(contents)

    def forward(
        self, queries: Tensor, values: Tensor, mask: Tensor | None, *, causal: bool = False
    ) -> Tensor:
        """What each query reads, ``(batch, target, size)``.

        Args:
            queries: ``(batch, target, size)``.
            values: ``(batch, source, size)``.
            mask: bool ``(batch, source)``, or None.
            causal: Whether a query sees only what stands up to its own place.
        """
        keys, contents = self.project(values)
        found = F.scaled_dot_product_attention(
            self._parted(self.query(queries)),
            keys,
            contents,
            None if mask is None else mask[:, None, None, :],
            self.share if self.training else 0.0,
            is_causal=causal,
        )
        return self._together(found)

    def read(
        self, queries: Tensor, keys: Tensor, contents: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """What each query reads of projected keys and values, with the weights of each head.

        Returns:
            ``(batch, target, size)`` and ``(batch, heads, target, source)``.
        """
        asked = self._parted(self.query(queries))
        batch, heads, length, size = asked.shape
        scores = asked @ keys.transpose(2, 3) / math.sqrt(size)
        flat = scores.flatten(1, 2)
        weights = masked_softmax(flat, mask).view(batch, heads, length, -1)
        return self._together(weights.to(contents.dtype) @ contents), weights


class FeedForward(nn.Sequential):
    """The two linear layers after attention."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(
            nn.Linear(shape.d_model, shape.dim_feedforward),
            nn.GELU() if shape.activation == "gelu" else nn.ReLU(),
            nn.Dropout(shape.dropout),
            nn.Linear(shape.dim_feedforward, shape.d_model),
        )


class EncoderLayer(nn.Module):
    """Attention of a source to itself, then the linear layers; each is added to what goes in."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.pre = shape.norm == "pre"
        self.attention = HeadsAttention(shape.d_model, shape.nhead, shape.dropout)
        self.linear = FeedForward(shape)
        self.norms = nn.ModuleList(nn.LayerNorm(shape.d_model) for _ in range(2))
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        """``(batch, source, size)``; padding is not attended to."""
        first, second = self.norms
        if self.pre:
            seen = first(values)
            values = values + self.dropout(self.attention(seen, seen, mask))
            return values + self.dropout(self.linear(second(values)))
        values = first(values + self.dropout(self.attention(values, values, mask)))
        return second(values + self.dropout(self.linear(values)))


class DecoderLayer(nn.Module):
    """Attention to the words so far, then to the source, then the linear layers."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.pre = shape.norm == "pre"
        self.attention = HeadsAttention(shape.d_model, shape.nhead, shape.dropout)
        self.across = HeadsAttention(shape.d_model, shape.nhead, shape.dropout)
        self.linear = FeedForward(shape)
        self.norms = nn.ModuleList(nn.LayerNorm(shape.d_model) for _ in range(3))
        self.dropout = nn.Dropout(shape.dropout)

    def forward(self, values: Tensor, memory: Tensor, mask: Tensor) -> Tensor:
        """All words at once, each seeing those up to itself: ``(batch, target, size)``."""
        first, second, third = self.norms
        if self.pre:
            seen = first(values)
            values = values + self.dropout(self.attention(seen, seen, None, causal=True))
            values = values + self.dropout(self.across(second(values), memory, mask))
            return values + self.dropout(self.linear(third(values)))
        values = first(values + self.dropout(self.attention(values, values, None, causal=True)))
        values = second(values + self.dropout(self.across(values, memory, mask)))
        return third(values + self.dropout(self.linear(values)))

    def begin(self, memory: Tensor) -> Cache:
        """The cache before the first word."""
        keys, values = self.across.project(memory)
        return Cache(keys[:, :, :0], values[:, :, :0], keys, values)

    def advance(self, values: Tensor, cache: Cache, mask: Tensor) -> tuple[Tensor, Cache, Tensor]:
        """One word on.

        Args:
            values: ``(batch, 1, size)``.
            cache: Of the words before.
            mask: bool ``(batch, source)``.

        Returns:
            ``(batch, 1, size)``, the cache with this word, and the weights over the source as the
            mean of the heads, ``(batch, 1, source)``.
        """
        first, second, third = self.norms
        seen = first(values) if self.pre else values
        keys, contents = self.attention.project(seen)
        keys = torch.cat([cache.keys, keys], 2)
        contents = torch.cat([cache.values, contents], 2)
        cache = Cache(keys, contents, cache.memory_keys, cache.memory_values)
        found, _ = self.attention.read(seen, keys, contents, None)
        values = values + self.dropout(found)
        values = values if self.pre else first(values)
        asking = second(values) if self.pre else values
        found, weights = self.across.read(asking, cache.memory_keys, cache.memory_values, mask)
        values = values + self.dropout(found)
        values = values if self.pre else second(values)
        wide = self.linear(third(values) if self.pre else values)
        values = values + self.dropout(wide)
        return values if self.pre else third(values), cache, weights.mean(1)
