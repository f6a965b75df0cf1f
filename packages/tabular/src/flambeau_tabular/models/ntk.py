"""Layers of RealMLP: linear in the NTK parameterisation, input scale, parametric activation."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flambeau.errors import InputError

ActivationName = Literal["selu", "mish", "relu"]

_ACTIVATIONS = {"selu": F.selu, "mish": F.mish, "relu": F.relu}


class NTKLinear(nn.Module):
    """``x W / √n_in + b`` with weights and biases drawn from a standard normal distribution.

    Because the weights have the size 1 in every layer, one learning rate suits all widths.

    Args:
        n_in: Width of the inputs ``(batch, n_in)``.
        n_out: Width of the outputs.
        zero: Whether weights and biases are 0 at first, as in the last layer.

    Source:
        Jacot et al., "Neural Tangent Kernel", 2018 (arXiv 1806.07572); Holzmüller et al., "Better
        by Default", 2024 (arXiv 2407.04491), section 3.
    """

    def __init__(self, n_in: int, n_out: int, *, zero: bool = False) -> None:
        super().__init__()
        self.n_in = n_in
        make = torch.zeros if zero else torch.randn
        self.weight = nn.Parameter(make(n_out, n_in))
        self.bias = nn.Parameter(make(n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs ``(batch, n_out)``."""
        # The product of matrices includes the factor, which saves a pass over the inputs.
        return torch.addmm(self.bias, x, self.weight.t(), alpha=self.n_in**-0.5)


class InputScale(nn.Module):
    """A learned factor for each input, 1 at first.

    Source:
        Holzmüller et al., 2024 (arXiv 2407.04491): with a higher learning rate than the weights it
        learns quickly which inputs matter.
    """

    def __init__(self, n_in: int) -> None:
        super().__init__()
        # (1, n_in): weight decay applies to it, unlike to 1-d parameters, and reduces the factors
        # of useless inputs.
        self.weight = nn.Parameter(torch.ones(1, n_in))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled inputs ``(batch, n_in)``."""
        return x * self.weight


class ParametricActivation(nn.Module):
    """``x + α (f(x) - x)`` with a learned ``α`` for each unit, 1 at first.

    Args:
        n_units: Width of the inputs.
        name: "selu", "mish" or "relu".

    Source:
        Holzmüller et al., 2024 (arXiv 2407.04491), section 3.
    """

    def __init__(self, n_units: int, name: ActivationName) -> None:
        super().__init__()
        if name not in _ACTIVATIONS:
            raise InputError(
                f"Unknown activation {name!r}; choose one of {', '.join(_ACTIVATIONS)}."
            )
        self.function = _ACTIVATIONS[name]
        self.alpha = nn.Parameter(torch.ones(n_units))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activated values, of the same shape."""
        return torch.lerp(x, self.function(x), self.alpha.to(x.dtype))
