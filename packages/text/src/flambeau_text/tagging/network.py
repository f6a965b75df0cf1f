"""The network "gru" for tags: an embedding, a bidirectional GRU, and a layer per word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from flambeau.errors import ArgumentError
from flambeau_text.models.config import config_from_values
from flambeau_text.models.rnn_encoder import RnnEncoder
from flambeau_text.models.text_classifier import valid_positions


@dataclass(frozen=True)
class TaggerConfig:
    """The configuration of the network "gru".

    Attributes:
        embedding_dim: Width of the embeddings.
        hidden_size: Size of the state in each direction.
        num_layers: Number of layers.
        dropout: Dropout probability of embeddings and outputs.
    """

    embedding_dim: int = 64
    hidden_size: int = 64
    num_layers: int = 1
    dropout: float = 0.3

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "hidden_size", "num_layers"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ArgumentError(f"{name}={value!r} is invalid. Give a number of at least 1.")
        if not 0.0 <= self.dropout < 1.0:
            raise ArgumentError(f"dropout={self.dropout!r} is invalid. It is from 0 to below 1.")


class Tagger(nn.Module):
    """Predicts a tag for each word from the tokens of a sentence.

    Args:
        vocab_size: Number of tokens.
        n_outputs: Number of tags.
        config: Sizes and dropout.
    """

    def __init__(self, vocab_size: int, n_outputs: int, config: TaggerConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.embedding_dim)
        self.dropout = nn.Dropout(config.dropout)
        self.encoder = RnnEncoder(
            config.embedding_dim, config.hidden_size, config.num_layers, "gru", config.dropout
        )
        self.output = nn.Linear(self.encoder.output_size, n_outputs)

    def forward(self, tokens: Tensor, lengths: Tensor, starts: Tensor) -> Tensor:
        """Return logits ``(batch, tags, words)``.

        Args:
            tokens: Token ids, int64 ``(batch, positions)``.
            lengths: Number of tokens of each sentence, at least 1, int64 ``(batch,)``.
            starts: Position of the first token of each word, int64 ``(batch, words)``; 0 after the
                last word.
        """
        mask = valid_positions(tokens, lengths)
        values, _ = self.encoder(self.dropout(self.embedding(tokens)), mask)
        words = values.gather(1, starts.unsqueeze(2).expand(-1, -1, values.shape[2]))
        return self.output(self.dropout(words)).transpose(1, 2)

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups: embedding, encoder and output layer."""
        return {"embedding": [self.embedding], "encoder": [self.encoder], "output": [self.output]}


def gru_tagger(
    *, vocab_size: int, n_outputs: int, config: Mapping[str, Any] | None = None
) -> Tagger:
    """Build the network "gru" from plain values, as the plan and an artefact store them.

    Args:
        vocab_size: Number of tokens.
        n_outputs: Number of tags.
        config: Fields of `TaggerConfig` that differ from their defaults.

    Raises:
        ArgumentError: ``config`` has an unknown field or an invalid value.
    """
    chosen = config_from_values(TaggerConfig, config, "The tagger 'gru'")
    return Tagger(vocab_size, n_outputs, chosen)
