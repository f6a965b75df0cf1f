"""``TextClassifier``: an encoder that summarises a text as one vector, and a head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class TextEncoder(nn.Module):
    """A network that maps the tokens of texts to one vector each.

    Padding after the end of a text must not change its vector. A subclass defines ``width`` and
    ``forward(tokens, lengths)``; one whose layers should be frozen and trained in groups defines
    ``layer_groups()``, from the input on.

    Attributes:
        width: Size of the vectors.
        parts: Number of equal parts of the vectors with different scales, such as the mean and
            the maximum over the positions; the head normalises each part.
        token_embedding: The embedding of tokens, if the encoder has other embeddings, too.
    """

    width: int
    parts: int = 1
    token_embedding: nn.Module | None = None

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Map tokens to vectors ``(batch, width)``; see `TextClassifier.forward`."""
        raise NotImplementedError(f"{type(self).__name__} must define forward(tokens, lengths).")

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups from the input on, by name."""
        return {"encoder": [self]}


class TextClassifier(nn.Module):
    """Classifies texts, or predicts numbers from them.

    Args:
        encoder: Maps a text to a vector.
        head: Maps the vectors ``(batch, width)`` to the outputs ``(batch, outputs)``.
    """

    def __init__(self, encoder: TextEncoder, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        """Return the outputs ``(batch, outputs)``.

        Args:
            tokens: Token ids, int64 ``(batch, positions)``; what is at or after the length of a
                text has no influence.
            lengths: Number of tokens of each text, at least 1, int64 ``(batch,)``.
        """
        return self.head(self.encoder(tokens, lengths))

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups: those of the encoder, then the head."""
        return {**self.encoder.layer_groups(), "head": [self.head]}


class PairClassifier(TextClassifier):
    """Classifies pairs of texts, or predicts numbers from them.

    One encoder maps both texts to vectors u and v; the head reads u, v, abs(u - v) and u * v.

    Args:
        encoder: Maps a text to a vector.
        head: Maps ``(batch, 4 * width)`` to the outputs ``(batch, outputs)``.

    Source:
        Conneau et al., "Supervised Learning of Universal Sentence Representations from Natural
        Language Inference Data" (arXiv 1705.02364), section 2.1.
    """

    def forward(
        self, tokens: Tensor, lengths: Tensor, second_tokens: Tensor, second_lengths: Tensor
    ) -> Tensor:
        """Return the outputs ``(batch, outputs)``.

        Args:
            tokens: Token ids of the first texts; see `TextClassifier.forward`.
            lengths: Number of tokens of each first text.
            second_tokens: Token ids of the second texts.
            second_lengths: Number of tokens of each second text.
        """
        first, second = self.encoder(tokens, lengths), self.encoder(second_tokens, second_lengths)
        together = torch.cat([first, second, (first - second).abs(), first * second], 1)
        return self.head(together)


def classifier(
    encoder: TextEncoder, n_outputs: int, n_texts: int, *, hidden: int, dropout: float
) -> TextClassifier:
    """Return a classifier of single texts, or of pairs.

    Args:
        encoder: Maps a text to a vector.
        n_outputs: Number of outputs.
        n_texts: 1, or 2 for pairs.
        hidden: Size of the head's hidden layer; 0 for none.
        dropout: Dropout probability in the head.
    """
    vectors = 1 if n_texts == 1 else 4
    width, parts = vectors * encoder.width, vectors * encoder.parts
    head = classifier_head(width, n_outputs, hidden, dropout, parts)
    return TextClassifier(encoder, head) if n_texts == 1 else PairClassifier(encoder, head)


def valid_positions(tokens: Tensor, lengths: Tensor, first: int = 0) -> Tensor:
    """Return which positions are before the end of their text, bool ``(batch, positions)``.

    Args:
        tokens: ``(batch, positions)``.
        lengths: ``(batch,)``.
        first: The position of the first column of ``tokens`` in its text.
    """
    positions = torch.arange(first, first + tokens.shape[1], device=tokens.device)
    return positions < lengths.unsqueeze(1)


def classifier_head(
    width: int, n_outputs: int, hidden: int, dropout: float, parts: int = 1
) -> nn.Sequential:
    """Return a head: norm, dropout and a hidden layer if ``hidden`` is above 0, and the outputs.

    Args:
        width: Size of the encoder's vectors.
        n_outputs: Number of outputs.
        hidden: Size of the hidden layer; 0 for none.
        dropout: Dropout probability before each linear layer.
        parts: Number of equal parts of the vectors that are normalised separately, see
            `TextEncoder`: one norm for all would leave those of small scale without influence.

    Source:
        Howard and Ruder (arXiv 1801.06146), with norms over the features of a text in place of
        batch norm, so that a prediction does not depend on the other texts of a batch, in training
        either.
    """
    if not hidden:
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, n_outputs))
    layers: list[Any] = [
        *(nn.GroupNorm(parts, width), nn.Dropout(dropout), nn.Linear(width, hidden), nn.ReLU()),
        *(nn.LayerNorm(hidden), nn.Dropout(dropout), nn.Linear(hidden, n_outputs)),
    ]
    return nn.Sequential(*layers)
