"""Statistics of one output or gradient of a layer, as a vector on the device.

They are computed from a part of the values: at most 64 samples, 16 positions and 512 units, evenly
spaced. Computed from all values are whether a unit fires (``active_units``), and the root mean
square of a gradient, because often one position alone has a gradient: the last one of a recurrent
network, or the class token.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.inspect.watch.log_bins import GRADIENT_BINS, OUTPUT_BINS

OUTPUT_COLUMNS = (
    "mean",
    "rms",
    "largest",
    "zeros",
    "nonfinite",
    "differs",
    "rank",
    "twins",
    "twin_a",
    "twin_b",
    "saturated",
    "input_rms",
)
"""Names of the values of ``output_statistics``; see there."""

GRADIENT_COLUMNS = ("gradient_rms", "gradient_largest", "gradient_zeros")
"""Names of the values of ``gradient_statistics``; see there."""

_SAMPLES, _POSITIONS, _UNITS = 64, 16, 512
_ROWS = 256  # for products of all pairs of units
_BINNED = 2**13  # values in a histogram

# Relative distance of equal units. Units with equal initial weights have a distance of 0 after 300
# steps, too; of 256 random units with one or two inputs, some have less than 1e-2 by chance.
_TWIN_DISTANCE = 1e-4
_LEAST_ACTIVE = 0.05  # share of rows; a unit that is rarely active may equal another by chance
_SATURATED_WITHIN = 0.02  # of the range of a sigmoid from its bounds
_SATURATED_ROWS = 0.95


def part_of(values: Tensor, axis: int) -> Tensor:
    """Return a part of the values as float32 ``(samples, positions, units)``.

    Args:
        values: Any shape, samples first.
        axis: The axis of the units; 0 if there is only the axis of samples.
    """
    values = values.detach()
    if values.ndim == 0:
        values = values.reshape(1)
    if axis == 0:
        values, axis = values.unsqueeze(-1), values.ndim
    positions = [i for i in range(1, values.ndim) if i != axis]
    most = {0: _SAMPLES, axis: _UNITS}
    # Equal shares of the positions for each of their axes: 16, 4 × 4, 2 × 2 × 2.
    most |= dict.fromkeys(positions, int(_POSITIONS ** (1 / max(len(positions), 1)) + 1e-9))
    steps = [_spacing(size, most[i]) for i, size in enumerate(values.shape)]
    # From the middle of the first interval: padding is often at the borders.
    part = values[tuple(slice(step // 2, None, step) for step in steps)]
    part = part.movedim(axis, -1)
    part = part.reshape(part.shape[0], -1, part.shape[-1]).float()
    # Too few samples to compare: positions count as samples.
    return part if len(part) >= 4 else part.reshape(-1, 1, part.shape[-1])


def output_statistics(
    values: Tensor, axis: int, bounds: tuple[float, float] | None = None
) -> tuple[Tensor, Tensor]:
    """Return statistics of an output, ``(len(OUTPUT_COLUMNS),)``, and its histogram ``(N_BINS,)``.

    Both are float32. The statistics are:

    - mean, rms (root mean square), largest (absolute value);
    - zeros, nonfinite: shares of the values;
    - differs: share of the mean square that differs between samples: near 0 if the output hardly
      depends on the sample;
    - rank: effective rank of the units, the participation ratio of the eigenvalues of their
      covariance, ``(Σλ)² / Σλ²``;
    - twins: number of units that equal another unit; twin_a, twin_b: one such pair;
    - saturated: share of the units that are near a bound in at least 95% of the rows; NaN without
      bounds;
    - input_rms: NaN, filled in by the caller.

    Args:
        values: The output.
        axis: The axis of the units.
        bounds: Lowest and highest value of a sigmoid or tanh; None for other layers.

    Source:
        Participation ratio: Gao et al., "A theory of multineuronal dimensionality" (2017).
    """
    part = part_of(values, axis)
    histogram = OUTPUT_BINS.shares(_thinned(part))
    rows = part.reshape(-1, part.shape[-1])
    spacing = _spacing(values.shape[axis], _UNITS) if axis else 1
    square = _mean_square(rows)
    nan = torch.full((), torch.nan, device=rows.device)
    found = [
        rows.mean(),
        square.sqrt(),
        _largest(rows) if rows.numel() else nan,
        _share_of_zeros(rows),
        (rows - rows).nan_to_num(nan=1.0).mean(),  # inf - inf is NaN
        _variance(part) / square,
        *_of_pairs(rows, spacing),
        nan if bounds is None else _saturated(rows, bounds),
        nan,
    ]
    return torch.stack(found), histogram


def gradient_statistics(values: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Return statistics of the gradient of an output, and its histogram.

    The statistics are root mean square (of all values), largest absolute value, share of zeros.

    Args:
        values: The gradient of an output, of any shape, samples first.
        axis: As for ``part_of``.

    Returns:
        float32 ``(len(GRADIENT_COLUMNS),)`` and ``(N_BINS,)``, on the device of the gradient.
    """
    rows = part_of(values, axis)
    largest = _largest(rows) if rows.numel() else rows.sum()
    rms = norm_of(values) / math.sqrt(max(values.numel(), 1))
    row = torch.stack([rms, largest, _share_of_zeros(rows)])
    return row, GRADIENT_BINS.shares(_thinned(rows))


def root_mean_square(values: Tensor) -> Tensor:
    """Return the root mean square of a part of the values, 0-d."""
    return _mean_square(part_of(values, values.ndim - 1)).sqrt()


def norm_of(value: Tensor) -> Tensor:
    """Return the Euclidean norm of all values, float32, 0-d."""
    value = value.detach()
    # The squares of half precision are summed in float32.
    wide = torch.float32 if value.dtype.itemsize < 4 else None
    # vector_norm has no types.
    return cast("Tensor", cast("Any", torch.linalg).vector_norm(value, dtype=wide)).float()


def active_units(values: Tensor, axis: int, *, never_negative: bool = False) -> Tensor:
    """Return which units have a value other than 0 for any sample, bool ``(units,)``.

    Args:
        values: The output, of any shape, samples first.
        axis: As for ``part_of``.
        never_negative: The values are those of a ReLU, which are looked at once only.
    """
    values = values.detach()
    if values.is_complex():
        values = values.abs()
    units = 1 if axis == 0 else values.shape[axis]
    if not values.numel():
        return torch.zeros(units, dtype=torch.bool, device=values.device)
    others = tuple(i for i in range(values.ndim) if i != axis or axis == 0)
    # Ten times as fast as (values != 0).any(others), which makes a bool of each value.
    active = values.amax(others) != 0
    if not never_negative:
        active |= values.amin(others) != 0
    return active.reshape(units)


def _variance(part: Tensor) -> Tensor:
    """Return the mean over positions and units of the variance over the samples.

    It is ten times as fast as ``part.var(0, correction=0).mean()``, and 0 for equal samples.
    """
    centred = part - part[:1]
    return _mean_square(centred - centred.mean(0))


# A watched step calls the next three for each layer. Comparing each value with a number would take
# five times as long as this arithmetic.


def _mean_square(values: Tensor) -> Tensor:
    return norm_of(values).square() / max(values.numel(), 1)


def _largest(values: Tensor) -> Tensor:
    """Return the largest absolute value; NaN if one is NaN."""
    low, high = values.aminmax()
    return torch.maximum(high, -low)


def _share_of_zeros(values: Tensor) -> Tensor:
    return 1.0 - values.nan_to_num(nan=1.0).sign().abs_().mean()


def _thinned(values: Tensor) -> Tensor:
    flat = values.reshape(-1)
    return flat[:: _spacing(len(flat), _BINNED)]


def _spacing(size: int, most: int) -> int:
    """Return the step with which a slice of ``size`` values has at most ``most`` of them."""
    return max(1, math.ceil(size / most))


def _of_pairs(rows: Tensor, spacing: int) -> list[Tensor]:
    """Return rank, twins, twin_a and twin_b of units ``(rows, units)``.

    Args:
        rows: The units, every ``spacing``-th of the layer.
        spacing: See above.
    """
    rows = rows[:: _spacing(len(rows), _ROWS)]
    means = rows.mean(0)
    centred = rows - means
    products = centred.T @ centred
    own = products.diagonal()
    rank = own.sum().square() / products.square().sum()
    if len(own) < 2:
        none = torch.zeros_like(rank)
        return [rank, none, none - 1, none - 1]
    active = (rows != 0).float().mean(0) >= _LEAST_ACTIVE
    # Units of two values, such as indicators, are often equal for a few samples.
    low, high = rows.amin(0), rows.amax(0)
    two_values = torch.minimum(rows - low, high - rows).amax(0) == 0
    varies = active & ~two_values & (own > 1e-8 * rows.square().sum(0))
    # Units that differ by a constant are not equal.
    apart = len(rows) * (means[:, None] - means[None, :]).square()
    distance = (own[:, None] + own[None, :] - 2.0 * products + apart) / own[:, None]
    valid = varies[:, None] & varies[None, :]
    valid = valid & ~torch.eye(len(own), dtype=torch.bool, device=rows.device)
    distance = torch.where(valid & distance.isfinite(), distance, torch.inf)
    partner = distance.argmin(1)
    # Exact, because products of float32 resolve only 1e-3.
    differences = (rows - rows.index_select(1, partner)).square().sum(0) / own
    is_pair = valid.any(1) & differences.isfinite()
    nearest = torch.where(is_pair, differences, torch.inf)
    twins = (nearest < _TWIN_DISTANCE**2).sum().float()
    first = nearest.argmin()
    second = partner.gather(0, first.reshape(1)).reshape(())
    pair = torch.stack([first, second]).sort().values.float() * spacing + spacing // 2
    pair = torch.where(twins > 0, pair, -1.0)
    return [rank, twins, pair[0], pair[1]]


def _saturated(rows: Tensor, bounds: tuple[float, float]) -> Tensor:
    low, high = bounds
    margin = _SATURATED_WITHIN * (high - low)
    near = (rows < low + margin) | (rows > high - margin)
    return (near.float().mean(0) >= _SATURATED_ROWS).float().mean()
