"""Convert arrays and tensors of many images, in any layout and dtype, to one uint8 tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flambeau.data.masked_arrays import refuse_masked
from flambeau.data.split import Rows
from flambeau.errors import InputError
from flambeau_vision.decode import refuse_unclear_range, sixteen_bits_to_uint8, used_bits
from flambeau_vision.resize import Layout


def check_same_shape(images: Mapping[str, Tensor]) -> None:
    """Raise if the images of the parts have different shapes.

    Args:
        images: Part → ``(n, channels, height, width)``.

    Raises:
        InputError: The shapes differ; the message lists them.
    """
    shapes = {part: tuple(tensor.shape[1:]) for part, tensor in images.items()}
    if len(set(shapes.values())) > 1:
        seen = ", ".join(f"{part} {shape}" for part, shape in shapes.items())
        raise InputError(
            f"The parts have images of different shapes (channels, height, width): {seen}. Use "
            "ImageData.from_items, which accepts images of any size."
        )


def to_uint8_images(
    images: Any, layout: str | None, channels: int, part: str, bits: int = 16
) -> Tensor:
    """Return uint8 ``(n, channels, height, width)``; shares the memory of ``images`` if possible.

    Args:
        images: Array or tensor ``(n, H, W)``, ``(n, H, W, C)`` or ``(n, C, H, W)``.
        layout: "HWC" or "CHW"; None infers it from the shape.
        channels: Number of channels; 1 allows 1 to 4, inferred from the shape.
        part: The part's name, for messages.
        bits: Number of significant bits of 16-bit pixels; see `flambeau_vision.decode.decode`.

    Raises:
        InputError: The shape, layout or value range is invalid or ambiguous.
    """
    several = (
        f"The {part} images differ in size. Use ImageData.from_items, which accepts images of any "
        "size."
    )
    try:
        refuse_masked(f"The array of {part} images", images)
        array = images if isinstance(images, Tensor) else np.asarray(images)
    except ValueError as error:  # a list of arrays of several shapes
        raise InputError(several) from error
    if isinstance(array, np.ndarray) and array.dtype == object:
        raise InputError(several)
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InputError(
            f"The {part} images have shape {tuple(array.shape)}; give (n, H, W), (n, H, W, C) "
            "or (n, C, H, W)."
        )
    pixels = _to_uint8(array, part, bits)
    if pixels.ndim == 3:
        return pixels.unsqueeze(1)
    channels_first = _is_channels_first(pixels.shape, layout, channels)
    return pixels if channels_first else pixels.permute(0, 3, 1, 2)


def layout_of(images: Any, pixels: Tensor) -> Layout:
    """Return the axes of one image in ``images``; ``pixels`` are the images as ``(n, C, H, W)``."""
    shape = np.shape(images)
    if len(shape) == 3:
        return "HW"
    return "CHW" if tuple(shape) == tuple(pixels.shape) else "HWC"


def _is_channels_first(shape: Sequence[int], layout: str | None, channels: int) -> bool:
    if layout is not None:
        if layout not in ("HWC", "CHW"):
            raise InputError(f"Unknown layout={layout!r}. Choose 'HWC' or 'CHW'.")
        return layout == "CHW"
    allowed = (1, 2, 3, 4) if channels == 1 else (channels,)
    first, last = shape[1] in allowed, shape[3] in allowed
    if first == last:
        why = "are both possible" if first else "are both impossible"
        raise InputError(
            f"The channel axis of images of shape {tuple(shape)} is ambiguous: the second and the "
            f'last axis {why}. Pass layout="HWC" or layout="CHW"'
            + ("." if first else ", and the number of channels: ImageOptions(channels=…).")
        )
    return first


def bits_of_rows(images: Any, rows: Rows) -> int | None:
    """Return the number of significant bits in ``rows`` of 16-bit images; None for other images."""
    if isinstance(images, Tensor):
        images = images.numpy() if images.dtype == torch.uint16 else None
    elif not isinstance(images, np.ndarray):
        images = np.asarray(images) if isinstance(images, Sequence) else None
    if images is None or images.dtype != np.uint16:
        return None
    return max((used_bits(images[int(row)]) for row in rows), default=16)


def _to_uint8(array: Tensor | np.ndarray, part: str, bits: int) -> Tensor:
    if isinstance(array, Tensor) and array.dtype == torch.uint16:
        array = array.detach().cpu().numpy()
    if isinstance(array, np.ndarray):
        if array.dtype == np.uint16:
            return torch.from_numpy(sixteen_bits_to_uint8(array, bits))
        if array.dtype == np.bool_:
            return torch.from_numpy(array.astype(np.uint8) * np.uint8(255))
        # torch warns when it shares read-only memory.
        array = torch.from_numpy(array if array.flags.writeable else array.copy())
    array = array.detach().cpu()
    if array.dtype == torch.uint8:
        return array
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high <= 255.0):
        raise InputError(
            f"The {part} images have values from {low:g} to {high:g} ({array.dtype}); pixels "
            "have to be in 0..1 (floats) or 0..255. Scale them to uint8 first, with one factor for "
            "all parts."
        )
    if not array.is_floating_point():
        return array.to(torch.uint8)
    refuse_unclear_range(f"The array of {part} images", array, high)
    return (array * 255.0 if high <= 1.0 else array).round().to(torch.uint8)
