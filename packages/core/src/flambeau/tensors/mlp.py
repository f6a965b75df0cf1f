"""``MLP``: a multilayer perceptron for vectors."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from flambeau.checked_arguments import checked_number
from flambeau.errors import InputError


class MLP(nn.Module):
    """A multilayer perceptron: linear layers with ReLU, for inputs without spatial structure.

    Inputs are flattened and concatenated. Weights have He's uniform initialisation for ReLU, in
    the last layer divided by ten, so that the initial outputs are near zero and the initial loss
    equals that of a constant prediction.

    Args:
        n_inputs: Number of values in a sample, over all inputs.
        n_outputs: Number of outputs.
        hidden: Widths of the hidden layers; 256 and 128 suit ten to a few hundred features.
        dropout: Dropout probability of the hidden units, 0 <= dropout < 1.

    Raises:
        InputError: A width is not positive, or ``dropout`` is out of range.

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
            raise InputError(f"The widths of an MLP are {widths}, but must be positive.")
        dropout = checked_number(dropout, "dropout", at_least=0, below=1)
        self.n_inputs = n_inputs
        body: list[nn.Module] = []
        for before, after in pairwise(widths[:-1]):
            body += [_linear(before, after), nn.ReLU()]
            if dropout:
                body.append(nn.Dropout(dropout))
        self.body = nn.Sequential(*body)
        self.head = _linear(widths[-2], widths[-1], scale=0.1)

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return outputs ``(batch, n_outputs)`` for real inputs ``(batch, …)`` of any dtype."""
        weight = self.head.weight
        if any(value.is_complex() for value in inputs):
            raise InputError(
                "The MLP needs real inputs, but an input is complex. Give the real and imaginary "
                "parts as two columns: torch.view_as_real(inputs)."
            )
        # Not flatten(1): a sample may be a scalar, (batch,).
        flat = [value.reshape(len(value), -1).to(weight.dtype) for value in inputs]
        features = flat[0] if len(flat) == 1 else torch.cat(flat, dim=1)
        if features.shape[1] != self.n_inputs:
            shapes = ", ".join(str(tuple(value.shape)) for value in inputs)
            raise InputError(
                f"The MLP was built for {self.n_inputs} values per sample, but got "
                f"{features.shape[1]} (inputs of shape {shapes}). Set n_inputs to "
                f"{features.shape[1]}."
            )
        return self.head(self.body(features))

    def layer_groups(self) -> Mapping[str, Sequence[nn.Module]]:
        """Return the layer groups, from input to output."""
        return {"body": [self.body], "head": [self.head]}


def _linear(n_inputs: int, n_outputs: int, scale: float = 1.0) -> nn.Linear:
    layer = nn.Linear(n_inputs, n_outputs)
    bound = scale * math.sqrt(6 / n_inputs)
    nn.init.uniform_(layer.weight, -bound, bound)
    nn.init.zeros_(layer.bias)
    return layer
