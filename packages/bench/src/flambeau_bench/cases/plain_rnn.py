"""flambeau's recurrent model as one would write it: the same layers, called in plain PyTorch."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flambeau_text.models import AdditiveAttention, RnnSeq2Seq
from flambeau_text.models.rnn import RnnConfig


class PlainRnn(nn.Module):
    """The forward pass of an ``RnnSeq2Seq`` without anything that flambeau does for its speed.

    Sources are packed for ``nn.GRU``, autocast casts what it will, and dropout is drawn in the same
    order: losses are those of the model within rounding, for it has the same weights. What is
    kept is one mask a sentence for dropout; one a place would take a sixth of a step more.

    Args:
        model: GRUs, additive attention, the bridge "mlp", and no input feeding. It is trained.

    Raises:
        ValueError: The model is built in another way.
    """

    def __init__(self, model: RnnSeq2Seq) -> None:
        super().__init__()
        config, usual = model.config, RnnConfig()
        for name in ("cell", "attention", "bridge", "input_feeding", "encoder_layers"):
            if getattr(config, name) != getattr(usual, name):
                raise ValueError(f"{name} is {getattr(config, name)!r}, which is not written here.")
        if model.bridge is None or not isinstance(model.upper_layers, nn.GRU):
            raise ValueError("A bridge and a second layer of the decoder are needed.")
        self.hidden_size, self.share = config.hidden_size, config.dropout
        self.source_embedding, self.target_embedding = (
            model.source_embedding, model.target_embedding,
        )  # fmt: skip
        self.encoder = cast("nn.GRU", model.encoder.layers)
        self.bridge = model.bridge["hidden"]
        self.first, self.upper = cast("nn.GRU", model.first_layer), model.upper_layers
        self.attention = cast("AdditiveAttention", model.attention)
        self.readout, self.output = model.readout, model.output

    def forward(self, source: Tensor, mask: Tensor, words: Tensor) -> Tensor:
        """Logits ``(batch, target, vocabulary)`` of int64 sources, their mask and words before."""
        read = self.dropped(self.source_embedding(source))
        packed = pack_padded_sequence(
            read, mask.sum(1).cpu(), batch_first=True, enforce_sorted=False
        )
        outputs, last = self.encoder(packed)
        values, _ = pad_packed_sequence(outputs, batch_first=True, total_length=source.shape[1])
        values = self.dropped(values)
        state = torch.tanh(self.bridge(torch.cat([last[0], last[1]], 1)))
        state = state.view(-1, 2, self.hidden_size).transpose(0, 1).contiguous()
        keys = self.attention.key(values)

        embedded = self.dropped(self.target_embedding(words))
        top, _ = self.first(embedded, state[:1])
        mixed = torch.tanh(self.attention.query(top).unsqueeze(2) + keys.unsqueeze(1))
        scores = self.attention.vector(mixed).squeeze(-1)
        scores = scores.to(torch.promote_types(scores.dtype, torch.float32))
        weights = scores.masked_fill(~mask.unsqueeze(1), float("-inf")).softmax(-1)
        context = torch.bmm(weights.to(values.dtype), values)
        top, _ = self.upper(self.dropped(torch.cat([top, context], 2)), state[1:])
        features = torch.tanh(self.readout(torch.cat([top, context, embedded], 2)))
        return self.output(self.dropped(features))

    def dropped(self, values: Tensor) -> Tensor:
        """Dropout with one mask for all places of a sentence."""
        if not self.training:
            return values
        kept = values.new_empty(len(values), 1, values.shape[2], dtype=torch.float32)
        return values * (kept.bernoulli_(1.0 - self.share) / (1.0 - self.share)).to(values.dtype)
