"""Resize images of any size to squares of the same size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from flambeau.errors import InputError
from flambeau_vision.decode import Pixels

Resize = Literal["crop", "squash", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

# Pillow first shrinks by an integer factor if the image is at least twice this many times too
# large; at 3 the result is indistinguishable from the exact one (Pillow's documentation), and large
# photographs take a third less time.
REDUCING_GAP = 3.0


@dataclass(frozen=True)
class Geometry:
    """Size, channels and resize method of the images in a batch.

    Attributes:
        size: Height and width in pixels.
        channels: 1 grey, 3 red, green and blue; other numbers only as they are in the data.
        resize: "crop" resizes the short side to ``size / crop`` and cuts out the centre square;
            "squash" changes the aspect ratio and keeps the whole image; "pad" resizes the long side
            to ``size`` and fills the rest with black.
        crop: Share of the short side that "crop" keeps; 0.875 is 224 from 256.
        interpolation: Pillow's filter; all but "nearest" are antialiased when shrinking.

    Raises:
        InputError: A value is invalid.
    """

    size: int
    channels: int = 3
    resize: Resize = "crop"
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        for name in ("size", "channels"):
            value: object = getattr(self, name)
            if not isinstance(value, int):
                raise InputError(
                    f"{name} is {value!r}, but it must be a whole number; images are square, with "
                    "size pixels on each side: size=224."
                )
        if self.size < 1 or self.channels < 1:
            raise InputError(
                f"size and channels have to be at least 1, got {self.size} and {self.channels}."
            )
        if self.resize not in ("crop", "squash", "pad"):
            raise InputError(f"Unknown resize={self.resize!r}. Choose 'crop', 'squash' or 'pad'.")
        if self.interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
            raise InputError(
                f"Unknown interpolation={self.interpolation!r}. Choose 'nearest', 'bilinear', "
                "'bicubic' or 'lanczos'."
            )
        if not 0.0 < self.crop <= 1.0:
            raise InputError(f"crop has to be a share in (0, 1], got {self.crop}.")


def resize_pixels(pixels: Pixels, geometry: Geometry) -> Pixels:
    """Resize uint8 ``(height, width, channels)`` to ``(size, size, channels)``."""
    height, width, channels = pixels.shape
    size = geometry.size
    if (height, width) == (size, size) and geometry.crop == 1.0:
        return pixels
    if channels not in (1, 3):  # Pillow has no such mode: resize channel by channel
        planes = [resize_pixels(pixels[:, :, i : i + 1], geometry) for i in range(channels)]
        return np.concatenate(planes, axis=2)
    if geometry.resize == "squash":
        return _resample(pixels, size, size, geometry)
    if geometry.resize == "pad":
        scale = size / max(height, width)
        inner = _resample(
            pixels, max(1, round(height * scale)), max(1, round(width * scale)), geometry
        )
        out = np.zeros((size, size, channels), dtype=np.uint8)
        top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
        out[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return out
    # torchvision's Resize and CenterCrop, rounding included, so that the input of published weights
    # is the one they were evaluated with.
    short = round(size / geometry.crop)
    long = int(short * max(height, width) / min(height, width))
    shape = (long, short) if height > width else (short, long)
    resized = _resample(pixels, *shape, geometry)
    top, left = (int(round((side - size) / 2.0)) for side in shape)  # noqa: RUF046
    return resized[top : top + size, left : left + size]


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
