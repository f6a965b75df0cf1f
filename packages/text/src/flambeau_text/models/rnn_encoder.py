"""``RnnEncoder``: both directions over a source, each beginning at its own end of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flambeau_text.models.recurrent import run_layers, run_weights

State = Mapping[str, Tensor]
"""A recurrent state by name: "hidden", and "cell" where the cell has one."""


@dataclass(frozen=True)
class Cell:
    """A kind of recurrent cell.

    Attributes:
        layers: Makes torch's fused layers of it.
        states: Names of the parts of its state, in torch's order.
    """

    layers: Callable[..., Any]
    states: tuple[str, ...]


CELLS: Mapping[str, Cell] = {
    "gru": Cell(nn.GRU, ("hidden",)),
    "lstm": Cell(nn.LSTM, ("hidden", "cell")),
}
"""Cells by name."""


class RnnEncoder(nn.Module):
    """Reads a source forwards and backwards.

    The backward direction begins at the last token of each source, and the last states are those at
    the true ends: padding changes nothing. Sources are packed by their lengths; GRUs on a CPU have
    each source turned within its length instead, and read all of them to the longest one's end:
    packed, every step has another number of rows, and in bf16 each new shape of a product is
    prepared anew, which doubled the time of a training step.

    Args:
        input_size: Numbers in a word's embedding.
        hidden_size: Numbers in a state of each direction.
        num_layers: Layers.
        cell: "gru" or "lstm".
        dropout: Between layers.

    Attributes:
        output_size: Numbers at each position, twice ``hidden_size``.
    """

    def __init__(
        self, input_size: int, hidden_size: int, num_layers: int, cell: str, dropout: float
    ) -> None:
        super().__init__()
        self.cell = CELLS[cell]
        self.output_size = 2 * hidden_size
        self.dropout = nn.Dropout(dropout)
        self.layers: nn.RNNBase = self.cell.layers(
            input_size,
            hidden_size,
            num_layers,
            batch_first=True,
            bidirectional=True,
            dropout=dropout if num_layers > 1 else 0.0,
        )

    def forward(self, words: Tensor, mask: Tensor) -> tuple[Tensor, State]:
        """The positions and the last state of each direction.

        Args:
            words: Embeddings, ``(batch, source, input_size)``.
            mask: bool ``(batch, source)``; every row counts at least one position, and its
                padding is at the end.

        Returns:
            ``(batch, source, output_size)``, zeros at padding, and by name the last layer's states
            at both ends, ``(batch, output_size)``.
        """
        if words.device.type == "cpu" and self.layers.mode == "GRU":
            return self._turned(words, mask)
        return self._packed(words, mask)

    def _packed(self, words: Tensor, mask: Tensor) -> tuple[Tensor, State]:
        # On a GPU packing waits for the lengths, once a batch.
        lengths = mask.sum(1).cpu()
        packed = pack_padded_sequence(words, lengths, batch_first=True, enforce_sorted=False)
        outputs, parts = run_layers(self.layers, packed, None)
        values, _ = pad_packed_sequence(outputs, batch_first=True, total_length=words.shape[1])
        ends = {
            name: torch.cat([part[-2], part[-1]], 1)
            for name, part in zip(self.cell.states, parts, strict=True)
        }
        return values, ends

    def _turned(self, words: Tensor, mask: Tensor) -> tuple[Tensor, State]:
        lengths = mask.sum(1, keepdim=True)
        places = torch.arange(words.shape[1], device=words.device).expand_as(mask)
        # Twice the same turn is none; padding stays where it is.
        turn = torch.where(mask, lengths - 1 - places, places).unsqueeze(2)
        last = (lengths - 1).unsqueeze(2)
        start = [words.new_zeros(1, len(words), self.layers.hidden_size)]
        values, ends = words, []
        for layer in range(self.layers.num_layers):
            if layer:
                values = self.dropout(values)
            forward, backward = self.layers.all_weights[2 * layer : 2 * layer + 2]
            turned = values.gather(1, turn.expand(-1, -1, values.shape[2]))
            ahead, _ = run_weights(self.layers, values, start, forward)
            behind, _ = run_weights(self.layers, turned, start, backward)
            at_end = last.expand(-1, -1, ahead.shape[2])
            ends = [each.gather(1, at_end).squeeze(1) for each in (ahead, behind)]
            behind = behind.gather(1, turn.expand(-1, -1, behind.shape[2]))
            values = torch.cat([ahead, behind], 2) * mask.unsqueeze(2)
        return values, {"hidden": torch.cat(ends, 1)}
