"""The classifier "awd_lstm": an AWD-LSTM that reads texts in chunks, and concat pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau.errors import ArgumentError
from flambeau_text.models.awd_lstm import AwdEncoder, AwdLstmConfig, State
from flambeau_text.models.config import config_from_values
from flambeau_text.models.text_classifier import (
    TextClassifier,
    TextEncoder,
    classifier,
    valid_positions,
)


@dataclass(frozen=True)
class AwdClassifierConfig(AwdLstmConfig):
    """The configuration of the classifier "awd_lstm": that of the language model, and a head.

    Attributes:
        chunk: Number of tokens that the network reads at once; the state is carried on.
        window: Gradients reach the chunks that begin at most this number of tokens before the end
            of a text, which bounds the memory of a step; at least ``chunk``.
        head_size: Size of the head's hidden layer; 0 for none.
        head_dropout: Dropout probability in the head.
    """

    chunk: int = 70
    window: int = 1_400
    head_size: int = 50
    head_dropout: float = 0.2

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, least in (("chunk", 1), ("window", 1), ("head_size", 0)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ArgumentError(
                    f"{name}={value!r} is invalid. Give a whole number from {least} on."
                )
        if self.window < self.chunk:
            raise ArgumentError(
                f"window={self.window} is less than chunk={self.chunk}, so that gradients would "
                "reach no token of some texts. Give at least the size of a chunk."
            )
        if not 0.0 <= self.head_dropout < 1.0:
            raise ArgumentError(
                f"head_dropout={self.head_dropout!r} is invalid. It is from 0 to below 1."
            )


class ConcatPoolEncoder(TextEncoder):
    """Reads a text chunk by chunk, and pools the features of all its positions.

    A text's vector is the features of its last token, their maximum over its positions and their
    mean. Chunks begin at the start of the text, so that chunks, padding and the other texts of a
    batch do not change the result: it is that of one pass over the text alone. Gradients reach the
    chunks that begin at most ``window`` tokens before the end of the text.

    Args:
        encoder: The recurrent network.
        chunk: Number of tokens of a chunk.
        window: Maximum number of tokens that gradients reach, at least ``chunk``.

    Source:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification"
        (arXiv 1801.06146), section 3.3: concat pooling and BPT3C.
    """

    def __init__(self, encoder: AwdEncoder, chunk: int, window: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.chunk, self.window = chunk, window
        self.width, self.parts = 3 * encoder.config.widths()[-1][1], 3

    def forward(self, tokens: Tensor, lengths: Tensor) -> Tensor:
        # The first chunk of each text that gradients reach, as the position of its first token.
        beyond = (lengths - self.window).clamp(min=0)
        first_live = (beyond + self.chunk - 1) // self.chunk * self.chunk
        frozen_until = self._frozen_until(tokens, first_live)
        state: State | None = None
        pools: _Pools | None = None
        for start in range(0, tokens.shape[1], self.chunk):
            piece = tokens[:, start : start + self.chunk]
            with torch.no_grad() if start < frozen_until else nullcontext():
                found = self.encoder.features(piece, state)
            live = start >= first_live
            features = _gated(found.features, live, 0)
            state = tuple(tuple(_gated(each, live, 1) for each in layer) for layer in found.state)
            pools = _Pools.of(features, lengths) if pools is None else pools
            pools = pools.extended(features, valid_positions(piece, lengths, start), start)
        return cast("_Pools", pools).vector(lengths)

    def _frozen_until(self, tokens: Tensor, first_live: Tensor) -> int:
        """Return the position before which no text of the batch needs gradients.

        Only a batch with texts longer than the window reads a value from the device for it.
        """
        if not torch.is_grad_enabled() or tokens.shape[1] <= self.window:
            return 0
        return int(first_live.min())

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        return self.encoder.layer_groups()


@dataclass(frozen=True)
class _Pools:
    """Sum, maximum and last features of the positions so far, ``(batch, size)`` each."""

    total: Tensor
    largest: Tensor
    last: Tensor
    last_positions: Tensor

    @classmethod
    def of(cls, features: Tensor, lengths: Tensor) -> _Pools:
        """Return the pools before the first position."""
        zeros = torch.zeros_like(features[:, 0], dtype=torch.float32)
        zeros = zeros if features.dtype != torch.float64 else zeros.double()
        return cls(zeros, torch.full_like(zeros, -torch.inf), zeros, lengths - 1)

    def extended(self, features: Tensor, valid: Tensor, start: int) -> _Pools:
        """Return the pools after a chunk that begins at the position ``start``."""
        features, keep = features.to(self.total.dtype), valid.unsqueeze(2)
        total = self.total + features.masked_fill(~keep, 0.0).sum(1)
        largest = torch.maximum(self.largest, features.masked_fill(~keep, -torch.inf).amax(1))
        at = self.last_positions - start
        is_here = (at >= 0) & (at < features.shape[1])
        rows = torch.arange(len(at), device=at.device)
        here = features[rows, at.clamp(0, features.shape[1] - 1)]
        last = torch.where(is_here.unsqueeze(1), here, self.last)
        return _Pools(total, largest, last, self.last_positions)

    def vector(self, lengths: Tensor) -> Tensor:
        """Return last, maximum and mean, ``(batch, 3 * size)``."""
        mean = self.total / lengths.unsqueeze(1)
        return torch.cat([self.last, self.largest, mean], 1)


def _gated(values: Tensor, live: Tensor, axis: int) -> Tensor:
    """Return the values, without gradients in the rows (along ``axis``) that are not live."""
    if not values.requires_grad:
        return values
    shape = [1] * values.ndim
    shape[axis] = len(live)
    return torch.where(live.view(shape), values, values.detach())


def awd_lstm_classifier(
    *,
    vocab_size: int,
    n_outputs: int,
    config: Mapping[str, Any] | None = None,
    weights: Mapping[str, Any] | None = None,
    n_texts: int = 1,
) -> TextClassifier:
    """Build the classifier "awd_lstm" from plain values, as the plan and an artefact store them.

    Args:
        vocab_size: Number of tokens.
        n_outputs: Number of outputs.
        config: Fields of `AwdClassifierConfig` that differ from their defaults.
        weights: The arguments of `load_language_model`, for an encoder that starts from a language
            model; None starts from random weights.
        n_texts: 1, or 2 for pairs of texts.

    Raises:
        ArgumentError: ``config`` has an unknown field or an invalid value.
        ArtefactError: The language model cannot be read or does not fit.

    Example:
        >>> sizes = {"embedding_dim": 8, "hidden_size": 16}
        >>> model = awd_lstm_classifier(vocab_size=50, n_outputs=2, config=sizes)
        >>> model(torch.tensor([[3, 9, 3]]), torch.tensor([3])).shape
        torch.Size([1, 2])
    """
    chosen = config_from_values(AwdClassifierConfig, config, "The classifier 'awd_lstm'")
    encoder = ConcatPoolEncoder(AwdEncoder(vocab_size, chosen), chosen.chunk, chosen.window)
    if weights is not None:
        from flambeau_text.models.pretrained_encoder import load_language_model

        load_language_model(encoder.encoder, **weights)
    return classifier(
        encoder, n_outputs, n_texts, hidden=chosen.head_size, dropout=chosen.head_dropout
    )
