"""``TransformerSeq2Seq``: attention alone, with caches that make a step cost one word."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError, InputError, nearest
from flambeau_text.models.seq2seq import Memory, Seq2Seq
from flambeau_text.models.shape import shape_from
from flambeau_text.models.transformer_layers import Cache, DecoderLayer, EncoderLayer
from flambeau_text.models.tying import Words, make_words


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of a `TransformerSeq2Seq`.

    Attributes:
        d_model: Numbers at each position.
        nhead: Heads of each attention.
        dim_feedforward: Width of the layer between two attentions.
        encoder_layers: Layers of the encoder.
        decoder_layers: Layers of the decoder.
        norm: "pre" normalises what goes into a layer and trains without warm-up; "post" what comes
            out, as first published.
        activation: "relu" or "gelu".
        dropout: Of embeddings, attention weights and what each layer adds.
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
                raise ArgumentError(f"{name} is {value!r}. {nearest(str(value), known)}")
        if self.d_model % (2 * self.nhead):
            raise InputError(
                f"d_model is {self.d_model}, which cannot be parted into {self.nhead} heads of an "
                "even number each."
            )


@dataclass(frozen=True)
class TransformerState:
    """The decoder between two words.

    Attributes:
        mask: bool ``(batch, source)``.
        caches: Keys and values of each layer, of the source and of the words so far.
        place: Words so far.
    """

    mask: Tensor
    caches: tuple[Cache, ...]
    place: int


class TransformerSeq2Seq(Seq2Seq):
    """An encoder and a decoder of attention layers.

    Args:
        source_vocab: Source words.
        target_vocab: Target words.
        shape: Sizes.
        tie: "none", "2way" or "3way"; see `make_words`.

    Source:
        Vaswani et al., "Attention Is All You Need" (arXiv 1706.03762); the norm before each layer
        as in Xiong et al. (arXiv 2002.04745), with one more after the last layer.
    """

    output: nn.Linear

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        shape: TransformerShape | None = None,
        tie: str = "2way",
    ) -> None:
        super().__init__()
        shape = shape or TransformerShape()
        words: Words = make_words(source_vocab, target_vocab, shape.d_model, tie)
        self.shape = shape
        self.dropout = nn.Dropout(shape.dropout)
        self.source_embedding = words.source
        self.encoder = nn.ModuleList(EncoderLayer(shape) for _ in range(shape.encoder_layers))
        pre = shape.norm == "pre"
        self.encoder_norm = nn.LayerNorm(shape.d_model) if pre else nn.Identity()
        self.target_embedding = words.target
        self.decoder = nn.ModuleList(DecoderLayer(shape) for _ in range(shape.decoder_layers))
        self.decoder_norm = nn.LayerNorm(shape.d_model) if pre else nn.Identity()
        self.output = words.output

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Encoder, decoder and output layer: what freezes and learns together."""
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

    def _embedded(self, embedding: nn.Embedding, words: Tensor, first: int = 0) -> Tensor:
        if not words.is_floating_point():
            words = embedding(words)
        # Rows start with deviation d_model ** -0.5; positions are of size 1.
        scaled = words * math.sqrt(self.shape.d_model)
        return self.dropout(scaled + positions(first, words.shape[1], scaled))

    def encode(self, source: Tensor, mask: Tensor) -> Memory:
        values = self._embedded(self.source_embedding, source)
        for layer in self.encoder:
            values = layer(values, mask)
        return Memory(self.encoder_norm(values), mask)

    def init_state(self, memory: Memory) -> TransformerState:
        caches = tuple(layer.begin(memory.values) for layer in self._decoder_layers)
        return TransformerState(memory.mask, caches, 0)

    def advance(
        self, previous: Tensor, state: TransformerState
    ) -> tuple[Tensor, TransformerState, Tensor]:
        values = self._embedded(self.target_embedding, previous.unsqueeze(1), state.place)
        caches: list[Cache] = []
        attention = state.mask
        for layer, before in zip(self._decoder_layers, state.caches, strict=True):
            values, after, attention = layer.advance(values, before, state.mask)
            caches.append(after)
        next_state = TransformerState(state.mask, tuple(caches), state.place + 1)
        return self.decoder_norm(values).squeeze(1), next_state, attention.squeeze(1)

    def features(self, memory: Memory, words: Tensor) -> tuple[Tensor, None]:
        """All words at once; the weights are not computed: ask ``advance`` for them."""
        values = self._embedded(self.target_embedding, words)
        for layer in self.decoder:
            values = layer(values, memory.values, memory.mask)
        return self.decoder_norm(values), None


def positions(first: int, count: int, like: Tensor) -> Tensor:
    """Sines and cosines of the places ``first`` to ``first + count - 1``: ``(count, size)``.

    Source:
        Vaswani et al. (arXiv 1706.03762), section 3.5, with all sines before all cosines.
    """
    size = like.shape[-1]
    places = torch.arange(first, first + count, device=like.device, dtype=torch.float64)
    rates = torch.arange(size // 2, device=like.device, dtype=torch.float64)
    angles = places.unsqueeze(1) * torch.exp(rates * (-2.0 * math.log(10_000.0) / size))
    return torch.cat([angles.sin(), angles.cos()], 1).to(like.dtype)


def transformer(
    *,
    source_vocab: int,
    target_vocab: int,
    tie: str = "2way",
    size: Mapping[str, Any] | None = None,
) -> TransformerSeq2Seq:
    """The Transformer from plain values, as the plan and an artefact have them.

    Args:
        source_vocab: Source words.
        target_vocab: Target words.
        tie: "none", "2way" or "3way".
        size: The fields of `TransformerShape` that differ from its own values.

    Raises:
        ArgumentError: ``size`` names a field that there is not.
    """
    return TransformerSeq2Seq(
        source_vocab, target_vocab, shape_from(TransformerShape, size, "The Transformer"), tie
    )
