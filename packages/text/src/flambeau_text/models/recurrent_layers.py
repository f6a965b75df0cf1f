"""torch's recurrent layers with autocast applied once per call, and dropout for sequences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

# torch exports these without types.
_FUNCTIONS: dict[str, Any] = {"GRU": cast("Any", torch).gru, "LSTM": cast("Any", torch).lstm}


class SequenceDropout(nn.Module):
    """Dropout with one mask for all positions of a sequence.

    Drawing a mask per position would take a sixth of a training step on a CPU. One mask per
    sequence also prevents a recurrent layer from recovering dropped features at a later position.

    Args:
        p: Dropout probability.

    Source:
        Gal and Ghahramani, "A Theoretically Grounded Application of Dropout in Recurrent Neural
        Networks" (arXiv 1512.05287).
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, values: Tensor) -> Tensor:
        """Apply dropout to ``(batch, positions, size)``."""
        mask = self.mask(values)
        return values if mask is None else values * mask.to(values.dtype)

    def mask(self, values: Tensor) -> Tensor | None:
        """Draw a scaled mask ``(batch, 1, size)``; None if nothing is dropped."""
        if not self.training or self.p == 0.0:
            return None
        shape = (values.shape[0], 1, values.shape[2])
        kept = values.new_empty(shape, dtype=torch.float32).bernoulli_(1.0 - self.p)
        return kept / (1.0 - self.p)

    def extra_repr(self) -> str:
        """Return the arguments for ``repr``."""
        return f"p={self.p}"


def run_layers(
    layers: nn.RNNBase, inputs: Tensor | PackedSequence, before: Sequence[Tensor] | None
) -> tuple[Any, tuple[Tensor, ...]]:
    """Run ``nn.GRU`` or ``nn.LSTM`` layers, batch first; return outputs and last states.

    Args:
        layers: The layers.
        inputs: ``(batch, steps, size)``, or packed sequences.
        before: Initial states ``(layers, batch, size)``; None for zeros.
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
    """Run recurrent layers with given weights over sequences, in one direction.

    Under autocast on a CPU, weights and states are cast once per call. torch's own layers cast the
    state at every step, which takes a third of their time.

    Args:
        layers: Layers whose kind of cell, bias and dropout settings are used.
        inputs: ``(batch, steps, size)``.
        before: Initial states ``(num_layers, batch, size)``.
        weights: The weights in torch's order.
        num_layers: Number of layers in ``weights``.
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
    """Return whether the inputs are on a CPU and autocast is active there."""
    return inputs.device.type == "cpu" and torch.is_autocast_enabled("cpu")
