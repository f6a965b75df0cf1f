"""``LanguageModel``: the base class of models that predict the next token, and their output."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from flambeau.errors import ArgumentError
from flambeau_text.tokenization.tokenizer import Tokenizer


@dataclass(frozen=True)
class LanguageFeatures:
    """What a language model computes for a batch of tokens, before the output layer.

    Attributes:
        features: Inputs of the output layer, ``(batch, positions, size)``.
        state: What the model carries to the tokens that follow: pass it to the next call.
        raw: ``features`` without the last dropout, for temporal activation regularisation; None if
            the model has no such dropout.
    """

    features: Tensor
    state: Any
    raw: Tensor | None = None


class LanguageModel(nn.Module):
    """A model that predicts each token from those before it.

    A subclass defines ``output``, the layer that maps features to logits, and `features`. Losses
    call `features` and compute the logits in chunks; calling the model computes all logits.

    A model with attention can also define `packed_features`, for rows of several documents.

    Attributes:
        output: Maps ``(…, size)`` to logits ``(…, vocabulary)``.
        reads_padding: Whether `padded_features` is defined.
        max_positions: Number of tokens that the model can read; None without a limit.
    """

    output: nn.Module
    reads_padding: ClassVar[bool] = False
    max_positions: int | None = None

    def check_tokenizer(self, tokenizer: Tokenizer) -> None:
        """Raise an ArgumentError if the model was trained with another tokenizer, where known."""

    def features(self, tokens: Tensor, state: Any = None) -> LanguageFeatures:
        """Compute the features of the next token at each position.

        Args:
            tokens: int64 ``(batch, positions)``.
            state: The state after the tokens before; None if there are none.
        """
        raise NotImplementedError

    def packed_features(self, tokens: Tensor, documents: Tensor) -> LanguageFeatures:
        """Compute the features of packed rows, in which each document is computed as if alone.

        Args:
            tokens: int64 ``(rows, positions)``.
            documents: Number of the document of each token, 0 for padding, of the same shape.

        Raises:
            ArgumentError: The model does not support packed rows.
        """
        raise ArgumentError(
            f"{type(self).__name__} cannot read packed rows: it carries its state from token to "
            'token. Use choices={"layout": "stream"}, or a model with attention, such as "decoder".'
        )

    def padded_features(self, tokens: Tensor, mask: Tensor) -> LanguageFeatures:
        """Compute the features of texts that are padded on the left, and the state after them.

        Args:
            tokens: int64 ``(batch, positions)``.
            mask: False at padding, of the same shape.

        Raises:
            ArgumentError: The model does not support padding.
        """
        raise ArgumentError(f"{type(self).__name__} cannot read padding before a text.")

    def forward(self, tokens: Tensor, state: Any = None) -> tuple[Tensor, Any]:
        """Return the logits of the next token, ``(batch, positions, vocabulary)``, and the state.

        Args:
            tokens: int64 ``(batch, positions)``.
            state: The state after the tokens before; None if there are none.
        """
        found = self.features(tokens, state)
        return self.output(found.features), found.state
