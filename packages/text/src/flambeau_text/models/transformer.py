"""``TransformerSeq2Seq``: an encoder–decoder Transformer with cached decoding."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_text.models.config import config_from_values
from flambeau_text.models.seq2seq import Memory, PerSource, Seq2Seq
from flambeau_text.models.transformer_layers import Cache, DecoderLayer, EncoderLayer
from flambeau_text.models.weight_tying import embed, make_embeddings


@dataclass(frozen=True)
class TransformerConfig:
    """The configuration of a `TransformerSeq2Seq`.

    Attributes:
        d_model: Width at each position.
        nhead: Number of attention heads.
        dim_feedforward: Width of the feed-forward layers.
        encoder_layers: Number of encoder layers.
        decoder_layers: Number of decoder layers.
        norm: "pre" normalises the input of each sub-layer and needs no learning-rate warm-up;
            "post" normalises after the residual connection, as first published.
        activation: "relu" or "gelu".
        dropout: Dropout probability of embeddings, attention weights and sub-layer outputs.
    """

    d_model: int = 256
    nhead: int = 4
    dim_feedforward: int = 1_024
    encoder_layers: int = 3
    decoder_layers: int = 3
    norm: Literal["pre", "post"] = "pre"
    activation: Literal["relu", "gelu"] = "relu"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        for name, known in (("norm", ("pre", "post")), ("activation", ("relu", "gelu"))):
            value = getattr(self, name)
            if value not in known:
                raise ArgumentError(f"{name} is {value!r}. {did_you_mean(str(value), known)}")
        if self.d_model % (2 * self.nhead):
            raise InputError(
                f"d_model={self.d_model} is not divisible by 2 × nhead = {2 * self.nhead}. Change "
                "one of them, so that each head has an even width."
            )


@dataclass(frozen=True)
class TransformerState:
    """The decoder's state between two tokens.

    Attributes:
        mask: bool ``(batch, source)``.
        caches: For each layer the keys and values of the source and of the target tokens so far.
        position: Number of target tokens so far.
    """

    mask: PerSource[Tensor]
    caches: tuple[Cache, ...]
    position: int


class TransformerSeq2Seq(Seq2Seq):
    """An encoder–decoder Transformer.

    Args:
        source_vocab: Size of the source vocabulary.
        target_vocab: Size of the target vocabulary.
        config: Sizes and kinds; None uses the defaults of `TransformerConfig`.
        tie: "none", "2way" or "3way"; see `make_embeddings`.

    Source:
        Vaswani et al., "Attention Is All You Need" (arXiv 1706.03762); pre-norm as in Xiong et al.
        (arXiv 2002.04745), with one more norm after the last layer.
    """

    output: nn.Linear
    teacher_forcing_passes: ClassVar[int | None] = 1

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        config: TransformerConfig | None = None,
        tie: str = "2way",
    ) -> None:
        super().__init__()
        config = config or TransformerConfig()
        layers = make_embeddings(source_vocab, target_vocab, config.d_model, tie)
        self.config = config
        self.dropout = nn.Dropout(config.dropout)
        self.source_embedding = layers.source
        self.encoder = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        pre_norm = config.norm == "pre"
        self.encoder_norm = nn.LayerNorm(config.d_model) if pre_norm else nn.Identity()
        self.target_embedding = layers.target
        self.decoder = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.decoder_norm = nn.LayerNorm(config.d_model) if pre_norm else nn.Identity()
        self.output = layers.output

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups: encoder, decoder and output layer."""
        decoder: list[nn.Module] = [self.decoder, self.decoder_norm]
        if self.target_embedding is not self.source_embedding:
            decoder.insert(0, self.target_embedding)
        tied = self.output.weight is self.target_embedding.weight
        head: list[Any] = [self.output.bias] if tied else [self.output]
        return {
            "encoder": [self.source_embedding, self.encoder, self.encoder_norm],
            "decoder": decoder,
            "output": head,
        }

    @property
    def _decoder_layers(self) -> list[DecoderLayer]:
        return cast("list[DecoderLayer]", list(self.decoder))

    def _embed(self, embedding: nn.Embedding, tokens: Tensor, first: int = 0) -> Tensor:
        # Embeddings are drawn with deviation d_model ** -0.5, while encodings have size 1.
        scaled = embed(embedding, tokens) * math.sqrt(self.config.d_model)
        return self.dropout(scaled + positional_encoding(first, tokens.shape[1], scaled))

    def encode(self, source: Tensor, mask: Tensor) -> Memory:
        values = self._embed(self.source_embedding, source)
        for layer in self.encoder:
            values = layer(values, mask)
        return Memory(self.encoder_norm(values), mask)

    def init_state(self, memory: Memory) -> TransformerState:
        caches = tuple(layer.init_cache(memory.values) for layer in self._decoder_layers)
        return TransformerState(PerSource(memory.mask), caches, 0)

    def target_embeddings(self) -> Tensor:
        return self.target_embedding.weight

    def advance(
        self, previous: Tensor, state: TransformerState
    ) -> tuple[Tensor, TransformerState, Tensor]:
        values = self._embed(self.target_embedding, previous.unsqueeze(1), state.position)
        caches: list[Cache] = []
        attention = mask = state.mask.value
        for layer, before in zip(self._decoder_layers, state.caches, strict=True):
            values, after, attention = layer.advance(values, before, mask)
            caches.append(after)
        next_state = TransformerState(state.mask, tuple(caches), state.position + 1)
        return self.decoder_norm(values).squeeze(1), next_state, attention.squeeze(1)

    def features(self, memory: Memory, previous: Tensor) -> tuple[Tensor, None]:
        """Compute all target positions at once; only ``advance`` also returns attention weights."""
        values = self._embed(self.target_embedding, previous)
        for layer in self.decoder:
            values = layer(values, memory.values, memory.mask)
        return self.decoder_norm(values), None


def positional_encoding(first: int, count: int, like: Tensor) -> Tensor:
    """Return sinusoidal encodings of ``count`` positions from ``first`` on, ``(count, size)``.

    Args:
        first: The first position, from 0.
        count: Number of positions.
        like: A tensor whose last axis, dtype and device are those of the result.

    Source:
        Vaswani et al. (arXiv 1706.03762), section 3.5, with all sines before all cosines.
    """
    size = like.shape[-1]
    positions = torch.arange(first, first + count, device=like.device, dtype=torch.float64)
    rates = torch.arange(size // 2, device=like.device, dtype=torch.float64)
    angles = positions.unsqueeze(1) * torch.exp(rates * (-2.0 * math.log(10_000.0) / size))
    return torch.cat([angles.sin(), angles.cos()], 1).to(like.dtype)


def transformer(
    *,
    source_vocab: int,
    target_vocab: int,
    tie: str = "2way",
    config: Mapping[str, Any] | None = None,
) -> TransformerSeq2Seq:
    """Build the Transformer from plain values, as the plan and an artefact store them.

    Args:
        source_vocab: Size of the source vocabulary.
        target_vocab: Size of the target vocabulary.
        tie: "none", "2way" or "3way".
        config: Fields of `TransformerConfig` that differ from their defaults.

    Raises:
        ArgumentError: ``config`` has an unknown field.
    """
    values = config_from_values(TransformerConfig, config, "The Transformer")
    return TransformerSeq2Seq(source_vocab, target_vocab, values, tie)
