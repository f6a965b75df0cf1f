"""torch's recurrent layers, with nothing cast inside of their loops, and dropout for sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

# torch exports these without types.
_FUNCTIONS: dict[str, Any] = {"GRU": cast("Any", torch).gru, "LSTM": cast("Any", torch).lstm}


class SequenceDropout(nn.Module):
    """Dropout whose mask is the same at every place of a sequence.

    Drawing a number for each place takes a sixth of a training step on a CPU; and a recurrent layer
    that loses the same numbers at each step cannot wait for the next one to get them.

    Args:
        share: Of the numbers that training sets to 0.

    Source:
        Gal and Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural
        Networks" (arXiv 1512.05287).
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, values: Tensor) -> Tensor:
        """``(batch, places, size)``, times a mask."""
        mask = self.mask(values)
        return values if mask is None else values * mask.to(values.dtype)

    def mask(self, values: Tensor) -> Tensor | None:
        """A mask ``(batch, 1, size)``; None where nothing is dropped."""
        if not self.training or self.share == 0.0:
            return None
        shape = (values.shape[0], 1, values.shape[2])
        kept = values.new_empty(shape, dtype=torch.float32).bernoulli_(1.0 - self.share)
        return kept / (1.0 - self.share)

    def extra_repr(self) -> str:
        """What a summary shows."""
        return f"share={self.share}"


def run_layers(
    layers: nn.RNNBase, inputs: Tensor | PackedSequence, before: Sequence[Tensor] | None
) -> tuple[Any, tuple[Tensor, ...]]:
    """Outputs and last states of ``nn.GRU`` or ``nn.LSTM`` layers, batch first.

    Args:
        layers: The layers.
        inputs: ``(batch, steps, size)``, or packed sequences.
        before: States ``(layers, batch, size)``; None for zeros.
    """
    if isinstance(inputs, PackedSequence) or before is None or not is_cast(inputs):
        given = None if before is None else before[0] if len(before) == 1 else tuple(before)
        outputs, after = layers(inputs, given)
        return outputs, after if isinstance(after, tuple) else (after,)
    weights = [weight for each in layers.all_weights for weight in each]
    return run_weights(layers, inputs, before, weights, layers.num_layers)


def run_weights(
    layers: nn.RNNBase,
    inputs: Tensor,
    before: Sequence[Tensor],
    weights: Sequence[Tensor],
    num_layers: int = 1,
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Some of the layers' weights, in one direction, over sequences.

    Under autocast on a CPU weights and states are cast once here: torch itself casts the state
    anew at every step, which is a third of the time of the layer.

    Args:
        layers: Whose kind, biases and dropout are taken.
        inputs: ``(batch, steps, size)``.
        before: States ``(num_layers, batch, size)``.
        weights: In torch's order.
        num_layers: How many layers they are.
    """
    device = inputs.device.type
    if is_cast(inputs):
        dtype = torch.get_autocast_dtype(device)
        inputs = inputs.to(dtype)
        weights, before = ([each.to(dtype) for each in some] for some in (weights, before))
    given: Any = before[0] if len(before) == 1 else list(before)
    with torch.autocast(device, enabled=False):
        found = _FUNCTIONS[layers.mode](
            inputs,
            given,
            list(weights),
            layers.bias,
            num_layers,
            layers.dropout if num_layers > 1 else 0.0,
            layers.training,
            False,
            True,
        )
    return found[0], tuple(found[1:])


def is_cast(inputs: Tensor) -> bool:
    """Whether autocast on a CPU would cast what recurrent layers compute."""
    return inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu")
