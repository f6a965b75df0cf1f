"""Dtypes and counts of tensors; only ``to_rows`` and ``distinct`` read the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

HALF_DTYPES = (torch.float16, torch.bfloat16)
"""Dtypes whose 11 or 8 significant bits are too few for a sum of losses."""


def real_dtype(device: torch.device) -> torch.dtype:
    """Return the widest floating-point dtype of the device: float64, or float32 on mps."""
    return torch.float32 if device.type == "mps" else torch.float64


def as_real(value: Tensor) -> Tensor:
    """Return ``value`` in the widest floating-point dtype of its device."""
    return value.to(real_dtype(value.device))


def real_scalar(value: Tensor | float, device: torch.device) -> Tensor:
    """Return a number or 0-d tensor as a detached 0-d tensor in the device's widest float dtype."""
    if isinstance(value, Tensor):
        return value.detach().to(device, real_dtype(device)).reshape(())
    return torch.full((), value, dtype=real_dtype(device), device=device)


def per_sample(weights: Tensor, values: Tensor) -> Tensor:
    """Return weights ``(batch,)`` in the shape ``(batch, 1, …)``, so that they scale ``values``."""
    return weights.view(-1, *(1 for _ in values.shape[1:]))


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    """Return ``values * weights``, but 0 where the weight is 0, also if the value is nan.

    Args:
        values: Any shape.
        weights: At least 0, of a shape that broadcasts to that of ``values``.
    """
    return torch.where(weights > 0, values * weights, 0)


def size_of(value: Tensor) -> Tensor:
    """Return the number of elements as a 0-d int64 tensor on the device of ``value``."""
    return torch.full((), value.numel(), dtype=torch.int64, device=value.device)


def predicted_labels(logits: Tensor, thresholds: Tensor | Sequence[float] | float) -> Tensor:
    """Return which labels are predicted: those whose probability is at least their threshold.

    Metrics, reports and predictions call it, so that they agree on a probability that equals the
    threshold, and on logits in half precision.

    Args:
        logits: ``(batch, labels)``, any floating-point dtype.
        thresholds: One for all labels, or one for each, ``(labels,)``.
    """
    wide = real_dtype(logits.device)
    limits = torch.as_tensor(thresholds, dtype=wide, device=logits.device)
    return as_real(logits).sigmoid() >= limits


def is_known_zero(weight: float | Tensor) -> bool:
    """Return whether a weight is known to be 0; a tensor is read only if it is on the CPU."""
    return not (isinstance(weight, Tensor) and weight.device.type != "cpu") and not weight


def to_rows(values: Tensor) -> list[list[float]]:
    """Return ``(batch, columns)`` as lists of Python numbers; reads the device."""
    return values.tolist()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def distinct(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct values in ascending order, and the position of each value in them."""
    found = values.unique(return_inverse=True)  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    return cast("tuple[Tensor, Tensor]", found)
