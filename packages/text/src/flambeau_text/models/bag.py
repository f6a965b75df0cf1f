"""The classifier "bag": the mean of the vectors of a text's tokens and pairs of tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError
from flambeau_text.models.config import config_from_values
from flambeau_text.models.text_classifier import (
    TextClassifier,
    TextEncoder,
    classifier,
    valid_positions,
)

_MULTIPLIER = 1_000_003


@dataclass(frozen=True)
class BagConfig:
    """The configuration of the classifier "bag".

    Attributes:
        width: Size of the vectors.
        buckets: Number of vectors for pairs of adjacent tokens; pairs whose hashes are equal share
            one. 0 uses single tokens only.
        dropout: Probability that a feature of the mean is dropped in training.
    """

    width: int = 32
    buckets: int = 65_536
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name, least in (("width", 1), ("buckets", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ArgumentError(
                    f"{name}={value!r} is invalid. Give a whole number from {least} on."
                )
        if not 0.0 <= self.dropout < 1.0:
            raise ArgumentError(f"dropout={self.dropout!r} is invalid. It is from 0 to below 1.")


class BagEncoder(TextEncoder):
    """The mean of the vectors of all tokens and pairs of adjacent tokens of a text.

    Args:
        vocab_size: Number of tokens.
        config: Sizes.

    Source:
        Joulin et al., "Bag of Tricks for Efficient Text Classification" (arXiv 1607.01759). As in
        fastText, vectors start evenly within ±1/width.
    """

    def __init__(self, vocab_size: int, config: BagConfig) -> None:
        super().__init__()
        self.vocab_size, self.buckets, self.width = vocab_size, config.buckets, config.width
        # One more vector, which is zero and stands for padding.
        n = vocab_size + config.buckets
        self.vectors = nn.EmbeddingBag(n + 1, config.width, mode="mean", padding_idx=n)
        with torch.no_grad():
            self.vectors.weight[:n].uniform_(-1.0 / config.width, 1.0 / config.width)

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        ids, pairs = self._ids(tokens, lengths)
        return self.vectors(ids if pairs is None else torch.cat([ids, pairs], 1))

    def _ids(self, tokens: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the rows of the vectors of tokens and of pairs, with those of padding masked."""
        valid = valid_positions(tokens, lengths)
        padding = self.vocab_size + self.buckets
        ids = tokens.masked_fill(~valid, padding)
        if not self.buckets or tokens.shape[1] < 2:
            return ids, None
        pairs = (tokens[:, :-1] * _MULTIPLIER + tokens[:, 1:]) % self.buckets
        return ids, (pairs + self.vocab_size).masked_fill(~valid[:, 1:], padding)

    def contributions(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the part of each position in the mean, ``(batch, positions, width)``.

        A pair counts half for each of its two tokens; the sum over the positions is the mean.
        """
        ids, pairs = self._ids(tokens, lengths)
        found = self.vectors.weight[ids]
        count = lengths.double()
        if pairs is not None:
            halves = self.vectors.weight[pairs] / 2
            found = found.clone()
            found[:, :-1] += halves
            found[:, 1:] += halves
            count = 2.0 * count - 1.0
        return found / count.to(found.dtype).view(-1, 1, 1)


def bag_classifier(
    *,
    vocab_size: int,
    n_outputs: int,
    config: Mapping[str, Any] | None = None,
    n_texts: int = 1,
) -> TextClassifier:
    """Build the classifier "bag" from plain values, as the plan and an artefact store them.

    Args:
        vocab_size: Number of tokens.
        n_outputs: Number of outputs.
        config: Fields of `BagConfig` that differ from their defaults.
        n_texts: 1, or 2 for pairs of texts.

    Raises:
        ArgumentError: ``config`` has an unknown field or an invalid value.

    Example:
        >>> model = bag_classifier(vocab_size=50, n_outputs=2, config={"width": 8, "buckets": 100})
        >>> model(torch.tensor([[3, 9, 3]]), torch.tensor([3])).shape
        torch.Size([1, 2])
    """
    chosen = config_from_values(BagConfig, config, "The classifier 'bag'")
    encoder = BagEncoder(vocab_size, chosen)
    # Of pairs the head compares two vectors, for which one linear layer is not enough.
    hidden = 0 if n_texts == 1 else chosen.width
    return classifier(encoder, n_outputs, n_texts, hidden=hidden, dropout=chosen.dropout)
