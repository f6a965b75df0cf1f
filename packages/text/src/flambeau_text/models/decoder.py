"""``DecoderLM``: a compact decoder Transformer, a language model with a sliding window."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flambeau.errors import ArgumentError
from flambeau_text.models.config import config_from_values
from flambeau_text.models.language_model import LanguageFeatures, LanguageModel
from flambeau_text.models.packing import Packing

_HEAD_SIZE = 64
_FEED_FORWARD = 4  # width of the hidden layer over the width of the model
_ROTARY_BASE = 10_000.0
_TIED_STD = 0.02
_HEAD_STD = 0.001  # small first logits: the first loss is close to log(vocabulary)

State = tuple[tuple[Tensor, Tensor], ...]
"""For each layer the keys (before rotation) and values of the tokens in the window,
``(batch, heads, positions, head size)``."""


@dataclass(frozen=True)
class DecoderConfig:
    """The settings of a `DecoderLM`. ``depth`` alone determines a network of usual proportions.

    Attributes:
        depth: Number of blocks.
        width: Width of the model, a multiple of 64; None is 64 times ``depth``. There is one head
            for each 64.
        window: Number of tokens that a token attends to, itself included.
        tie: Whether embedding and output layer share one weight.
        soft_cap: Logits are ``cap * tanh(logits / cap)``; None does not limit them. With a cap the
            loss needs the memory of all logits.
        dropout: Dropout probability of the embeddings and of the outputs of attention and
            feed-forward layers.
    """

    depth: int = 4
    width: int | None = None
    window: int = 256
    tie: bool = False
    soft_cap: float | None = None
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, least in (("depth", 1), ("window", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ArgumentError(f"{name}={value!r} is invalid. Give a number from {least} on.")
        width: Any = self.width
        if width is None:
            object.__setattr__(self, "width", _HEAD_SIZE * self.depth)
        elif type(width) is not int or width < 1 or width % _HEAD_SIZE:
            raise ArgumentError(
                f"width={width!r} is invalid. Give a multiple of {_HEAD_SIZE}, the size of a head."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ArgumentError(
                f"dropout={self.dropout!r} is invalid. A probability is at least 0 and less than 1."
            )
        if self.soft_cap is not None and not 0.0 < self.soft_cap < math.inf:
            raise ArgumentError(f"soft_cap={self.soft_cap!r} is invalid. Give a number above 0.")


class RMSNorm(nn.Module):
    """Divides each vector by its root mean square; without weights, in float32 or wider."""

    def forward(self, values: Tensor) -> Tensor:
        """Normalise over the last axis."""
        return F.rms_norm(values, values.shape[-1:])


class DecoderAttention(nn.Module):
    """Multi-head causal attention over a window, with rotary positions and normalised queries.

    Args:
        config: Width, window.

    Source:
        Su et al., "RoFormer" (arXiv 2104.09864) for the rotation; Henry et al., "Query-Key
        Normalization for Transformers" (arXiv 2010.04245), here with the RMS as norm and without a
        learned scale.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = _width(config)
        self.heads = width // _HEAD_SIZE
        self.window = config.window
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.output = nn.Linear(width, width, bias=False)
        self.norm = RMSNorm()

    def forward(
        self,
        values: Tensor,
        before: tuple[Tensor, Tensor] | None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Attend to the tokens in the window.

        Args:
            values: ``(batch, positions, width)``.
            before: Keys and values of the tokens before; None if there are none.
            packing: Which tokens attend to each other in packed rows; None for all tokens before.

        Returns:
            The output of the same shape as ``values``, and the keys and values to carry.
        """
        batch, n, _ = values.shape
        parts = self.project(values).view(batch, n, 3, self.heads, _HEAD_SIZE)
        queries, keys, contents = parts.permute(2, 0, 3, 1, 4)
        queries, keys = self.norm(queries), self.norm(keys)
        if before is not None:
            keys = torch.cat([before[0].to(keys.dtype), keys], 2)
            contents = torch.cat([before[1].to(contents.dtype), contents], 2)
        if packing is not None:
            cosines, sines = _rotation(packing.positions.unsqueeze(1))
            found = F.scaled_dot_product_attention(
                _rotate(queries, cosines, sines),
                _rotate(keys, cosines, sines),
                contents,
                packing.mask,
            )
            return self.output(found.transpose(1, 2).reshape(batch, n, -1)), (keys, contents)
        total = keys.shape[2]
        # Only differences of positions matter, so they may start at the first key. Keys are carried
        # before the rotation: positions then never grow beyond the window and a chunk.
        cosines, sines = _rotation(torch.arange(total, device=values.device))
        # Constants, because torch.compile cannot give is_causal a comparison of sizes.
        if total == n <= self.window:
            mask, causal = None, True
        else:
            mask, causal = _in_window(n, total, self.window, values.device), False
        found = F.scaled_dot_product_attention(
            _rotate(queries, cosines[total - n :], sines[total - n :]),
            _rotate(keys, cosines, sines),
            contents,
            mask,
            is_causal=causal,
        )
        kept = slice(max(0, total - self.window + 1), total)
        # A view would keep the memory of all keys and values.
        carried = keys[:, :, kept].contiguous(), contents[:, :, kept].contiguous()
        return self.output(found.transpose(1, 2).reshape(batch, n, -1)), carried


class DecoderBlock(nn.Module):
    """Attention and a feed-forward layer with squared ReLU, each on normalised values.

    Args:
        config: Width, window, dropout.

    Source:
        So et al., "Primer" (arXiv 2109.08668) for the squared ReLU.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        width = _width(config)
        self.attention = DecoderAttention(config)
        self.expand = nn.Linear(width, _FEED_FORWARD * width, bias=False)
        self.contract = nn.Linear(_FEED_FORWARD * width, width, bias=False)
        self.norm = RMSNorm()
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        values: Tensor,
        before: tuple[Tensor, Tensor] | None,
        packing: Packing | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map ``(batch, positions, width)`` to the same shape; see `DecoderAttention`."""
        attended, carried = self.attention(self.norm(values), before, packing)
        values = values + self.dropout(attended)
        hidden = F.relu(self.expand(self.norm(values))).square()
        return values + self.dropout(self.contract(hidden)), carried


class SoftCap(nn.Module):
    """An output layer whose logits are limited: ``cap * tanh(logits / cap)``.

    Args:
        linear: The output layer.
        cap: The limit.
    """

    def __init__(self, linear: nn.Linear, cap: float) -> None:
        super().__init__()
        self.linear, self.cap = linear, cap

    def forward(self, features: Tensor) -> Tensor:
        """Map ``(…, size)`` to logits ``(…, vocabulary)``."""
        return self.cap * torch.tanh(self.linear(features) / self.cap)


class DecoderLM(LanguageModel):
    """A decoder Transformer whose tokens attend to a window of the tokens before.

    The state holds the keys and values in the window, so that chunks of a text with a carried state
    give the same logits as the whole text, and generation may go on for any number of tokens.
    Weights that write into the residual stream start at zero: each block is the identity at first.

    Args:
        vocab_size: Number of tokens.
        config: Depth, width, window, dropout.

    Source:
        The proportions and initial weights follow Karpathy's nanochat (2025).
    """

    def __init__(self, vocab_size: int, config: DecoderConfig | None = None) -> None:
        super().__init__()
        self.config = config = DecoderConfig() if config is None else config
        width = _width(config)
        self.embedding = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.depth))
        self.norm = RMSNorm()
        self.dropout = nn.Dropout(config.dropout)
        head = nn.Linear(width, vocab_size, bias=False)
        self.output = head if config.soft_cap is None else SoftCap(head, config.soft_cap)
        self._initialise(head)

    def _initialise(self, head: nn.Linear) -> None:
        width = _width(self.config)
        bound = math.sqrt(3.0 / width)  # uniform with the standard deviation width ** -0.5
        nn.init.normal_(self.embedding.weight)
        for module in self.blocks.modules():
            if isinstance(module, DecoderBlock):
                nn.init.uniform_(module.expand.weight, -bound, bound)
                nn.init.zeros_(module.contract.weight)
            elif isinstance(module, DecoderAttention):
                nn.init.uniform_(module.project.weight, -bound, bound)
                nn.init.zeros_(module.output.weight)
        if self.config.tie:
            # At first the features of a token are its embedding: large entries would predict it.
            nn.init.normal_(self.embedding.weight, std=_TIED_STD)
            head.weight = self.embedding.weight
        else:
            nn.init.normal_(head.weight, std=_HEAD_STD)

    def features(self, tokens: Tensor, state: State | None = None) -> LanguageFeatures:
        """Compute the features of the next token at each position.

        Args:
            tokens: int64 ``(batch, positions)``.
            state: Keys and values of each layer for the tokens before; None if there are none.
        """
        values = self.dropout(self.norm(self.embedding(tokens)))
        carried: list[tuple[Tensor, Tensor]] = []
        for index, block in enumerate(self.blocks):
            values, kept = block(values, None if state is None else state[index])
            carried.append(kept)
        return LanguageFeatures(self.norm(values), tuple(carried))

    def packed_features(self, tokens: Tensor, documents: Tensor) -> LanguageFeatures:
        packing = Packing.of(documents, window=self.config.window)
        values = self.dropout(self.norm(self.embedding(tokens)))
        for block in self.blocks:
            values, _ = block(values, None, packing)
        return LanguageFeatures(self.norm(values), None)

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups: embedding, each block, and the output layer."""
        blocks = {f"block_{index}": [block] for index, block in enumerate(self.blocks)}
        head: dict[str, list[nn.Module]] = {} if self.config.tie else {"output": [self.output]}
        return {"embedding": [self.embedding], **blocks, **head}


def _width(config: DecoderConfig) -> int:
    return _HEAD_SIZE * config.depth if config.width is None else config.width


def _rotation(positions: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of the angles at positions, ``(…, head size / 2)`` each."""
    rates = _ROTARY_BASE ** -(torch.arange(0, _HEAD_SIZE, 2, device=positions.device) / _HEAD_SIZE)
    angles = positions.unsqueeze(-1) * rates
    return angles.cos(), angles.sin()


def _rotate(values: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Rotate pairs of features, one from each half, by the angles of their positions."""
    first, second = values.chunk(2, -1)
    cosines, sines = cosines.to(values.dtype), sines.to(values.dtype)
    return torch.cat([first * cosines - second * sines, first * sines + second * cosines], -1)


def _in_window(n: int, total: int, window: int, device: torch.device) -> Tensor:
    """Return which of ``total`` keys each of the last ``n`` positions attends to, bool."""
    distance = torch.arange(total - n, total, device=device).unsqueeze(1)
    distance = distance - torch.arange(total, device=device)
    return (distance >= 0) & (distance < window)


def decoder(*, vocab_size: int, config: Mapping[str, Any] | None = None) -> DecoderLM:
    """Build a decoder from plain values, as the plan and an artefact store them.

    Args:
        vocab_size: Number of tokens.
        config: Fields of `DecoderConfig` that differ from their defaults.

    Raises:
        ArgumentError: ``config`` has an unknown field.

    Example:
        >>> model = decoder(vocab_size=50, config={"depth": 2})
        >>> model.config.width, model(torch.zeros(1, 3, dtype=torch.int64))[0].shape
        (128, torch.Size([1, 3, 50]))
    """
    return DecoderLM(vocab_size, config_from_values(DecoderConfig, config, "The decoder"))
