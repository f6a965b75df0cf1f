"""``integrated_gradients``: how much each element of an input moves a number that depends on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flambeau.errors import ArgumentError

LEAST_STEPS, MOST_STEPS = 32, 512
"""Points of the path: so many at first, doubled up to the second number if the gap is too large."""

GAP = 0.01
"""Allowed difference between the sum of the values and the change of the number, relative to it."""

_ROWS = 16  # points in one call of the function: bounds the memory


@dataclass(frozen=True)
class IntegratedGradients:
    """The value of each element of an input, and how well the values add up.

    Attributes:
        values: Same shape as the input; their sum is ``total`` up to ``gap``.
        total: The number at the input minus that at the baseline.
        gap: Difference between the sum of the values and ``total``, relative to it.
        steps: Number of points of the path.
    """

    values: Tensor
    total: float
    gap: float
    steps: int


def integrated_gradients(
    function: Callable[[Tensor], Tensor], x: Tensor, baseline: Tensor | None = None
) -> IntegratedGradients:
    """Return the integrated gradients of a function at an input.

    The gradient is averaged over the straight line from the baseline to the input (midpoint rule)
    and multiplied by their difference. Unlike a single gradient, or the mean of several noisy ones
    (SmoothGrad), the values add up to what the function changes on this line, so that each of them
    is a share of it, and an error of the estimate shows. The number of points is doubled until the
    sum is within ``GAP``.

    Args:
        function: Maps inputs ``(rows, …)`` to one number each, ``(rows,)``; each row must be
            computed on its own, as in eval mode.
        x: One input, without the axis of rows, floating-point.
        baseline: Where the line starts, of the same shape; None is zero, the mean of standardised
            inputs.

    Raises:
        ArgumentError: The input is not floating-point, the function does not return one number per
            row, or no gradient reaches the input.

    Source:
        Sundararajan, Taly and Yan, "Axiomatic attribution for deep networks" (2017), section 3;
        the sum is their axiom "completeness".

    Example:
        >>> weight = torch.tensor([1.0, -2.0])
        >>> found = integrated_gradients(lambda x: x @ weight, torch.tensor([3.0, 4.0]))
        >>> found.values
        tensor([ 3., -8.])
    """
    if not x.is_floating_point():
        raise ArgumentError(
            f"The input is of type {x.dtype}, which has no gradients. Give numbers with a "
            "fraction (x.float()), or, of tokens, their embeddings."
        )
    start = torch.zeros_like(x) if baseline is None else baseline
    with torch.no_grad():
        ends = function(torch.stack([x, start]))
    if ends.shape != (2,):
        raise ArgumentError(
            f"The function returns the shape {tuple(ends.shape)} for 2 rows; it must return one "
            "number per row, of shape (2,)."
        )
    total = float(ends.double()[0] - ends.double()[1])
    steps = LEAST_STEPS
    while True:
        values = (x - start) * _mean_gradient(function, x, start, steps)
        gap = abs(float(values.double().sum()) - total) / max(abs(total), 1e-12)
        if gap <= GAP or steps >= MOST_STEPS or not torch.isfinite(values).all():
            return IntegratedGradients(values, total, gap, steps)
        steps *= 2


def _mean_gradient(
    function: Callable[[Tensor], Tensor], x: Tensor, start: Tensor, steps: int
) -> Tensor:
    shares = (torch.arange(steps, device=x.device, dtype=x.dtype) + 0.5) / steps
    found = torch.zeros_like(x)
    for chosen in torch.split(shares, _ROWS):
        places = chosen.reshape((-1,) + (1,) * x.ndim)
        points = (start + places * (x - start)).requires_grad_()
        with torch.enable_grad():
            # A copy, because a model may change its input in place.
            total = function(points.clone()).sum()
        gradient = None
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(total, points, allow_unused=True)
        if gradient is None:
            raise ArgumentError(
                "The output does not depend on the input, or no gradient reaches the input because "
                "a part of the model computes without gradients (torch.no_grad, detach). Remove "
                "that for the explanation."
            )
        found += gradient.sum(0)
    return found / steps
