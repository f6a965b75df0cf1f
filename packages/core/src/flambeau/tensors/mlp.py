"""``MLP``: the network for plain vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from flambeau.errors import InputError


class MLP(nn.Module):
    """Linear layers with ReLU between them, for inputs without neighbourhood.

    Several inputs are flattened and put side by side. Weights start with He's uniform
    initialisation for ReLU, the last layer's at a tenth of it, so that the first answers are near
    zero and the first loss is that of knowing nothing.

    Args:
        n_inputs: Numbers in a sample, over all inputs.
        n_outputs: Width of the answer.
        hidden: Widths of the hidden layers; 256 and 128 fit ten to a few hundred features.
        dropout: Share of hidden units left out while training, 0 to below 1.

    Raises:
        InputError: A width is not positive, or dropout is no share.

    Source:
        He et al., "Delving Deep into Rectifiers", 2015 (arXiv 1502.01852), eq. 10, with the
        uniform distribution of the same variance.

    Example:
        >>> MLP(4, 3, hidden=(16,))(torch.zeros(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        n_inputs: int,
        n_outputs: int,
        hidden: Sequence[int] = (256, 128),
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        widths = [n_inputs, *hidden, n_outputs]
        if min(widths) < 1:
            raise InputError(f"The widths of an MLP must be positive, but they are {widths}.")
        if not 0 <= dropout < 1:
            raise InputError(f"Dropout is a share of units, 0 to below 1, not {dropout}.")
        self.n_inputs = n_inputs
        body: list[nn.Module] = []
        for before, after in pairwise(widths[:-1]):
            body += [_linear(before, after), nn.ReLU()]
            if dropout:
                body.append(nn.Dropout(dropout))
        self.body = nn.Sequential(*body)
        self.head = _linear(widths[-2], widths[-1], scale=0.1)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Outputs ``(batch, n_outputs)`` for inputs ``(batch, …)`` of any number dtype."""
        weight = self.head.weight
        if any(value.is_complex() for value in inputs):
            raise InputError(
                "The MLP computes with real numbers, but an input is complex. Give real and "
                "imaginary parts as two columns: torch.view_as_real(inputs)."
            )
        # Not flatten(1): a sample may be a single number, (batch,).
        flat = [value.reshape(len(value), -1).to(weight.dtype) for value in inputs]
        features = flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)
        if features.shape[1] != self.n_inputs:
            shapes = ", ".join(str(tuple(value.shape)) for value in inputs)
            raise InputError(
                f"The MLP was built for {self.n_inputs} numbers a sample, but got "
                f"{features.shape[1]} (inputs of shape {shapes}). Build it for these inputs."
            )
        return self.head(self.body(features))

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """The parts that learn together, from stem to head."""
        return {"body": [self.body], "head": [self.head]}


def _linear(n_inputs: int, n_outputs: int, scale: float = 1.0) -> nn.Linear:
    layer = nn.Linear(n_inputs, n_outputs)
    bound = scale * math.sqrt(6 / n_inputs)
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)
    return layer
