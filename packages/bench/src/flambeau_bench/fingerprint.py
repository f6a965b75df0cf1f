"""Hashes and settings that show that two sides did the same work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

_LENGTH = 16  # hex digits: enough to distinguish runs, short enough for a table

_OPTIMIZER_SETTINGS = (
    "betas",
    "dampening",
    "eps",
    "foreach",
    "fused",
    "momentum",
    "nesterov",
    "weight_decay",
)


def of_tensors(tensors: Iterable[Tensor]) -> str:
    """Return a hash of dtypes, shapes and bytes, in order; copies the tensors to the host."""
    digest = hashlib.sha256()
    for tensor in tensors:
        host = tensor.detach().cpu().contiguous()
        digest.update(f"{host.dtype} {tuple(host.shape)}".encode())
        # As bytes, because NumPy has no bfloat16.
        digest.update(host.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:_LENGTH]


def of_weights(model: nn.Module) -> str:
    """Return a hash of all parameters and buffers, without their names (wrappers change them)."""
    return of_tensors(model.state_dict().values())


def of_numbers(numbers: Iterable[int | float]) -> str:
    """Return a hash of plain numbers in order; it differs if a single bit differs."""
    text = ",".join(
        number.hex() if isinstance(number, float) else str(number) for number in numbers
    )
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def machine_settings() -> dict[str, Any]:
    """Return torch's switches that change speed or results."""
    return {
        "threads": torch.get_num_threads(),
        "default_dtype": str(torch.get_default_dtype()),
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
    }


def optimizer_settings(optimizer: Optimizer) -> dict[str, Any]:
    """Return class and settings of an optimizer by param group, but not lr, which changes."""
    return {
        "optimizer": type(optimizer).__name__,
        "groups": [_group(group) for group in optimizer.param_groups],
    }


def _group(group: Mapping[str, Any]) -> dict[str, Any]:
    settings = {
        # Lists, because JSON returns them instead of tuples.
        name: list(group[name]) if isinstance(group[name], tuple) else group[name]
        for name in _OPTIMIZER_SETTINGS
        if name in group
    }
    return {"parameters": [list(p.shape) for p in group["params"]], **settings}
