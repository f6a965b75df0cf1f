"""The forward pass of flambeau's recurrent model in plain PyTorch, with the same layers."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flambeau_text.models import AdditiveAttention, RnnSeq2Seq
from flambeau_text.models.rnn import RnnConfig


class PlainRnn(nn.Module):
    """The forward pass of an ``RnnSeq2Seq`` without flambeau's optimisations.

    Sources are packed for ``nn.GRU``, and autocast decides what to cast. The weights are shared and
    dropout is drawn in the same order, so the losses are equal up to rounding. As in flambeau,
    there is one dropout mask per sentence; one per position would make a step a sixth slower.

    Args:
        model: A model with GRUs, additive attention, the bridge "mlp" and no input feeding. The
            weights of this model are trained.

    Raises:
        ValueError: The model has another structure.
    """

    def __init__(self, model: RnnSeq2Seq) -> None:
        super().__init__()
        config, usual = model.config, RnnConfig()
        for name in ("cell", "attention", "bridge", "input_feeding", "encoder_layers"):
            if getattr(config, name) != getattr(usual, name):
                raise ValueError(f"PlainRnn does not implement {name}={getattr(config, name)!r}.")
        if model.bridge is None or not isinstance(model.upper_layers, nn.GRU):
            raise ValueError("PlainRnn needs a bridge and a decoder with two GRU layers.")
        self.hidden_size, self.dropout = config.hidden_size, config.dropout
        self.source_embedding, self.target_embedding = (
            model.source_embedding, model.target_embedding,
        )  # fmt: skip
        self.encoder = cast("nn.GRU", model.encoder.layers)
        self.bridge = model.bridge["hidden"]
        self.first, self.upper = cast("nn.GRU", model.first_layer), model.upper_layers
        self.attention = cast("AdditiveAttention", model.attention)
        self.readout, self.output = model.readout, model.output

    def forward(self, source: Tensor, mask: Tensor, previous: Tensor) -> Tensor:
        """Return logits ``(batch, target, vocabulary)``.

        Args:
            source: int64 ``(batch, source)``.
            mask: True at source tokens, bool ``(batch, source)``.
            previous: The previous target tokens, int64 ``(batch, target)``.
        """
        embedded_source = self.drop(self.source_embedding(source))
        packed = pack_padded_sequence(
            embedded_source, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        outputs, last = self.encoder(packed)
        values, _ = pad_packed_sequence(outputs, batch_first=True, total_length=source.shape[1])
        values = self.drop(values)
        state = torch.tanh(self.bridge(torch.cat([last[0], last[1]], 1)))
        state = state.view(-1, 2, self.hidden_size).transpose(0, 1).contiguous()
        keys = self.attention.key(values)

        embedded = self.drop(self.target_embedding(previous))
        top, _ = self.first(embedded, state[:1])
        mixed = torch.tanh(self.attention.query(top).unsqueeze(2) + keys.unsqueeze(1))
        scores = self.attention.vector(mixed).squeeze(-1)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        weights = scores.masked_fill(~mask.unsqueeze(1), float("-inf")).softmax(-1)
        context = torch.bmm(weights.to(values.dtype), values)
        top, _ = self.upper(self.drop(torch.cat([top, context], 2)), state[1:])
        features = torch.tanh(self.readout(torch.cat([top, context, embedded], 2)))
        return self.output(self.drop(features))

    def drop(self, values: Tensor) -> Tensor:
        """Apply dropout with one mask for all positions of a sentence."""
        if not self.training:
            return values
        kept = values.new_empty(len(values), 1, values.shape[2], dtype=torch.float32)
        return values * (kept.bernoulli_(1.0 - self.dropout) / (1.0 - self.dropout)).to(
            values.dtype
        )
