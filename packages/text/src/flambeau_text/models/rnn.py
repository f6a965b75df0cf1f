"""``RnnSeq2Seq``: a bidirectional recurrent encoder and a recurrent decoder with attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_text.models.attention import Attention, make_attention
from flambeau_text.models.config import config_from_values
from flambeau_text.models.recurrent_layers import SequenceDropout, run_layers
from flambeau_text.models.rnn_encoder import CELLS, RnnEncoder, State
from flambeau_text.models.seq2seq import Memory, PerSource, Seq2Seq
from flambeau_text.models.weight_tying import embed, make_embeddings

BRIDGES = ("mlp", "copy", "zero")


@dataclass(frozen=True)
class RnnConfig:
    """The configuration of an `RnnSeq2Seq`.

    Attributes:
        embedding_dim: Width of the embeddings and of the features before the output layer.
        hidden_size: Size of the decoder's state.
        encoder_size: Size of the encoder's state in each direction; None uses ``hidden_size``.
        encoder_layers: Number of bidirectional encoder layers.
        decoder_layers: Number of decoder layers. The first layer queries the attention; the layers
            above it read the first layer's output and the context.
        cell: "gru" or "lstm".
        attention: "additive", "concat", "dot" or "general".
        bridge: How the decoder's initial state is computed from the encoder's last states: "mlp"
            by a linear layer and tanh; "copy" without change (``hidden_size`` must be twice
            ``encoder_size``); "zero" ignores them.
        input_feeding: Feed the features of each token to the next step. Tokens are then computed
            one after the other in training too.
        dropout: Dropout probability of embeddings, between layers and before the output layer.
    """

    embedding_dim: int = 256
    hidden_size: int = 256
    encoder_size: int | None = None
    encoder_layers: int = 1
    decoder_layers: int = 2
    cell: Literal["gru", "lstm"] = "gru"
    attention: str = "additive"
    bridge: Literal["mlp", "copy", "zero"] = "mlp"
    input_feeding: bool = False
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if self.cell not in CELLS:
            raise ArgumentError(f"cell is {self.cell!r}. {did_you_mean(str(self.cell), CELLS)}")
        if self.bridge not in BRIDGES:
            raise ArgumentError(
                f"bridge is {self.bridge!r}. {did_you_mean(str(self.bridge), BRIDGES)}"
            )
        if self.bridge == "copy" and 2 * self.encoder_state_size != self.hidden_size:
            raise InputError(
                f"bridge='copy' needs hidden_size to be twice encoder_size, but 2 × "
                f"{self.encoder_state_size} is not {self.hidden_size}. Set "
                f"encoder_size={self.hidden_size // 2}, or use bridge='mlp'."
            )

    @property
    def encoder_state_size(self) -> int:
        """``encoder_size``, or ``hidden_size`` if ``encoder_size`` is None."""
        return self.hidden_size if self.encoder_size is None else self.encoder_size


@dataclass(frozen=True)
class RnnState:
    """The decoder's state between two tokens; the batch is the first axis of every tensor.

    Attributes:
        source: The encoded source, and the attention's keys of it, computed once.
        first: State of the first layer: ``(batch, 1, size)`` by name ("hidden", "cell").
        upper: States of the layers above; empty if there are none.
        fed_features: Features of the last token for input feeding, else None.
        dropout_masks: Dropout masks for the embeddings, between the layers and for the features;
            each is one mask for all tokens of a sequence, or None.
    """

    source: PerSource[tuple[Memory, Tensor]]
    first: State
    upper: State
    fed_features: Tensor | None
    dropout_masks: tuple[Tensor | None, Tensor | None, Tensor | None]


class RnnSeq2Seq(Seq2Seq):
    """A recurrent model: a bidirectional encoder and a decoder with attention.

    The first decoder layer reads the target tokens, and its output queries the attention. The
    layers above read that output and the context. So the context reaches later tokens, as with
    input feeding, while all tokens of a given target are computed in one call of torch's fused
    recurrent layers and one matrix product for the attention.

    Args:
        source_vocab: Size of the source vocabulary.
        target_vocab: Size of the target vocabulary.
        config: Sizes and kinds; None uses the defaults of `RnnConfig`.
        tie: "none", "2way" or "3way"; see `make_embeddings`.

    Source:
        Bahdanau, Cho and Bengio (arXiv 1409.0473) for attention; Wu et al. (arXiv 1609.08144) also
        query the attention from the lowest layer; input feeding as in Luong, Pham and Manning
        (arXiv 1508.04025), section 3.3. The features are those of Bahdanau's deep output without
        maxout: ``tanh`` of a linear layer over state, context and embedding.
    """

    output: nn.Linear

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        config: RnnConfig | None = None,
        tie: str = "2way",
    ) -> None:
        super().__init__()
        config = config or RnnConfig()
        layers = make_embeddings(source_vocab, target_vocab, config.embedding_dim, tie)
        self.config = config
        self.dropout = SequenceDropout(config.dropout)
        self.source_embedding = layers.source
        self.encoder = RnnEncoder(
            config.embedding_dim,
            config.encoder_state_size,
            config.encoder_layers,
            config.cell,
            config.dropout,
        )
        self.target_embedding = layers.target
        memory_size, hidden = self.encoder.output_size, config.hidden_size
        # Dot attention needs memory and queries of equal width.
        needs_projection = config.attention == "dot" and memory_size != hidden
        self.memory_projection = (
            nn.Linear(memory_size, hidden, bias=False) if needs_projection else None
        )
        memory_size = hidden if needs_projection else memory_size
        self.bridge = (
            nn.ModuleDict({name: self._bridge(config) for name in CELLS[config.cell].states})
            if config.bridge == "mlp"
            else None
        )
        fed = config.embedding_dim if config.input_feeding else 0
        make = CELLS[config.cell].layers
        self.first_layer = make(config.embedding_dim + fed, hidden, batch_first=True)
        self.attention: Attention = make_attention(config.attention, hidden, memory_size, 0.0)
        above = config.decoder_layers - 1
        self.upper_layers = (
            make(
                hidden + memory_size,
                hidden,
                above,
                batch_first=True,
                dropout=config.dropout if above > 1 else 0.0,
            )
            if above
            else None
        )
        self.readout = nn.Linear(hidden + memory_size + config.embedding_dim, config.embedding_dim)
        self.output = layers.output

    @staticmethod
    def _bridge(config: RnnConfig) -> nn.Module:
        return nn.Linear(2 * config.encoder_state_size, config.hidden_size * config.decoder_layers)

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups: encoder, decoder and output layer."""
        encoder = [self.source_embedding, self.encoder]
        decoder: list[nn.Module | None] = [
            None if self.target_embedding is self.source_embedding else self.target_embedding,
            self.memory_projection,
            self.bridge,
            self.first_layer,
            self.attention,
            self.upper_layers,
            self.readout,
        ]
        tied = self.output.weight is self.target_embedding.weight
        head: list[Any] = [self.output.bias] if tied else [self.output]
        return {
            "encoder": encoder,
            "decoder": [part for part in decoder if part is not None],
            "output": head,
        }

    # Encoding

    def encode(self, source: Tensor, mask: Tensor) -> Memory:
        embeddings = self.dropout(self.source_embedding(source))
        values, last = self.encoder(embeddings, mask)
        values = self.dropout(values)
        if self.memory_projection is not None:
            values = self.memory_projection(values)
        return Memory(values, mask, last)

    def init_state(self, memory: Memory) -> RnnState:
        first, upper = {}, {}
        layers, hidden = self.config.decoder_layers, self.config.hidden_size
        for name in CELLS[self.config.cell].states:
            last = memory.summary[name]
            if self.bridge is not None:
                states = torch.tanh(self.bridge[name](last)).view(-1, layers, hidden)
            elif self.config.bridge == "copy":
                states = last.unsqueeze(1).expand(-1, layers, -1)
            else:
                states = last.new_zeros(len(last), layers, hidden)
            first[name] = states[:, :1]
            if layers > 1:
                upper[name] = states[:, 1:]
        fed = None
        if self.config.input_feeding:
            fed = memory.values.new_zeros(len(memory.values), self.config.embedding_dim)
        source = PerSource((memory, self.attention.project(memory.values)))
        return RnnState(source, first, upper, fed, self._dropout_masks(memory))

    def _dropout_masks(self, memory: Memory) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        config, values = self.config, memory.values
        between = config.hidden_size + values.shape[2]
        like = [
            values.new_empty(len(values), 1, size)
            for size in (
                config.embedding_dim,
                between if self.upper_layers is not None else 1,
                config.embedding_dim,
            )
        ]
        first, second, third = map(self.dropout.mask, like)
        return first, second, third

    # Decoding

    def target_embeddings(self) -> Tensor:
        return self.target_embedding.weight

    def advance(self, previous: Tensor, state: RnnState) -> tuple[Tensor, RnnState, Tensor]:
        embeddings = embed(self.target_embedding, previous).unsqueeze(1)
        features, state, attention = self._decode(embeddings, state)
        return features.squeeze(1), state, attention.squeeze(1)

    def features(self, memory: Memory, previous: Tensor) -> tuple[Tensor, Tensor]:
        if self.config.input_feeding:
            found, attention = super().features(memory, previous)
            return found, cast(Tensor, attention)  # advance() always returns attention
        features, _, attention = self._decode(
            embed(self.target_embedding, previous), self.init_state(memory)
        )
        return features, attention

    def _decode(self, embeddings: Tensor, state: RnnState) -> tuple[Tensor, RnnState, Tensor]:
        """Decode any number of tokens in one call, or a single token with input feeding.

        Args:
            embeddings: Embeddings of the previous tokens, ``(batch, target, embedding_dim)``.
            state: Decoder state before the first of these tokens.
        """
        on_embeddings, between, on_features = state.dropout_masks
        embeddings = _times(embeddings, on_embeddings)
        read = embeddings
        if state.fed_features is not None:
            read = torch.cat([embeddings, state.fed_features.unsqueeze(1)], 2)
        top, first = run(self.first_layer, read, state.first)
        memory, keys = state.source.value
        context, attention = self.attention(top, keys, memory.values, memory.mask)
        upper = state.upper
        if self.upper_layers is not None:
            inputs = _times(torch.cat([top, context.to(top.dtype)], 2), between)
            top, upper = run(self.upper_layers, inputs, state.upper)
        joined = torch.cat([top, context.to(top.dtype), embeddings.to(top.dtype)], 2)
        features = _times(torch.tanh(self.readout(joined)), on_features)
        fed = None if state.fed_features is None else features[:, -1]
        after = RnnState(state.source, first, upper, fed, state.dropout_masks)
        return features, after, attention


def _times(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values * mask.to(values.dtype)


def run(layers: nn.RNNBase, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """Run recurrent layers; return their outputs and the state after the last step.

    Args:
        layers: ``nn.GRU`` or ``nn.LSTM``, batch first.
        inputs: ``(batch, steps, size)``.
        state: Tensors ``(batch, layers, size)`` by name, as in `RnnState`.
    """
    # torch's states have the layers first, whatever batch_first says.
    before = [value.transpose(0, 1).contiguous().to(inputs.dtype) for value in state.values()]
    outputs, parts = run_layers(layers, inputs, before)
    pairs = zip(state, parts, strict=True)
    return outputs, {name: value.transpose(0, 1) for name, value in pairs}


def rnn(
    *,
    source_vocab: int,
    target_vocab: int,
    tie: str = "2way",
    config: Mapping[str, Any] | None = None,
) -> RnnSeq2Seq:
    """Build the recurrent model from plain values, as the plan and an artefact store them.

    Args:
        source_vocab: Size of the source vocabulary.
        target_vocab: Size of the target vocabulary.
        tie: "none", "2way" or "3way".
        config: Fields of `RnnConfig` that differ from their defaults.

    Raises:
        ArgumentError: ``config`` has an unknown field.
    """
    values = config_from_values(RnnConfig, config, "The recurrent model")
    return RnnSeq2Seq(source_vocab, target_vocab, values, tie)
