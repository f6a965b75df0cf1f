"""AWD-LSTM: a regularised recurrent language model, which learns well from little text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flambeau.errors import ArgumentError
from flambeau_text.models.config import config_from_values
from flambeau_text.models.language_model import LanguageFeatures, LanguageModel
from flambeau_text.models.recurrent_layers import SequenceDropout, run_weights

_EMBEDDING_RANGE = 0.1
"""Embeddings start evenly between -0.1 and 0.1, as in the authors' code."""

State = tuple[tuple[Tensor, ...], ...]
"""For each layer the hidden and the cell state, ``(1, batch, width)``."""


@dataclass(frozen=True)
class AwdDropout:
    """The five dropout probabilities of AWD-LSTM, by what they drop.

    Attributes:
        output: Features of the last layer, one mask for all positions.
        hidden: Outputs of each layer but the last, one mask for all positions. The authors use 0.2
            for WikiText-2 and 0.25 for Penn Treebank.
        input: Embeddings, one mask for all positions.
        embedding: Whole rows of the embedding: all occurrences of a token type in the batch.
        weight: The hidden-to-hidden weights of each layer, once per call (DropConnect).
    """

    output: float = 0.4
    hidden: float = 0.3
    input: float = 0.65
    embedding: float = 0.1
    weight: float = 0.5

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            if not 0.0 <= value < 1.0:
                raise ArgumentError(
                    f"The {each.name} dropout is {value!r}. A probability is at least 0 and less "
                    "than 1."
                )

    def times(self, factor: float) -> AwdDropout:
        """Return all probabilities multiplied by ``factor``, at most 0.95."""
        return AwdDropout(**{name: min(0.95, factor * p) for name, p in asdict(self).items()})


@dataclass(frozen=True)
class AwdLstmConfig:
    """The settings of an AWD-LSTM.

    Attributes:
        embedding_dim: Width of the embeddings, and with ``tie`` of the last layer.
        hidden_size: Width of the other layers.
        num_layers: Number of LSTM layers.
        tie: Whether embedding and output layer share one weight.
        dropout: The probabilities, or a mapping of those that differ from the defaults.
    """

    embedding_dim: int = 400
    hidden_size: int = 1150
    num_layers: int = 3
    tie: bool = True
    dropout: AwdDropout | Mapping[str, float] = AwdDropout()

    def __post_init__(self) -> None:
        for name in ("embedding_dim", "hidden_size", "num_layers"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise ArgumentError(f"{name}={value!r} is invalid. Give a number of at least 1.")
        if isinstance(self.dropout, Mapping):
            given = config_from_values(AwdDropout, self.dropout, "The dropout of AWD-LSTM")
            object.__setattr__(self, "dropout", given)

    def widths(self) -> list[tuple[int, int]]:
        """Return the input and output width of each layer."""
        last = self.embedding_dim if self.tie else self.hidden_size
        widths = [
            self.embedding_dim,
            *[self.hidden_size] * (self.num_layers - 1),
            last,
        ]
        return list(pairwise(widths))


class EmbeddingDropout(nn.Module):
    """Embeds tokens, and in training drops token types: all their occurrences in a batch.

    Args:
        embedding: The embedding.
        p: Probability that a type is dropped; the others are multiplied by ``1 / (1 - p)``.

    Source:
        Gal and Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural
        Networks" (arXiv 1512.05287), section 4.2.
    """

    def __init__(self, embedding: nn.Embedding, p: float) -> None:
        super().__init__()
        self.embedding = embedding
        self.p = p

    def forward(self, tokens: Tensor) -> Tensor:
        """Map ids ``(batch, positions)`` to ``(batch, positions, size)``."""
        embedded = self.embedding(tokens)
        if not self.training or self.p == 0.0:
            return embedded
        # One draw per type, read for each token: the same as a masked weight, without its copy.
        kept = torch.empty(self.embedding.num_embeddings, device=tokens.device)
        kept.bernoulli_(1.0 - self.p).div_(1.0 - self.p)
        return embedded * kept[tokens].unsqueeze(-1).to(embedded.dtype)

    def extra_repr(self) -> str:
        """Return the probability for ``repr``."""
        return f"p={self.p}"


class WeightDropLSTM(nn.Module):
    """One LSTM layer whose hidden-to-hidden weights are dropped in training (DropConnect).

    The mask is drawn once per call and is the same at all positions. The parameters are those of
    ``lstm``; dropped weights exist only within the call, so optimizers, checkpoints and averages
    see plain parameters.

    Args:
        input_size: Width of the inputs.
        hidden_size: Width of the outputs.
        p: Probability that a weight is dropped.

    Source:
        Wan et al., "Regularization of Neural Networks using DropConnect" (2013); for recurrent
        weights Merity et al. (arXiv 1708.02182), section 2.
    """

    def __init__(self, input_size: int, hidden_size: int, p: float) -> None:
        super().__init__()
        self.lstm = nn.LSTM(input_size, hidden_size, batch_first=True)
        self.p = p

    def forward(
        self, inputs: Tensor, state: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Map ``(batch, positions, input_size)`` to ``(…, hidden_size)`` and the last state."""
        if state is None:
            zeros = inputs.new_zeros(1, len(inputs), self.lstm.hidden_size)
            state = (zeros, zeros)
        to_input, to_hidden, *biases = self.lstm.all_weights[0]
        to_hidden = F.dropout(to_hidden, self.p, self.training)
        return run_weights(self.lstm, inputs, state, [to_input, to_hidden, *biases])

    def extra_repr(self) -> str:
        """Return the probability for ``repr``."""
        return f"p={self.p}"


class AwdEncoder(nn.Module):
    """The embedding and the recurrent layers of an AWD-LSTM, without its output layer.

    Args:
        vocab_size: Number of tokens.
        config: Sizes and dropout.

    Attributes:
        embedding: Embedding with dropout of token types.
        layers: The recurrent layers.
    """

    def __init__(self, vocab_size: int, config: AwdLstmConfig | None = None) -> None:
        super().__init__()
        self.config = config = AwdLstmConfig() if config is None else config
        dropout = cast("AwdDropout", config.dropout)
        embedding = nn.Embedding(vocab_size, config.embedding_dim)
        nn.init.uniform_(embedding.weight, -_EMBEDDING_RANGE, _EMBEDDING_RANGE)
        self.embedding = EmbeddingDropout(embedding, dropout.embedding)
        self.input_dropout = SequenceDropout(dropout.input)
        self.layers = nn.ModuleList(
            WeightDropLSTM(width, after, dropout.weight) for width, after in config.widths()
        )
        self.hidden_dropout = SequenceDropout(dropout.hidden)
        self.output_dropout = SequenceDropout(dropout.output)

    def features(self, tokens: Tensor, state: State | None = None) -> LanguageFeatures:
        """Compute the features of the next token at each position.

        Args:
            tokens: int64 ``(batch, positions)``.
            state: Hidden and cell state of each layer, ``(1, batch, width)``; None for zeros.
        """
        values = self.input_dropout(self.embedding(tokens))
        after: list[tuple[Tensor, ...]] = []
        for index, layer in enumerate(self.layers):
            if index:
                values = self.hidden_dropout(values)
            values, last = layer(values, None if state is None else state[index])
            after.append(last)
        return LanguageFeatures(self.output_dropout(values), tuple(after), values)

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups: the embedding and each recurrent layer."""
        recurrent = {f"lstm_{index}": [layer] for index, layer in enumerate(self.layers)}
        return {"embedding": [self.embedding], **recurrent}


class AwdLstm(AwdEncoder, LanguageModel):
    """A stack of LSTM layers with five kinds of dropout and tied embeddings.

    With a vocabulary of 10,000 the default has 24,221,600 parameters, with 33,278 (WikiText-2)
    33,556,078, as published.

    Args:
        vocab_size: Number of tokens.
        config: Sizes and dropout.

    Attributes:
        output: The output layer; with ``config.tie`` its weight is the embedding's.

    Source:
        Merity, Keskar and Socher, "Regularizing and Optimizing LSTM Language Models"
        (arXiv 1708.02182).
    """

    def __init__(self, vocab_size: int, config: AwdLstmConfig | None = None) -> None:
        super().__init__(vocab_size, config)
        self.output = nn.Linear(self.config.widths()[-1][1], vocab_size)
        nn.init.zeros_(self.output.bias)
        if self.config.tie:
            self.output.weight = self.embedding.embedding.weight
        else:
            nn.init.uniform_(self.output.weight, -_EMBEDDING_RANGE, _EMBEDDING_RANGE)

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups: embedding, each recurrent layer, and the output layer.

        A tied output weight belongs to the embedding.
        """
        head: list[Any] = [self.output.bias] if self.config.tie else [self.output]
        return {**super().layer_groups(), "output": head}


def awd_lstm(*, vocab_size: int, config: Mapping[str, Any] | None = None) -> AwdLstm:
    """Build an AWD-LSTM from plain values, as the plan and an artefact store them.

    Args:
        vocab_size: Number of tokens.
        config: Fields of `AwdLstmConfig` that differ from their defaults.

    Raises:
        ArgumentError: ``config`` has an unknown field.

    Example:
        >>> model = awd_lstm(vocab_size=50, config={"embedding_dim": 8, "hidden_size": 16})
        >>> model.features(torch.zeros(1, 3, dtype=torch.int64)).features.shape
        torch.Size([1, 3, 8])
    """
    return AwdLstm(vocab_size, config_from_values(AwdLstmConfig, config, "AWD-LSTM"))
