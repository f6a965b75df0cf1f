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
    """

    width: int

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


def valid_positions(tokens: Tensor, lengths: Tensor, first: int = 0) -> Tensor:
    """Return which positions are before the end of their text, bool ``(batch, positions)``.

    Args:
        tokens: ``(batch, positions)``.
        lengths: ``(batch,)``.
        first: The position of the first column of ``tokens`` in its text.
    """
    positions = torch.arange(first, first + tokens.shape[1], device=tokens.device)
    return positions < lengths.unsqueeze(1)


def classifier_head(width: int, n_outputs: int, hidden: int, dropout: float) -> nn.Sequential:
    """Return a head: norm, dropout and a hidden layer if ``hidden`` is above 0, and the outputs.

    Args:
        width: Size of the encoder's vectors.
        n_outputs: Number of outputs.
        hidden: Size of the hidden layer; 0 for none.
        dropout: Dropout probability before each linear layer.

    Source:
        Howard and Ruder (arXiv 1801.06146), with layer norm in place of batch norm, so that a
        prediction does not depend on the other texts of a batch, in training either.
    """
    if not hidden:
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(width, n_outputs))
    layers: list[Any] = [
        *(nn.LayerNorm(width), nn.Dropout(dropout), nn.Linear(width, hidden), nn.ReLU()),
        *(nn.LayerNorm(hidden), nn.Dropout(dropout), nn.Linear(hidden, n_outputs)),
    ]
    return nn.Sequential(*layers)
