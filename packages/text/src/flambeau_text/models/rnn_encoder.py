"""``RnnEncoder``: a bidirectional recurrent encoder that ignores padding."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from flambeau_text.models.recurrent_layers import run_layers, run_weights

State = Mapping[str, Tensor]
"""The tensors of a recurrent state by name: "hidden", and "cell" for an LSTM."""


@dataclass(frozen=True)
class Cell:
    """A kind of recurrent cell.

    Attributes:
        layers: torch's class of layers with this cell.
        states: Names of the tensors in the cell's state, in torch's order.
    """

    layers: Callable[..., Any]
    states: tuple[str, ...]


CELLS: Mapping[str, Cell] = {
    "gru": Cell(nn.GRU, ("hidden",)),
    "lstm": Cell(nn.LSTM, ("hidden", "cell")),
}
"""The kinds of cells by name."""


class RnnEncoder(nn.Module):
    """Bidirectional GRU or LSTM layers over padded sources.

    The backward direction starts at the last token of each source, and the returned states are
    those at the two ends of the source, so padding has no effect. Sources are packed by length.
    GRUs on a CPU instead reverse each source within its length and run over the padding: packed
    sequences have a different number of rows in each step, and in bf16 each new shape of a matrix
    product needs preparation, which doubled the time of a training step.

    Args:
        input_size: Width of the embeddings.
        hidden_size: Size of the state in each direction.
        num_layers: Number of layers.
        cell: "gru" or "lstm".
        dropout: Dropout probability between layers.

    Attributes:
        output_size: Width of the output at each position, twice ``hidden_size``.
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

    def forward(self, embeddings: Tensor, mask: Tensor) -> tuple[Tensor, State]:
        """Encode embedded sources.

        Args:
            embeddings: ``(batch, source, input_size)``.
            mask: bool ``(batch, source)``, True at tokens; every row has at least one token and its
                padding at the end.

        Returns:
            Outputs ``(batch, source, output_size)``, zeros at padding; and the last layer's states
            at both ends of each source, ``(batch, output_size)``, by name ("hidden", "cell").
        """
        if embeddings.device.type == "cpu" and self.layers.mode == "GRU":
            return self._run_reversed(embeddings, mask)
        return self._run_packed(embeddings, mask)

    def _run_packed(self, embeddings: Tensor, mask: Tensor) -> tuple[Tensor, State]:
        # On a GPU packing synchronises once per batch to read the lengths.
        lengths = mask.sum(1).cpu()
        packed = pack_padded_sequence(embeddings, lengths, batch_first=True, enforce_sorted=False)
        outputs, parts = run_layers(self.layers, packed, None)
        values, _ = pad_packed_sequence(outputs, batch_first=True, total_length=embeddings.shape[1])
        ends = {
            name: torch.cat([part[-2], part[-1]], 1)
            for name, part in zip(self.cell.states, parts, strict=True)
        }
        return values, ends

    def _run_reversed(self, embeddings: Tensor, mask: Tensor) -> tuple[Tensor, State]:
        lengths = mask.sum(1, keepdim=True)
        positions = torch.arange(embeddings.shape[1], device=embeddings.device).expand_as(mask)
        # Reverses each source within its length and keeps padding; it is its own inverse.
        reverse = torch.where(mask, lengths - 1 - positions, positions).unsqueeze(2)
        last = (lengths - 1).unsqueeze(2)
        start = [embeddings.new_zeros(1, len(embeddings), self.layers.hidden_size)]
        values, ends = embeddings, []
        for layer in range(self.layers.num_layers):
            if layer:
                values = self.dropout(values)
            forward, backward = self.layers.all_weights[2 * layer : 2 * layer + 2]
            reversed_values = values.gather(1, reverse.expand(-1, -1, values.shape[2]))
            ahead, _ = run_weights(self.layers, values, start, forward)
            behind, _ = run_weights(self.layers, reversed_values, start, backward)
            at_end = last.expand(-1, -1, ahead.shape[2])
            ends = [each.gather(1, at_end).squeeze(1) for each in (ahead, behind)]
            behind = behind.gather(1, reverse.expand(-1, -1, behind.shape[2]))
            values = torch.cat([ahead, behind], 2) * mask.unsqueeze(2)
        return values, {"hidden": torch.cat(ends, 1)}
