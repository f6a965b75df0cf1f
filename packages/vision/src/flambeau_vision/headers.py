"""Read image headers (size, mode, format) and detect incomplete files."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from flambeau.data.samples import Problem
from flambeau.device import usable_cores
from flambeau.errors import InputError
from flambeau_vision.decode import as_array, check_decodes, decode, floats_as_array, used_bits
from flambeau_vision.float_scale import FloatRange, float_range
from flambeau_vision.load_images import with_progress
from flambeau_vision.open_image import (
    HIGH_BIT_DEPTH_MODES,
    exif_orientation,
    file_content,
    is_file,
    item_name,
    loaded,
    register_plugins,
)
from flambeau_vision.sixteen_bit_colour import is_sixteen_bit_colour

# The last bytes of a complete file; a file that ends otherwise is decoded to check it.
_END_MARKERS = {"JPEG": (b"\xff\xd9", 2), "PNG": (b"IEND", 8)}
_TIFF_WIDTH, _TIFF_HEIGHT = 256, 257
# Reading a header takes 0.03 ms from the page cache; threads speed up reading from a slow disk.
_THREADS_FROM = 64
# Data sets up to this size are decoded when they are found. Reading through JPEGs takes about 10 ns
# a byte on one core (measured: 1,000 photographs of 500×375 in 120 MB 1.1 s, 1,000 of 12 megapixels
# in 2 GB 21 s), so this takes at most 5 s, less with more cores.
VERIFY_UP_TO_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """The header of an image: what is known before it is decoded.

    Attributes:
        width: Pixels, after the EXIF orientation is applied.
        height: Pixels, after the EXIF orientation is applied.
        mode: Pillow's colour mode.
        format: "JPEG", "PNG", …; "" for items that are not files.
        animated: Whether the file has more than one frame or page; the first is used.
        bits: Number of bits of the largest pixel of a 16-bit image, at least 8; None for other
            images.
        floats: The range of an array of floats; None for other images.
    """

    width: int
    height: int
    mode: str
    format: str = ""
    animated: bool = False
    bits: int | None = None
    floats: FloatRange | None = None


def is_fast_to_verify(items: Sequence[Any]) -> bool:
    """Return whether the files among ``items`` are small enough to decode all of them at once."""
    total = 0
    for item in items:
        if isinstance(item, str | os.PathLike):
            with suppress(OSError):  # read_headers reports missing files
                total += os.stat(item).st_size
    return total <= VERIFY_UP_TO_BYTES


def read_headers(items: Sequence[Any], *, verify: bool = False) -> list[ImageHeader | Problem]:
    """Return the header of every item, or why it cannot be read, in the order of the items.

    A file that lacks the end marker of its format is decoded, so that truncated files are found
    here and not during training.

    Args:
        items: Whatever `flambeau_vision.decode.decode` accepts.
        verify: Decode every file, which also finds damage in the middle.
    """

    def read(item: Any) -> ImageHeader | Problem:
        try:
            header = _read_header(item)
            is_path = isinstance(item, str | os.PathLike)
            if is_path and (verify or header.bits or header.mode in HIGH_BIT_DEPTH_MODES):
                header = _with_bits(header, check_decodes(item))
            return header
        except InputError as error:
            return Problem(item_name(item), str(error))

    return _map_in_threads(read, items)


def _map_in_threads(
    read: Callable[[Any], ImageHeader | Problem], items: Sequence[Any]
) -> list[Any]:
    if len(items) < _THREADS_FROM:
        return [read(item) for item in items]
    with ThreadPoolExecutor(2 * usable_cores()) as pool:
        return list(with_progress(pool.map(read, items), len(items), "checking images"))


def _read_header(item: Any) -> ImageHeader:
    from PIL import Image

    if hasattr(item, "load_image"):
        return _read_header(loaded(item))
    if isinstance(item, str | os.PathLike):
        path = Path(item)
        register_plugins(path)
        try:
            if path.stat().st_size == 0:
                check_decodes(path)  # raises with the message of the decoder
            with Image.open(path) as image:
                header = _image_header(image)
            complete = _has_end_marker(path, header.format)
        except Exception:  # noqa: BLE001 check_decodes below raises an error that explains it
            complete = False
        if not complete:
            check_decodes(path)
            with Image.open(path) as image:
                return _image_header(image)
        return header
    if is_file(item):
        item = file_content(item)
    if isinstance(item, bytes | bytearray | memoryview):
        bits = check_decodes(item)
        with Image.open(io.BytesIO(item)) as image:
            return _with_bits(_image_header(image), bits)
    if hasattr(item, "getbands"):
        item = floats_as_array(item)
        if not isinstance(item, np.ndarray):
            return _with_bits(_image_header(item), used_bits(item))
    height, width, channels = decode(item, white=255).shape  # the range is checked with all images
    mode = {1: "L", 3: "RGB"}.get(channels, f"{channels} channels")
    array = as_array(item)
    is_deep = array.dtype == np.uint16
    bits = used_bits(array) if is_deep else None
    return ImageHeader(width, height, mode, bits=bits, floats=float_range(array))


def _with_bits(header: ImageHeader, bits: int) -> ImageHeader:
    return replace(header, bits=None if header.bits is None else bits)


def _image_header(image: Any) -> ImageHeader:
    # Before the orientation is read, for which Pillow loads a PNG.
    is_deep = image.mode.startswith("I;16") or is_sixteen_bit_colour(image)
    width, height = image.size
    if exif_orientation(image) >= 5:
        if tags := getattr(image, "tag_v2", None):  # a TIFF; Pillow may have swapped its size
            width, height = tags[_TIFF_WIDTH], tags[_TIFF_HEIGHT]
        width, height = height, width
    is_animated = bool(getattr(image, "is_animated", False))
    bits = 16 if is_deep else None
    return ImageHeader(width, height, image.mode, image.format or "", is_animated, bits)


def _has_end_marker(path: Path, format_: str) -> bool:
    """Return whether the file has a complete end; False if only decoding can show it."""
    if format_ not in _END_MARKERS:
        return False
    marker, within = _END_MARKERS[format_]
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, within), os.SEEK_END)
        return marker in file.read()
