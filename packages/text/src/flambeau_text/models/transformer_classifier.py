"""The classifier "transformer": self-attention over all tokens of a text, and their mean."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor, nn

from flambeau.errors import ArgumentError
from flambeau_text.models.config import config_from_values
from flambeau_text.models.text_classifier import (
    TextClassifier,
    TextEncoder,
    classifier,
    valid_positions,
)
from flambeau_text.models.transformer import positional_encoding
from flambeau_text.models.transformer_layers import EncoderLayer


@dataclass(frozen=True)
class TransformerClassifierConfig:
    """The configuration of the classifier "transformer".

    Attributes:
        d_model: Width at each position.
        nhead: Number of attention heads.
        dim_feedforward: Width of the feed-forward layers.
        num_layers: Number of layers.
        norm: "pre" or "post": where the norms are; see `TransformerConfig`.
        activation: "relu" or "gelu".
        dropout: Dropout probability of embeddings, attention weights, sub-layers and the head.
    """

    d_model: int = 128
    nhead: int = 4
    dim_feedforward: int = 512
    num_layers: int = 2
    norm: Literal["pre", "post"] = "pre"
    activation: Literal["relu", "gelu"] = "relu"
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name in ("d_model", "nhead", "dim_feedforward", "num_layers"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ArgumentError(f"{name}={value!r} is invalid. Give a number of at least 1.")
        if self.d_model % (2 * self.nhead):
            raise ArgumentError(
                f"d_model={self.d_model} is not divisible by 2 × nhead = {2 * self.nhead}. Change "
                "one of them, so that each head has an even width."
            )
        if self.norm not in ("pre", "post") or self.activation not in ("relu", "gelu"):
            raise ArgumentError(
                f"norm={self.norm!r}, activation={self.activation!r}: norm is 'pre' or 'post', "
                "activation 'relu' or 'gelu'."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ArgumentError(f"dropout={self.dropout!r} is invalid. It is from 0 to below 1.")


class TransformerTextEncoder(TextEncoder):
    """Transformer encoder layers, and the mean of their outputs over the tokens of a text.

    Args:
        vocab_size: Number of tokens.
        config: Sizes and kinds.

    Source:
        Vaswani et al., "Attention Is All You Need" (arXiv 1706.03762), section 3.1.
    """

    def __init__(self, vocab_size: int, config: TransformerClassifierConfig) -> None:
        super().__init__()
        self.width = config.d_model
        self.embedding = nn.Embedding(vocab_size, config.d_model)
        nn.init.normal_(self.embedding.weight, std=config.d_model**-0.5)
        self.dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_layers))
        self.norm = nn.LayerNorm(config.d_model) if config.norm == "pre" else nn.Identity()

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        mask = valid_positions(tokens, lengths)
        scaled = self.embedding(tokens) * math.sqrt(self.width)
        values = self.dropout(scaled + positional_encoding(0, tokens.shape[1], scaled))
        for layer in self.layers:
            values = layer(values, mask)
        kept = self.norm(values).masked_fill(~mask.unsqueeze(2), 0.0)
        return kept.sum(1) / lengths.unsqueeze(1)

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        layers = {f"layer_{index}": [layer] for index, layer in enumerate(self.layers)}
        *first, last = layers
        return {
            "embedding": [self.embedding],
            **{name: layers[name] for name in first},
            last: [*layers[last], self.norm],
        }


def transformer_classifier(
    *,
    vocab_size: int,
    n_outputs: int,
    config: Mapping[str, Any] | None = None,
    n_texts: int = 1,
) -> TextClassifier:
    """Build the classifier "transformer" from plain values, as the plan and an artefact store them.

    Args:
        vocab_size: Number of tokens.
        n_outputs: Number of outputs.
        config: Fields of `TransformerClassifierConfig` that differ from their defaults.
        n_texts: 1, or 2 for pairs of texts.

    Raises:
        ArgumentError: ``config`` has an unknown field or an invalid value.
    """
    chosen = config_from_values(TransformerClassifierConfig, config, "The classifier 'transformer'")
    encoder = TransformerTextEncoder(vocab_size, chosen)
    return classifier(encoder, n_outputs, n_texts, hidden=0, dropout=chosen.dropout)
