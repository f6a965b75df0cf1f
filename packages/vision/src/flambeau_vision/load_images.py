"""Decode and resize many images in threads into one uint8 tensor."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from flambeau.device import usable_cores
from flambeau.errors import FlambeauError, InputError
from flambeau.progress import progress
from flambeau_vision.decode import Pixels, decode
from flambeau_vision.resize import Geometry, resize_pixels

T = TypeVar("T")

# From this many images on a progress bar may be shown; fewer are decoded before one would appear.
PROGRESS_FROM = 100


def load_image(item: Any, geometry: Geometry) -> Pixels:
    """Return one item, decoded and resized: uint8 ``(height, width, channels)``."""
    side = round(max(geometry.height, geometry.width) / geometry.crop)
    pixels = decode(
        item,
        channels=geometry.channels,
        target_side=side,
        bits=geometry.bits,
        white=geometry.white,
    )
    return resize_pixels(pixels, geometry)


@dataclass(frozen=True)
class LoadedImages:
    """Many images, decoded and resized.

    Attributes:
        pixels: uint8 ``(readable, channels, height, width)``, in the order of the items.
        unreadable: Indices of the items that could not be read.
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
    """Return all images, decoded in threads: uint8 ``(n, channels, height, width)``.

    Args:
        items: Whatever `decode` accepts.
        geometry: Size, channels and resize method of the result.
        threads: Number of decoding threads; by default one per core.
        title: Label of the progress bar if there are many items; None shows no bar.

    Raises:
        InputError: An item cannot be read; the message names it.
    """
    return load_readable(items, geometry, threads=threads, title=title, skip=False).pixels


def load_readable(
    items: Sequence[Any],
    geometry: Geometry,
    *,
    threads: int | None = None,
    title: str | None = None,
    indices: Sequence[int] | None = None,
    skip: bool = True,
) -> LoadedImages:
    """Return the images as `load_all` does; with ``skip``, unreadable images are left out.

    Args:
        items: Whatever `decode` accepts.
        geometry: Size, channels and resize method of the result.
        threads: Number of decoding threads; by default one per core.
        title: Label of the progress bar if there are many items; None shows no bar.
        indices: Positions of the items to load; by default all.
        skip: Skip items that cannot be read.

    Raises:
        InputError: An item cannot be read, and ``skip`` is False; the message names it.
    """
    indices = range(len(items)) if indices is None else indices
    out = np.empty((len(indices), *geometry.shape), dtype=np.uint8)

    def fill(row: int) -> bool:
        index = indices[row]
        try:
            out[row] = load_image(items[index], geometry).transpose(2, 0, 1)
        except FlambeauError as error:
            if skip and isinstance(error, InputError):
                return False
            raise type(error)(f"Item {index} of {len(items)}: {error}") from error
        return True

    # Pillow decodes and resizes without holding the global interpreter lock, so threads suffice.
    threads = usable_cores() if threads is None else threads
    if threads <= 1 or len(indices) < 4:
        readable = [fill(row) for row in range(len(indices))]
    else:
        with ThreadPoolExecutor(threads) as pool:
            results = pool.map(fill, range(len(indices)))
            try:
                readable = list(with_progress(results, len(indices), title))
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
    if all(readable):
        return LoadedImages(torch.from_numpy(out))
    unreadable = tuple(index for index, ok in zip(indices, readable, strict=True) if not ok)
    return LoadedImages(torch.from_numpy(out[np.array(readable)]), unreadable)


def with_progress(results: Iterable[T], total: int, title: str | None) -> Iterable[T]:
    """Return ``results``, with a progress bar while they are read if there are many."""
    return results if title is None or total < PROGRESS_FROM else _counted(results, total, title)


def _counted(results: Iterable[T], total: int, title: str) -> Iterator[T]:
    with progress(total, title, "image") as done:
        for result in results:
            yield result
            done(1)
