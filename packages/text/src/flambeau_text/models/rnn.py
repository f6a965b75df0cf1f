"""``RnnSeq2Seq``: a recurrent encoder, attention, and a recurrent decoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError, InputError, nearest
from flambeau_text.models.attention import Attention, make_attention
from flambeau_text.models.recurrent import SequenceDropout, run_layers
from flambeau_text.models.rnn_encoder import CELLS, RnnEncoder, State
from flambeau_text.models.seq2seq import Memory, Seq2Seq
from flambeau_text.models.shape import shape_from
from flambeau_text.models.tying import Words, embedded, make_words

BRIDGES = ("mlp", "copy", "zero")


@dataclass(frozen=True)
class RnnShape:
    """Sizes and kinds of an `RnnSeq2Seq`.

    Attributes:
        embedding_dim: Numbers in a word's embedding, and in the features before the output layer.
        hidden_size: Numbers in a state of the decoder.
        encoder_size: Numbers in a state of each direction of the encoder; None takes the decoder's.
        encoder_layers: Layers of the encoder, each in both directions.
        decoder_layers: Layers of the decoder. The first asks the attention; those above it read
            what was found.
        cell: "gru" or "lstm".
        attention: "additive", "concat", "dot" or "general".
        bridge: How the decoder's first state is made of the encoder's last ones: "mlp" by a layer
            with tanh, "copy" as they are (twice ``encoder_size`` must be ``hidden_size``), "zero".
        input_feeding: The features of a word enter the step of the next one; each word is then
            computed after the one before, in training too.
        dropout: Of embeddings, between layers, and before the output layer.
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
            raise ArgumentError(f"cell is {self.cell!r}. {nearest(str(self.cell), CELLS)}")
        if self.bridge not in BRIDGES:
            raise ArgumentError(f"bridge is {self.bridge!r}. {nearest(str(self.bridge), BRIDGES)}")
        if self.bridge == "copy" and 2 * self.of_encoder != self.hidden_size:
            raise InputError(
                f"bridge='copy' makes the decoder's state of both directions, 2 × "
                f"{self.of_encoder} numbers, but hidden_size is {self.hidden_size}. Take "
                f"encoder_size={self.hidden_size // 2}, or bridge='mlp'."
            )

    @property
    def of_encoder(self) -> int:
        """``encoder_size``, or what stands in for it."""
        return self.hidden_size if self.encoder_size is None else self.encoder_size


@dataclass(frozen=True)
class RnnState:
    """The decoder between two words; the batch is the first axis of every tensor.

    Attributes:
        memory: Of the source.
        keys: What attention made of it, once.
        first: State of the first layer: ``(batch, 1, size)`` by name ("hidden", "cell").
        upper: Of those above; empty where there are none.
        fed: Features of the last word, for input feeding; else None.
        masks: Of dropout, the same at every word: on words, between layers, on features.
    """

    memory: Memory
    keys: Tensor
    first: State
    upper: State
    fed: Tensor | None
    masks: tuple[Tensor | None, Tensor | None, Tensor | None]


class RnnSeq2Seq(Seq2Seq):
    """A bidirectional encoder and a decoder that attends to it.

    The first layer of the decoder reads the words; its state asks the attention; the layers above
    read that state and what was found. So what was found reaches later words, as input feeding
    does, and yet all words of a sentence are computed in one call where they are given: the
    recurrent layers are torch's fused ones, and attention is one product for the whole sentence.

    Args:
        source_vocab: Source words.
        target_vocab: Target words.
        shape: Sizes and kinds.
        tie: "none", "2way" or "3way"; see `make_words`.

    Source:
        Bahdanau, Cho and Bengio (arXiv 1409.0473) for attention; Wu et al. (arXiv 1609.08144) ask
        it from the lowest layer, too; input feeding as in Luong, Pham and Manning (arXiv
        1508.04025), section 3.3. The features are those of Bahdanau's deep output without maxout:
        ``tanh`` of state, context and word.
    """

    output: nn.Linear

    def __init__(
        self,
        source_vocab: int,
        target_vocab: int,
        shape: RnnShape | None = None,
        tie: str = "2way",
    ) -> None:
        super().__init__()
        shape = shape or RnnShape()
        words: Words = make_words(source_vocab, target_vocab, shape.embedding_dim, tie)
        self.shape = shape
        self.dropout = SequenceDropout(shape.dropout)
        self.source_embedding = words.source
        self.encoder = RnnEncoder(
            shape.embedding_dim, shape.of_encoder, shape.encoder_layers, shape.cell, shape.dropout
        )
        self.target_embedding = words.target
        memory_size, hidden = self.encoder.output_size, shape.hidden_size
        # Dot attention compares number by number, so that the widths must be equal.
        needs_width = shape.attention == "dot" and memory_size != hidden
        self.narrow = nn.Linear(memory_size, hidden, bias=False) if needs_width else None
        memory_size = hidden if needs_width else memory_size
        self.bridge = (
            nn.ModuleDict({name: self._bridge(shape) for name in CELLS[shape.cell].states})
            if shape.bridge == "mlp"
            else None
        )
        fed = shape.embedding_dim if shape.input_feeding else 0
        make = CELLS[shape.cell].layers
        self.first = make(shape.embedding_dim + fed, hidden, batch_first=True)
        self.attention: Attention = make_attention(shape.attention, hidden, memory_size, 0.0)
        above = shape.decoder_layers - 1
        self.upper = (
            make(
                hidden + memory_size,
                hidden,
                above,
                batch_first=True,
                dropout=shape.dropout if above > 1 else 0.0,
            )
            if above
            else None
        )
        self.readout = nn.Linear(hidden + memory_size + shape.embedding_dim, shape.embedding_dim)
        self.output = words.output

    @staticmethod
    def _bridge(shape: RnnShape) -> nn.Module:
        return nn.Linear(2 * shape.of_encoder, shape.hidden_size * shape.decoder_layers)

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Encoder, decoder and output layer: what freezes and learns together."""
        encoder = [self.source_embedding, self.encoder]
        decoder: list[nn.Module | None] = [
            None if self.target_embedding is self.source_embedding else self.target_embedding,
            self.narrow,
            self.bridge,
            self.first,
            self.attention,
            self.upper,
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
        words = self.dropout(self.source_embedding(source))
        values, last = self.encoder(words, mask)
        values = self.dropout(values)
        if self.narrow is not None:
            values = self.narrow(values)
        return Memory(values, mask, last)

    def init_state(self, memory: Memory) -> RnnState:
        first, upper = {}, {}
        layers, hidden = self.shape.decoder_layers, self.shape.hidden_size
        for name in CELLS[self.shape.cell].states:
            last = memory.summary[name]
            if self.bridge is not None:
                made = torch.tanh(self.bridge[name](last)).view(-1, layers, hidden)
            elif self.shape.bridge == "copy":
                made = last.unsqueeze(1).expand(-1, layers, -1)
            else:
                made = last.new_zeros(len(last), layers, hidden)
            first[name] = made[:, :1]
            if layers > 1:
                upper[name] = made[:, 1:]
        fed = None
        if self.shape.input_feeding:
            fed = memory.values.new_zeros(len(memory.values), self.shape.embedding_dim)
        keys = self.attention.project(memory.values)
        return RnnState(memory, keys, first, upper, fed, self._masks(memory))

    def _masks(self, memory: Memory) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        shape, values = self.shape, memory.values
        between = shape.hidden_size + values.shape[2]
        like = [
            values.new_empty(len(values), 1, size)
            for size in (
                shape.embedding_dim,
                between if self.upper is not None else 1,
                shape.embedding_dim,
            )
        ]
        first, second, third = map(self.dropout.mask, like)
        return first, second, third

    # Decoding

    def advance(self, previous: Tensor, state: RnnState) -> tuple[Tensor, RnnState, Tensor]:
        words = embedded(self.target_embedding, previous).unsqueeze(1)
        features, state, attention = self._decode(words, state)
        return features.squeeze(1), state, attention.squeeze(1)

    def features(self, memory: Memory, words: Tensor) -> tuple[Tensor, Tensor]:
        if self.shape.input_feeding:
            found, attention = super().features(memory, words)
            return found, cast(Tensor, attention)  # it attends at every word
        features, _, attention = self._decode(
            embedded(self.target_embedding, words), self.init_state(memory)
        )
        return features, attention

    def _decode(self, words: Tensor, state: RnnState) -> tuple[Tensor, RnnState, Tensor]:
        """Any number of words at once, or one with input feeding.

        Args:
            words: Embeddings, ``(batch, target, embedding_dim)``.
            state: Before the first of them.
        """
        on_words, between, on_features = state.masks
        words = _times(words, on_words)
        read = words if state.fed is None else torch.cat([words, state.fed.unsqueeze(1)], 2)
        top, first = run(self.first, read, state.first)
        context, attention = self.attention(top, state.keys, state.memory.values, state.memory.mask)
        upper = state.upper
        if self.upper is not None:
            found = _times(torch.cat([top, context.to(top.dtype)], 2), between)
            top, upper = run(self.upper, found, state.upper)
        mixed = torch.cat([top, context.to(top.dtype), words.to(top.dtype)], 2)
        features = _times(torch.tanh(self.readout(mixed)), on_features)
        fed = None if state.fed is None else features[:, -1]
        after = RnnState(state.memory, state.keys, first, upper, fed, state.masks)
        return features, after, attention


def _times(values: Tensor, mask: Tensor | None) -> Tensor:
    return values if mask is None else values * mask.to(values.dtype)


def run(layers: nn.RNNBase, inputs: Tensor, state: State) -> tuple[Tensor, State]:
    """The outputs of recurrent layers and the state after them.

    Args:
        layers: ``nn.GRU`` or ``nn.LSTM``, batch first.
        inputs: ``(batch, steps, size)``.
        state: ``(batch, layers, size)`` by name, as it is kept between steps.
    """
    # torch has the layers first, whatever batch_first says.
    before = [value.transpose(0, 1).contiguous().to(inputs.dtype) for value in state.values()]
    outputs, parts = run_layers(layers, inputs, before)
    pairs = zip(state, parts, strict=True)
    return outputs, {name: value.transpose(0, 1) for name, value in pairs}


def rnn(
    *,
    source_vocab: int,
    target_vocab: int,
    tie: str = "2way",
    size: Mapping[str, Any] | None = None,
) -> RnnSeq2Seq:
    """The recurrent model from plain values, as the plan and an artefact have them.

    Args:
        source_vocab: Source words.
        target_vocab: Target words.
        tie: "none", "2way" or "3way".
        size: The fields of `RnnShape` that differ from its own values.

    Raises:
        ArgumentError: ``size`` names a field that there is not.
    """
    return RnnSeq2Seq(
        source_vocab, target_vocab, shape_from(RnnShape, size, "The recurrent model"), tie
    )
