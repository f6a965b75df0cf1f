"""Functions of torch with the return types that torch's annotations lack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import torch
from torch import Tensor, nn


def true_positions(mask: Tensor) -> list[int]:
    """Return the positions at which ``mask`` ``(n,)`` is true."""
    return int_list(mask.nonzero().flatten())


def int_list(values: Tensor) -> list[int]:
    """Return the integers ``values`` ``(n,)`` as a Python list."""
    return cast("list[int]", cast(Any, values).tolist())


def unique_counts(values: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct values in ascending order and the count of each."""
    return cast("tuple[Tensor, Tensor]", cast(Any, torch).unique(values, return_counts=True))


def vector_norms(rows: Tensor, axis: int) -> Tensor:
    """Return the Euclidean norms along ``axis``."""
    return rows.pow(2).sum(axis).sqrt()


def named_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield every module with its name."""
    return cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
