"""Resize images of any size to the same size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np

from flambeau.errors import InputError
from flambeau_vision.decode import Pixels
from flambeau_vision.float_scale import White

Layout = Literal["HW", "HWC", "CHW"]
"""Axes of an array of one image."""

Resize = Literal["crop", "squash", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

# Pillow first shrinks by an integer factor if the image is at least twice this many times too
# large; at 3 the result is indistinguishable from the exact one (Pillow's documentation), and large
# photographs take a third less time.
REDUCING_GAP = 3.0


Size: TypeAlias = int | tuple[int, int]
"""Side of square images, or height and width, in pixels."""


def parse_size(value: Any) -> Size:
    """Return ``value`` as a size: one number if height and width are equal, else a pair.

    Args:
        value: A whole number; height and width as a pair; or text: "224" or "224x160".

    Raises:
        InputError: The value has another form, or a side is below 1.

    Example:
        >>> parse_size(224), parse_size((224, 224)), parse_size("224x160")
        (224, 224, (224, 160))
    """
    given = value
    if isinstance(value, str):
        value = [int(side) for side in re.split(r"\s*[x×,]\s*", value.strip()) if side.isdigit()]
        value = value if len(value) == len(re.split(r"[x×,]", given)) else None
    sides = list(cast("Sequence[Any]", value)) if isinstance(value, Sequence) else [value]
    is_whole = all(isinstance(n, int | np.integer) and not isinstance(n, bool) for n in sides)
    if not is_whole or len(sides) not in (1, 2) or min(sides) < 1:
        raise InputError(
            f"size={given!r} is not a size in pixels. Give a whole number of at least 1, such as "
            "224, or height and width: (224, 160), on the command line --size 224x160."
        )
    height, width = int(sides[0]), int(sides[-1])
    return height if height == width else (height, width)


def height_and_width(size: Size) -> tuple[int, int]:
    """Return height and width of a size, which may be one number or, from JSON, a list."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


@dataclass(frozen=True)
class Geometry:
    """Size, channels and resize method of the images in a batch.

    Attributes:
        size: Side in pixels, or (height, width).
        channels: 1 is grey, 3 is red, green and blue; another number must be that of the data.
        resize: "crop" resizes to the smallest size that covers ``size / crop`` and cuts out the
            centre; "squash" changes the aspect ratio and keeps the whole image; "pad" resizes to
            the largest size that fits into ``size`` and fills the rest with black.
        crop: Share of the resized side that "crop" keeps; 0.875 cuts 224 pixels out of 256.
        interpolation: Pillow's filter; all but "nearest" are antialiased when shrinking.
        bits: Number of significant bits of 16-bit pixels; see `flambeau_vision.decode.decode`.
        white: The value of white in arrays of floats, 1 or 255; see there.

    Raises:
        InputError: A value is invalid.
    """

    size: Size
    channels: int = 3
    resize: Resize = "crop"
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"
    bits: int = 16
    white: White | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", parse_size(self.size))
        if self.channels < 1:
            raise InputError(f"channels has to be at least 1, got {self.channels}.")
        if self.resize not in ("crop", "squash", "pad"):
            raise InputError(f"Unknown resize={self.resize!r}. Choose 'crop', 'squash' or 'pad'.")
        if self.interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
            raise InputError(
                f"Unknown interpolation={self.interpolation!r}. Choose 'nearest', 'bilinear', "
                "'bicubic' or 'lanczos'."
            )
        if not 8 <= self.bits <= 16:
            raise InputError(f"bits has to be from 8 to 16, got {self.bits}.")
        if not 0.0 < self.crop <= 1.0:
            raise InputError(f"crop has to be a share in (0, 1], got {self.crop}.")

    @property
    def height(self) -> int:
        """Height in pixels."""
        return height_and_width(self.size)[0]

    @property
    def width(self) -> int:
        """Width in pixels."""
        return height_and_width(self.size)[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.channels, self.height, self.width


def resize_pixels(pixels: Pixels, geometry: Geometry) -> Pixels:
    """Resize uint8 ``(height, width, channels)`` to the geometry's height and width."""
    height, width, channels = pixels.shape
    size = wanted_height, wanted_width = geometry.height, geometry.width
    if (height, width) == size and geometry.crop == 1.0:
        return pixels
    if channels not in (1, 3):  # Pillow has no such mode: resize channel by channel
        planes = [resize_pixels(pixels[:, :, i : i + 1], geometry) for i in range(channels)]
        return np.concatenate(planes, axis=2)
    if geometry.resize == "squash":
        return _resample(pixels, *size, geometry)
    if geometry.resize == "pad":
        scale = min(wanted_height / height, wanted_width / width)
        inner = _resample(
            pixels, max(1, round(height * scale)), max(1, round(width * scale)), geometry
        )
        out = np.zeros((*size, channels), dtype=np.uint8)
        top, left = (wanted_height - inner.shape[0]) // 2, (wanted_width - inner.shape[1]) // 2
        out[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return out
    # torchvision's Resize and CenterCrop, rounding included, so that the input of published weights
    # is the one they were evaluated with.
    cover_height, cover_width = (round(side / geometry.crop) for side in size)
    if height * cover_width > width * cover_height:  # taller than the size
        cover_height = int(cover_width * height / width)
    else:
        cover_width = int(cover_height * width / height)
    resized = _resample(pixels, cover_height, cover_width, geometry)
    top = round((cover_height - wanted_height) / 2.0)
    left = round((cover_width - wanted_width) / 2.0)
    return resized[top : top + wanted_height, left : left + wanted_width]


def _resample(pixels: Pixels, height: int, width: int, geometry: Geometry) -> Pixels:
    from PIL import Image

    if pixels.shape[:2] == (height, width):
        return pixels
    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    method = Image.Resampling[geometry.interpolation.upper()]
    gap = None if geometry.interpolation == "nearest" else REDUCING_GAP
    resized = np.asarray(image.resize((width, height), method, reducing_gap=gap))
    return resized[:, :, None] if grey else resized
