"""What checks read of tensors and modules, with the types that torch leaves out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn


def places(mask: Tensor) -> list[int]:
    """Where ``mask`` ``(n,)`` is true."""
    return whole_numbers(mask.nonzero().flatten())


def whole_numbers(values: Tensor) -> list[int]:
    """``values`` ``(n,)`` as Python numbers."""
    return cast("list[int]", cast(Any, values).tolist())


def distinct(values: Tensor) -> tuple[Tensor, Tensor]:
    """The distinct values in order, and how often each occurs."""
    return cast("tuple[Tensor, Tensor]", cast(Any, torch).unique(values, return_counts=True))


def lengths(rows: Tensor, axis: int) -> Tensor:
    """Euclidean lengths along ``axis``."""
    return rows.pow(2).sum(axis).sqrt()


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every layer with its name."""
    return cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
