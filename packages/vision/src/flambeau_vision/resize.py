"""Pictures of any size to squares of one size, and many of them to one uint8 tensor."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from flambeau.device import usable_cores
from flambeau.errors import FlambeauError, InputError
from flambeau_vision.decode import Pixels, decode

Resize = Literal["crop", "squash", "pad"]
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

# Pillow first shrinks by a whole factor what is at least twice this many times too large; at 3 the
# result cannot be told from the exact one (Pillow's own words), and large photos take a third less.
REDUCING_GAP = 3.0
# From here on a bar may show how far decoding is; fewer pictures are over before one is drawn.
PROGRESS_FROM = 100


@dataclass(frozen=True)
class Geometry:
    """What every picture is brought to before it becomes part of a batch.

    Attributes:
        size: Height and width in pixels.
        channels: 1 grey, 3 red, green and blue; other numbers only as they are in the data.
        resize: "crop" brings the short side to ``size / crop`` and cuts the square in the middle;
            "squash" changes the proportions and loses nothing; "pad" brings the long side to
            ``size`` and fills up with black.
        crop: Share of the short side that "crop" keeps; 0.875 is 224 from 256.
        interpolation: Pillow's filter; all but "nearest" are antialiased when shrinking.
    """

    size: int
    channels: int = 3
    resize: Resize = "crop"
    crop: float = 1.0
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        if self.size < 1 or self.channels < 1:
            raise InputError(
                f"size and channels have to be at least 1, not {self.size} and {self.channels}."
            )
        if self.resize not in ("crop", "squash", "pad"):
            raise InputError(f"resize={self.resize!r} is none of 'crop', 'squash', 'pad'.")
        if self.interpolation not in ("nearest", "bilinear", "bicubic", "lanczos"):
            raise InputError(
                f"interpolation={self.interpolation!r} is none of 'nearest', 'bilinear', "
                "'bicubic', 'lanczos'."
            )
        if not 0.0 < self.crop <= 1.0:
            raise InputError(f"crop is a share in (0, 1], not {self.crop}.")


def load(item: Any, geometry: Geometry) -> Pixels:
    """One item, decoded and resized: uint8 ``(size, size, channels)``."""
    target = round(geometry.size / geometry.crop)
    pixels = decode(item, channels=geometry.channels, smallest=target)
    return resize_pixels(pixels, geometry)


@dataclass(frozen=True)
class Loaded:
    """Many pictures, decoded and resized.

    Attributes:
        pixels: uint8 ``(readable, channels, size, size)``, in the order of the items.
        unreadable: Places of the items that are not among them.
    """

    pixels: Tensor
    unreadable: tuple[int, ...] = ()


def load_all(
    items: Sequence[Any],
    geometry: Geometry,
    *,
    threads: int | None = None,
    title: str | None = None,
) -> Tensor:
    """Many items, decoded in threads: uint8 ``(n, channels, size, size)``.

    Args:
        items: What `decode` takes.
        geometry: What they are brought to.
        threads: How many decode at once; by default one a core.
        title: Shown beside a progress bar when there are many; None for no bar.

    Raises:
        InputError: An item cannot be read; the message says which.
    """
    return load_readable(items, geometry, threads=threads, title=title, skip=False).pixels


def load_readable(
    items: Sequence[Any],
    geometry: Geometry,
    *,
    threads: int | None = None,
    title: str | None = None,
    places: Sequence[int] | None = None,
    skip: bool = True,
) -> Loaded:
    """Many items as `load_all` gives them; with ``skip`` without those that cannot be read.

    Args:
        items: What `decode` takes.
        geometry: What they are brought to.
        threads: How many decode at once; by default one a core.
        title: Shown beside a progress bar when there are many; None for no bar.
        places: Which of the items; by default all.
        skip: Leave out what cannot be read.

    Raises:
        InputError: An item cannot be read, and ``skip`` is off; the message says which.
    """
    size = geometry.size
    places = range(len(items)) if places is None else places
    out = np.empty((len(places), geometry.channels, size, size), dtype=np.uint8)

    def fill(row: int) -> bool:
        place = places[row]
        try:
            out[row] = load(items[place], geometry).transpose(2, 0, 1)
        except FlambeauError as error:
            if skip and isinstance(error, InputError):
                return False
            raise type(error)(f"Item {place} of {len(items)}: {error}") from error
        return True

    # Pillow decodes and resizes without the interpreter lock, so threads suffice.
    threads = usable_cores() if threads is None else threads
    if threads <= 1 or len(places) < 4:
        read = [fill(row) for row in range(len(places))]
    else:
        with ThreadPoolExecutor(threads) as pool:
            done = pool.map(fill, range(len(places)))
            try:
                read = list(shown(done, len(places), title))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    if all(read):
        return Loaded(torch.from_numpy(out))
    unreadable = tuple(place for place, one in zip(places, read, strict=True) if not one)
    return Loaded(torch.from_numpy(out[np.array(read)]), unreadable)


def shown(done: Any, total: int, title: str | None) -> Any:
    """``done`` itself, with a progress bar where it is long."""
    if title is None or total < PROGRESS_FROM:
        return done
    from tqdm.auto import tqdm

    # delay: nothing is shown for what is over at once; mininterval keeps plain logs short.
    return tqdm(done, total=total, desc=title, unit="image", delay=1.0, mininterval=0.5)


def resize_pixels(pixels: Pixels, geometry: Geometry) -> Pixels:
    """uint8 ``(height, width, channels)`` to ``(size, size, channels)``."""
    height, width, channels = pixels.shape
    size = geometry.size
    if (height, width) == (size, size) and geometry.crop == 1.0:
        return pixels
    if channels not in (1, 3):  # Pillow has no such pictures: channel by channel
        planes = [resize_pixels(pixels[:, :, i : i + 1], geometry) for i in range(channels)]
        return np.concatenate(planes, axis=2)
    if geometry.resize == "squash":
        return _resampled(pixels, size, size, geometry)
    if geometry.resize == "pad":
        scale = size / max(height, width)
        inner = _resampled(
            pixels, max(1, round(height * scale)), max(1, round(width * scale)), geometry
        )
        out = np.zeros((size, size, channels), dtype=np.uint8)
        top, left = (size - inner.shape[0]) // 2, (size - inner.shape[1]) // 2
        out[top : top + inner.shape[0], left : left + inner.shape[1]] = inner
        return out
    # torchvision's Resize and CenterCrop, rounding included, so that published weights see what
    # they were measured with.
    short = round(size / geometry.crop)
    long = int(short * max(height, width) / min(height, width))
    tall = (long, short) if height > width else (short, long)
    resized = _resampled(pixels, *tall, geometry)
    top, left = (int(round((side - size) / 2.0)) for side in tall)  # noqa: RUF046
    return resized[top : top + size, left : left + size]


def _resampled(pixels: Pixels, height: int, width: int, geometry: Geometry) -> Pixels:
    from PIL import Image

    if pixels.shape[:2] == (height, width):
        return pixels
    grey = pixels.shape[2] == 1
    image = Image.fromarray(pixels[:, :, 0] if grey else pixels)
    method = Image.Resampling[geometry.interpolation.upper()]
    gap = None if geometry.interpolation == "nearest" else REDUCING_GAP
    resized = np.asarray(image.resize((width, height), method, reducing_gap=gap))
    return resized[:, :, None] if grey else resized
