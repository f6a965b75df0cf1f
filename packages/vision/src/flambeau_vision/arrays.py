"""Many pictures as one array: whatever layout and type it has, to one uint8 tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flambeau.errors import InputError


def check_alike(images: Mapping[str, Tensor]) -> None:
    """Refuse parts whose pictures have different shapes."""
    shapes = {part: tuple(pictures.shape[1:]) for part, pictures in images.items()}
    if len(set(shapes.values())) > 1:
        seen = ", ".join(f"{part} {shape}" for part, shape in shapes.items())
        raise InputError(
            f"The parts have pictures of different shape (channels, height, width): {seen}. Use "
            "ImageData.from_items, which takes pictures of any size."
        )


def uint8_pictures(images: Any, layout: str | None, known: int, part: str) -> Tensor:
    """uint8 ``(n, channels, height, width)``; the same memory where it can be."""
    several = (
        f"The {part} pictures are of several sizes. Use ImageData.from_items, which takes them."
    )
    try:
        array = images if isinstance(images, Tensor) else np.asarray(images)
    except ValueError as error:  # a list of arrays of several shapes
        raise InputError(several) from error
    if isinstance(array, np.ndarray) and array.dtype == object:
        raise InputError(several)
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InputError(
            f"The {part} pictures have shape {tuple(array.shape)}; give (n, H, W), (n, H, W, C) "
            "or (n, C, H, W)."
        )
    pixels = _tensor(array, part)
    if pixels.ndim == 3:
        return pixels.unsqueeze(1)
    return pixels if _channels_first(pixels.shape, layout, known) else pixels.permute(0, 3, 1, 2)


def _channels_first(shape: Sequence[int], layout: str | None, known: int) -> bool:
    if layout is not None:
        if layout not in ("HWC", "CHW"):
            raise InputError(f"layout={layout!r} is neither 'HWC' nor 'CHW'.")
        return layout == "CHW"
    channels = (1, 2, 3, 4) if known == 1 else (known,)
    first, last = shape[1] in channels, shape[3] in channels
    if first == last:
        why = "both fit" if first else "neither fits"
        raise InputError(
            f"Which axis of {tuple(shape)} holds the channels? Of the second and the last, {why}. "
            'Say layout="HWC" or layout="CHW"'
            + ("." if first else ", and ImageOptions(channels=…) for their number.")
        )
    return first


def _tensor(array: Tensor | np.ndarray, part: str) -> Tensor:
    if isinstance(array, np.ndarray):
        if array.dtype == np.uint16:
            return torch.from_numpy(((array.astype(np.uint32) + 128) // 257).astype(np.uint8))
        if array.dtype == np.bool_:
            return torch.from_numpy(array.astype(np.uint8) * np.uint8(255))
        # torch warns where it shares memory that must not be written to.
        array = torch.from_numpy(array if array.flags.writeable else array.copy())
    array = array.detach().cpu()
    if array.dtype == torch.uint8:
        return array
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 255.0):
        raise InputError(
            f"The {part} pictures have values from {low:g} to {high:g} ({array.dtype}); pixels "
            "have to be in 0..1 (floats) or 0..255. Scale them to uint8 first, with one factor for "
            "all parts."
        )
    if array.is_floating_point() and high <= 1.0:
        array = array * 255.0
    return array.round().to(torch.uint8) if array.is_floating_point() else array.to(torch.uint8)
