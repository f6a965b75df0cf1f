"""Convert arrays and tensors of many images, in any layout and dtype, to one uint8 tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flambeau.data.readable_arrays import refuse_masked, refuse_unreadable
from flambeau.data.split import Rows
from flambeau.errors import InputError
from flambeau_vision.decode import (
    in_native_order,
    sixteen_bits_to_uint8,
    used_bits,
)
from flambeau_vision.float_scale import LEAST_BRIGHT, White, float_factor, refuse_unclear_range
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


def largest_of_floats(images: Any) -> float | None:
    """Return the largest value of images of floats; None for images of other types."""
    if isinstance(images, Tensor):
        return float(images.float().max()) if _has_floats(images) else None
    try:
        array = np.asarray(images)
    except ValueError:  # images of several sizes, which are refused when they are converted
        return None
    return float(array.max()) if array.dtype.kind == "f" and array.size else None


def white_of_arrays(images: Any) -> White | None:
    """Return the value of white in images of floats, by their largest; None for other images."""
    largest = largest_of_floats(images)
    return None if largest is None else 1 if largest <= 1.0 else 255


def white_of_parts(images: Mapping[str, Any], given: White | None) -> White | None:
    """Return the value of white in images of floats, by train, or by the other parts without any.

    Args:
        images: Part → array or tensor of images.
        given: The value that the user chose; None decides by the values.

    Raises:
        InputError: Train has no floats, and the other parts have different ranges.
    """
    if given is not None:
        return given
    known: dict[str, White | None] = {part: white_of_arrays(each) for part, each in images.items()}
    found: dict[str, White] = {part: white for part, white in known.items() if white is not None}
    if "train" not in found and len(set(found.values())) > 1:
        ranges = ", ".join(f"those of {part} in 0..{white}" for part, white in found.items())
        raise InputError(
            f"Images of floats have different ranges: {ranges}. Scale all parts by one factor, or "
            "give uint8 pixels."
        )
    return found["train"] if "train" in found else next(iter(found.values()), None)


def largest_of_rows(images: Mapping[str, Any]) -> dict[int, float]:
    """Return the largest value of each image of floats, by its row in all parts.

    Args:
        images: Part → array or tensor of images.
    """
    found: dict[int, float] = {}
    start = 0
    for each in images.values():
        if largest_of_floats(each) is not None:
            is_tensor = isinstance(each, Tensor)
            array = each.detach().float().cpu().numpy() if is_tensor else np.asarray(each)
            largest = array.reshape(len(array), -1).max(axis=1).astype(np.float64)
            found |= dict(enumerate(largest.tolist(), start))
        start += len(each)
    return found


def check_train_range(largest: Mapping[int, float], train: Rows, white: White) -> None:
    """Raise if train rows that were drawn from an array have another range than the whole array.

    Args:
        largest: Row → largest value of the images of floats.
        train: The train rows.
        white: The value of white in the whole array.

    Raises:
        InputError: The ranges differ; the message gives both.
    """
    high = max((largest[int(row)] for row in train if int(row) in largest), default=None)
    if high is None or (high <= 1.0) == (white == 1):
        return
    brightest = max(largest, key=lambda row: largest[row])
    raise InputError(
        f"Image {brightest} has float values up to {largest[brightest]:g}, but the train "
        f"images only up to {high:g}, so one of them is in 0..1 and the other in 0..255. Scale "
        "all images by one factor, or pass ImageOptions(white=255) or ImageOptions(white=1)."
    )


def check_same_range(images: Mapping[str, Any]) -> None:
    """Raise if the floats of a part are in 0..1 and those of train in 0..255, or the reverse.

    Whole numbers 0 and 1 can be dark pixels of 0..255; they are not refused.

    Args:
        images: Part → array or tensor of images.

    Raises:
        InputError: The ranges differ; the message gives both.
    """
    ranges = {part: largest_of_floats(each) for part, each in images.items()}
    train = ranges["train"]
    for part, largest in ranges.items():
        if train is None or largest is None:
            continue
        if 1.0 < largest < LEAST_BRIGHT:  # an overshoot of 1
            if not _is_whole(images[part]):
                refuse_unclear_range(f"The array of {part} images", largest)
            continue
        if (largest <= 1.0) == (train <= 1.0):
            continue
        if largest <= 1.0 and _is_whole(images[part]):
            continue
        raise InputError(
            f"The {part} images have float values up to {largest:g}, but those of train up to "
            f"{train:g}, so one of them is in 0..1 and the other in 0..255. Scale all parts by one "
            "factor, or give uint8 pixels."
        )


def _has_floats(images: Tensor) -> bool:
    return images.layout == torch.strided and images.is_floating_point() and images.numel() > 0


def _is_whole(images: Any) -> bool:
    array = images.detach() if isinstance(images, Tensor) else np.asarray(images)
    return bool((array % 1 == 0).all())


def to_uint8_images(
    images: Any,
    layout: str | None,
    channels: int,
    part: str,
    bits: int = 16,
    *,
    white: White | None = None,
) -> Tensor:
    """Return uint8 ``(n, channels, height, width)``; shares the memory of ``images`` if possible.

    Args:
        images: Array or tensor ``(n, H, W)``, ``(n, H, W, C)`` or ``(n, C, H, W)``.
        layout: "HWC" or "CHW"; None infers it from the shape.
        channels: Number of channels; 1 allows 1 to 4, inferred from the shape.
        part: The part's name, for messages.
        bits: Number of significant bits of 16-bit pixels; see `flambeau_vision.decode.decode`.
        white: The value of white in floats, 1 or 255; None decides by their largest value.

    Raises:
        InputError: The shape, layout or value range is invalid or ambiguous.
    """
    several = (
        f"The {part} images differ in size. Use ImageData.from_items, which accepts images of any "
        "size."
    )
    name = f"The array of {part} images"
    refuse_masked(name, images)
    if isinstance(images, Tensor):
        refuse_unreadable(f"of {part} images", images)
    try:
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
    pixels = _to_uint8(array, part, bits, white)
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
    if images is None or in_native_order(images[:0]).dtype != np.uint16:
        return None
    return max((used_bits(images[int(row)]) for row in rows), default=16)


def _to_uint8(
    array: Tensor | np.ndarray, part: str, bits: int, white: White | None = None
) -> Tensor:
    name = f"The array of {part} images"
    if isinstance(array, Tensor) and array.dtype == torch.uint16:
        array = array.detach().cpu().numpy()
    if isinstance(array, np.ndarray):
        array = in_native_order(array)
        if array.dtype == np.uint16:
            return torch.from_numpy(sixteen_bits_to_uint8(array, bits))
        if array.dtype == np.bool_:
            return torch.from_numpy(array.astype(np.uint8) * np.uint8(255))
        # torch warns when it shares read-only memory, and has no negative strides.
        is_shared = array.flags.writeable and all(stride >= 0 for stride in array.strides)
        array = torch.from_numpy(array if is_shared else array.copy())
    array = array.detach().cpu()
    if array.dtype == torch.uint8:
        return array
    if array.is_complex():
        raise InputError(f"{name} has complex pixels ({array.dtype}). Give their magnitude.")
    if array.dtype in (torch.uint32, torch.uint64):
        array = array.long()  # torch has few operations for them
    low, high = float(array.min()), float(array.max())
    if not (low >= 0.0 and high < 255.5):
        raise InputError(
            f"The {part} images have values from {low:g} to {high:g} ({array.dtype}); pixels "
            "have to be in 0..1 (floats) or 0..255. Scale them to uint8 first, with one factor for "
            "all parts."
        )
    if not array.is_floating_point():
        return array.to(torch.uint8)
    factor = float_factor(name, array, high, white)
    return (array * factor).clamp_(max=255.0).round_().to(torch.uint8)
