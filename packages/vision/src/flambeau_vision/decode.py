"""Decode one image from any supported input to uint8 pixels ``(height, width, channels)``.

Pillow decodes. This module adds EXIF orientation, transparency composited over white, 16 bits
scaled to 8 without clipping, and errors that name the file.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from flambeau.data.readable_arrays import refuse_masked, refuse_unreadable
from flambeau.errors import InputError
from flambeau_vision.float_scale import White, float_factor, to_levels
from flambeau_vision.open_image import (
    HIGH_BIT_DEPTH_MODES,
    exif_orientation,
    is_file,
    item_name,
    load_opened,
    loaded,
    open_image,
)
from flambeau_vision.sixteen_bit_colour import sixteen_bit_values

if TYPE_CHECKING:
    from PIL.Image import Image

Pixels = NDArray[np.uint8]
"""uint8 ``(height, width, channels)``."""

_GREY_MODES = ("1", "L", "LA", "La", "I", "F")
_ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
_ONLY_TO = {"LAB": "RGB", "La": "LA", "RGBa": "RGBA"}


def decode(
    item: Any,
    *,
    channels: int | None = None,
    target_side: int | None = None,
    bits: int = 16,
    white: White | None = None,
) -> Pixels:
    """Return the upright pixels of one image as uint8 ``(height, width, channels)`` in 0..255.

    Args:
        item: A path, the bytes of a file, an open file, a Pillow image, an array ``(H, W)`` or
            ``(H, W, C)``, or a tensor ``(H, W)`` or ``(C, H, W)``. Float pixels are in 0..1 or in
            0..255, bool become 0 and 255.
        channels: 1 (grey) or 3 (red, green, blue); another number only if the image has exactly
            that many; None for the image's own channels, without transparency.
        target_side: The side in pixels to which the image will be resized. A large JPEG is then
            decoded at a half, quarter or eighth of its size, but not below ``DRAFT_FACTOR`` times
            this side.
        bits: Number of significant bits of 16-bit pixels: values from ``2**bits - 1`` become 255.
        white: The value of white in arrays of floats, 1 or 255; None decides by the largest value
            of this image, so that one in 0..255 whose values are all below 1 would become bright.

    Raises:
        InputError: The item cannot be read, is truncated, or its value range is ambiguous; the
            message names it.

    Example:
        >>> decode(np.zeros((4, 6), dtype=np.uint8)).shape
        (4, 6, 1)
    """
    item = loaded(item)
    if isinstance(item, str | os.PathLike | bytes | bytearray | memoryview) or is_file(item):
        with open_image(item, target_side) as image:
            return image_pixels(image, channels, item_name(item), bits)
    # After files, which have a method "detach" as tensors do.
    if isinstance(item, np.ndarray) or hasattr(item, "detach"):
        pixels = array_pixels(item, channels, bits, white)
        return _convert_channels(pixels, channels, item_name(item))
    if hasattr(item, "getbands"):
        name = item_name(item)
        item = floats_as_array(item)
        if isinstance(item, np.ndarray):
            return _convert_channels(array_pixels(item, channels, bits, white), channels, name)
        return image_pixels(item, channels, name, bits)
    raise InputError(
        f"An image cannot be read from a {type(item).__name__}. Give a path, the bytes of a file, "
        "an open file, a Pillow image, an array (H, W) or (H, W, C), or a tensor (C, H, W)."
    )


def floats_as_array(item: Any) -> Any:
    """Return a Pillow image of floats (mode F) as an upright array; others loaded, as they are."""
    load_opened(item)  # before its orientation is read
    return np.array(_apply_orientation(item)) if item.mode == "F" else item


def check_decodes(item: Any) -> int:
    """Decode the whole file and discard the pixels: the only reliable test for truncated data.

    Returns:
        The number of significant bits of its pixels; 8 for most files.

    Raises:
        InputError: The file cannot be read; the message names it.
    """
    # A JPEG at an eighth of its size: all its data are read, and a photograph takes 1.1 ms instead
    # of 1.7 at 500×375 and 21 ms instead of 61 at 12 megapixels (one core).
    with open_image(item, target_side=0) as image:
        if image.mode in HIGH_BIT_DEPTH_MODES:
            image_pixels(image, None, item_name(item))
        return used_bits(image)


def used_bits(image: Image | NDArray[Any]) -> int:
    """Return the number of bits of the largest value of a 16-bit image; 8 for other images."""
    if isinstance(image, np.ndarray):
        values = image
    elif (colour := sixteen_bit_values(image, lambda same: same)) is not None:
        values = colour[:, :, :3]
    elif image.mode.startswith("I;16"):
        values = np.array(image)
    else:
        return 8
    if in_native_order(values).dtype != np.uint16 or not values.size:
        return 8
    return max(8, int(values.max()).bit_length())


# ---------------------------------------------------------------- Pillow images


def image_pixels(image: Image, channels: int | None, name: str, bits: int = 16) -> Pixels:
    """Return the upright uint8 pixels of a Pillow image of any mode; see `decode`."""
    if (values := sixteen_bit_values(image, _apply_orientation)) is not None:
        pixels = sixteen_bits_to_uint8(values, bits)
        pixels[:, :, 3:] = sixteen_bits_to_uint8(values[:, :, 3:], 16)  # transparency
        return _convert_channels(pixels, channels or 3, name)
    image = _apply_orientation(image)
    if channels not in (None, 1, 3):
        if len(image.getbands()) != channels:
            raise InputError(
                f"{name} has {len(image.getbands())} channels ({image.mode}), but {channels} were "
                "requested. Images can be converted to 1 or 3 channels; for any other number, the "
                "file must already have that number of channels."
            )
        return np.array(image, dtype=np.uint8)
    if image.mode in HIGH_BIT_DEPTH_MODES:
        return _convert_channels(_high_bit_depth_pixels(image, name, bits), channels, name)
    wanted = channels or (1 if image.mode in _GREY_MODES else 3)
    if image.mode in _ONLY_TO:  # Pillow converts these modes to one other only
        image = image.convert(_ONLY_TO[image.mode])
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        image = _composite_over_white(image)
    pixels = np.array(image.convert("L" if wanted == 1 else "RGB"))
    return pixels.reshape(*pixels.shape[:2], wanted)


def _apply_orientation(image: Image) -> Image:
    from PIL.Image import Transpose

    # ImageOps.exif_transpose does the same but rewrites the EXIF data, which fails if damaged.
    method = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }.get(exif_orientation(image))
    if method is None:
        return image
    info = image.info
    image = image.transpose(method)
    image.info = {key: value for key, value in info.items() if key == "transparency"}
    return image


def _composite_over_white(image: Image) -> Image:
    """Composite over white. A plain convert would show the colours of transparent pixels."""
    from PIL import Image as pillow  # noqa: N813

    image = image.convert("RGBA")
    return pillow.alpha_composite(pillow.new("RGBA", image.size, (255, 255, 255, 255)), image)


def _high_bit_depth_pixels(image: Image, name: str, bits: int) -> Pixels:
    """Return an image of more than 8 bits as uint8 pixels; Pillow would clip values above 255."""
    values = np.array(image)
    if image.mode.startswith("I;16"):
        return _scale_to_uint8(values.astype(np.uint16), name, bits)
    return _scale_to_uint8(values, name)


# ---------------------------------------------------------------- arrays


def channel_counts(channels: int | None) -> tuple[int, ...]:
    """Return the numbers of channels that an array for a model with ``channels`` may have."""
    return (channels,) if channels not in (None, 1, 3) else (1, 2, 3, 4)


def in_native_order(array: NDArray[Any]) -> NDArray[Any]:
    """Return the array in the byte order of the machine, and long doubles as doubles."""
    dtype = np.dtype(np.float64) if array.dtype.char == "g" else array.dtype.newbyteorder("=")
    return array.astype(dtype, copy=False)


def as_array(item: Any) -> NDArray[Any]:
    """Return an array or a tensor as an array, without a copy if NumPy has its dtype."""
    refuse_masked(item_name(item), item)
    if not hasattr(item, "detach"):
        return in_native_order(np.asarray(item))
    refuse_unreadable(item_name(item), item)
    tensor = item.detach().cpu()
    if tensor.is_floating_point() and tensor.element_size() < 4:  # NumPy has no bfloat16
        tensor = tensor.float()
    array: NDArray[Any] = tensor.numpy()
    return array


def array_pixels(
    item: Any, channels: int | None = None, bits: int = 16, white: White | None = None
) -> Pixels:
    """Return uint8 ``(height, width, channels)`` of one array or tensor.

    Arrays are ``(H, W)`` or ``(H, W, C)``, tensors ``(H, W)`` or ``(C, H, W)``. An array
    ``(C, H, W)`` is also accepted if only its first axis can be the channels.
    """
    is_tensor = hasattr(item, "detach")
    array = as_array(item)
    name = item_name(item)
    if array.ndim == 2:
        return _scale_to_uint8(array, name, bits, white)[:, :, None]
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(
            f"An image of shape {array.shape} cannot be used: give (H, W) or (H, W, C), or "
            "(C, H, W) as a tensor. For several images give a list."
        )
    allowed = channel_counts(channels)
    fits_first, fits_last = array.shape[0] in allowed, array.shape[2] in allowed
    if not fits_first and not fits_last:
        raise InputError(
            f"An image of shape {array.shape} has no axis with the number of channels "
            f"({' or '.join(map(str, allowed))}). Give an array (H, W, C) or a tensor (C, H, W)."
        )
    if fits_first and (is_tensor or not fits_last):
        array = array.transpose(1, 2, 0)
    return _scale_to_uint8(array, name, bits, white)


def in_levels(item: Any, white: White | None) -> Any:
    """Return floats (array, tensor, Pillow image of mode F) as uint8 with the same axes.

    An image of a data set remains there, and is scaled when it is read.
    """
    if hasattr(item, "load_image"):
        return replace(item, white=white)
    if hasattr(item, "getbands"):
        item = floats_as_array(item)
    levels = _scale_to_uint8(as_array(item), item_name(item), white=white)
    return torch.from_numpy(levels) if hasattr(item, "detach") else levels


def sixteen_bits_to_uint8(values: NDArray[np.uint16], bits: int) -> Pixels:
    """Return values of ``bits`` bits as uint8, rounded; larger ones become 255."""
    largest = (1 << bits) - 1
    scaled = (values.astype(np.uint32) * 255 + largest // 2) // largest
    return np.minimum(scaled, 255).astype(np.uint8)


def _scale_to_uint8(
    array: NDArray[Any], name: str, bits: int = 16, white: White | None = None
) -> Pixels:
    """Return the values as uint8 in 0..255; raise if their range is ambiguous."""
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return sixteen_bits_to_uint8(array, bits)
    if array.dtype.kind not in "iuf" or array.size == 0:
        raise InputError(
            f"{name} has values of type {array.dtype} and size {array.size}. Give an array of "
            "numbers that is not empty."
        )
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and low >= 0.0 and high < 255.5):
        raise InputError(
            f"{name} has values from {low:g} to {high:g} ({array.dtype}), but pixels have to be in "
            "0..1 (floats) or 0..255. Scale them to uint8 first, with one factor for the whole "
            "data set, for example (values / values_max * 255).astype('uint8')."
        )
    if array.dtype.kind == "f":
        array = array * float_factor(name, array, high, white)
    return to_levels(array)


def _convert_channels(pixels: Pixels, channels: int | None, name: str) -> Pixels:
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    given = pixels.shape[2]
    if channels is None or given == channels:
        return pixels
    if given == 1 and channels == 3:
        return np.repeat(pixels, 3, axis=2)
    if channels in (1, 3) and given in (2, 3, 4):
        from PIL import Image

        mode = {2: "LA", 3: "RGB", 4: "RGBA"}[given]
        return image_pixels(
            Image.frombytes(mode, pixels.shape[1::-1], pixels.tobytes()), channels, name
        )
    raise InputError(
        f"{name} has {given} channels, but {channels} were requested. Images can be converted to 1 "
        "or 3 channels; for any other number, the data must already have that number of channels."
    )
