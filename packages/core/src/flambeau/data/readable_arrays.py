"""Refuse arrays and tensors whose values are not all there, or cannot be read by row."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.errors import InputError


def refuse_masked(name: str, value: object) -> None:
    """Raise an error if the value is a masked array with masked entries.

    Args:
        name: What the array is, for the message.
        value: Any object.

    Raises:
        InputError: Entries are masked; the message gives their number and the first index.
    """
    if not isinstance(value, np.ma.MaskedArray):
        return
    # NumPy does not annotate the mask.
    masked = np.argwhere(cast("Any", np.ma).getmaskarray(value))
    if len(masked):
        first = tuple(int(index) for index in masked[0])
        raise InputError(
            f"{name} is a masked array with {len(masked)} masked entries (the first at {first}), "
            "whose values under the mask would be used. Replace them (array.filled(0)), or remove "
            "their rows."
        )


def refuse_unreadable(name: str, tensor: Tensor) -> None:
    """Raise an error if rows cannot be selected from a tensor.

    Args:
        name: What the tensor is, for the message.
        tensor: A tensor of any layout and dtype.

    Raises:
        InputError: It is sparse, nested, quantised, without values, or of a dtype for which torch
            has few operations.
    """
    fix = ""
    if tensor.is_meta:
        fix = "it is on the meta device, so it has no values. Create it on a real device"
    elif tensor.is_nested:
        fix = "its rows have different sizes. Pad them: torch.nested.to_padded_tensor(tensor, 0.0)"
    elif tensor.layout != torch.strided:
        fix = f"its layout is {tensor.layout}. Convert it: tensor.to_dense()"
    elif tensor.is_quantized:
        fix = f"it is quantised ({tensor.dtype}). Convert it: tensor.dequantize()"
    elif tensor.dtype == torch.complex32:
        fix = "torch has few operations for complex32. Convert it: tensor.to(torch.complex64)"
    elif tensor.is_floating_point() and tensor.dtype.itemsize < 2:
        fix = f"torch has few operations for {tensor.dtype}. Convert it: tensor.to(torch.float32)"
    if fix:
        raise InputError(f"Rows cannot be selected from the tensor {name}: {fix}.")
