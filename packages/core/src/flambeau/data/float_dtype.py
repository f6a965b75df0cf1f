"""The dtype of float64 values: torch's default dtype, unless rounding would merge the values."""

from __future__ import annotations

import torch
from torch import Tensor

_MOST_ERROR = 1e-4
"""Largest accepted rounding error, as a share of the range of a column."""

_LEAST_RANGE = 1e-11
"""Columns whose range is below this share of their values are constant, up to rounding errors."""

_CHUNK_NUMBERS = 2**20


def to_default_dtype(values: Tensor) -> Tensor:
    """Return float64 values in torch's default dtype, unless this would merge distinct values.

    Values of other dtypes are unchanged. float32 has a spacing of 128 at 1.7e9 and ends at 3.4e38.
    Values whose range is small compared with their size (time stamps, identifiers) stay float64,
    so that they can be standardised.

    Args:
        values: ``(n, …)``; the columns of ``(n, columns)`` are examined separately.
    """
    dtype = torch.get_default_dtype()
    if values.dtype != torch.float64 or dtype == torch.float64:
        return values
    rounded = values.to(dtype)
    return values if _is_lossy(values, rounded) else rounded


def _is_lossy(values: Tensor, rounded: Tensor) -> bool:
    if not values.numel():
        return False
    columns, narrow = (
        each if each.ndim == 2 else each.reshape(-1, 1) for each in (values, rounded)
    )
    low, high = columns.aminmax(dim=0)
    error = torch.zeros_like(low)
    rows = max(1, _CHUNK_NUMBERS // columns.shape[1])
    for start in range(0, len(columns), rows):
        difference = columns[start : start + rows] - narrow[start : start + rows]
        error = torch.maximum(error, difference.abs_().amax(dim=0))
    spread = high - low
    varies = spread > _LEAST_RANGE * torch.maximum(low.abs(), high.abs())
    # Infinity and NaN compare as False; they are refused later, with their row.
    return bool((varies & (error > _MOST_ERROR * spread)).any())
