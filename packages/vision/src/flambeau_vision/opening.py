"""Files of pictures to Pillow images; every way in which that fails names the file."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flambeau.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

WIDE_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of grey values with more than 8 bits."""

ORIENTATION_TAG = 0x0112
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
# A drafted JPEG keeps at least this many times the pixels that are asked for on each side; the
# final resize then hides the difference: 12 of 255 levels at most and less than 1 on average in 200
# photographs brought to 32, 48 and 64. 12 megapixels to 224 take 93 ms of a core for 242.
DRAFT_FACTOR = 3
# Names that a message gives before it only counts.
_SHOWN = 5


def describe(item: Any) -> str:
    """How messages call an item: its path, or what it is."""
    if isinstance(item, str | os.PathLike):
        return str(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return f"picture of {len(item)} bytes"
    if hasattr(item, "filename") and item.filename:
        return str(item.filename)
    if hasattr(item, "shape"):
        return f"{type(item).__name__} of shape {tuple(item.shape)}"
    return type(item).__name__


def some_names(items: Sequence[Any]) -> str:
    """The first items as messages call them, and "…" for more."""
    shown = ", ".join(map(describe, items[:_SHOWN]))
    return f"{shown}, …" if len(items) > _SHOWN else shown


@contextmanager
def opened(item: Any, smallest: int | None = None) -> Iterator[Image]:
    """A Pillow image of a path or of a file's bytes, its pixels loaded.

    Grey values of more than 8 bits fill 0..65535 where the file says what their range is.

    Args:
        item: The path or the bytes.
        smallest: The side in pixels to which the picture will be resized; see `decode`. 0 for
            pixels that nobody will look at.

    Raises:
        InputError: It cannot be read, or its pixels are floats; the message names it.
    """
    from PIL import Image

    name = describe(item)
    is_path = isinstance(item, str | os.PathLike)
    size = Path(item).stat().st_size if is_path and Path(item).is_file() else 1
    if size == 0 or (not is_path and not len(item)):
        raise InputError(f"{name} is empty (0 bytes). Fetch it again or remove it.")
    image = None
    try:
        image = Image.open(item if is_path else io.BytesIO(item))
        if smallest is not None and image.format == "JPEG":
            image.draft(None, _drafted(image.size, smallest))
        image.load()  # Image.open and even verify() accept half a file
    except BaseException as error:
        if image is not None:
            image.close()
        # Damaged bytes make Pillow's readers raise nearly anything: RuntimeError (AVIF), TypeError
        # (TIFF) and KeyError beside the OSError that is documented.
        if isinstance(error, Exception) and not isinstance(error, MemoryError):
            raise _why_unreadable(error, name) from error
        raise
    with image:
        yield _full_range(image, name)


def _drafted(size: tuple[int, int], smallest: int) -> tuple[int, int]:
    """The least size that a JPEG may be decoded at; see `decode`."""
    if smallest == 0:
        return 1, 1
    for shrink in (8, 4, 2):
        # Only whole divisors: half a pixel at the edge would move the middle that is cut out, by
        # up to a pixel of the result (135 of 255 levels off in photographs brought to 48).
        if not any(side % shrink or side // shrink < smallest * DRAFT_FACTOR for side in size):
            return size[0] // shrink, size[1] // shrink
    return size


def _why_unreadable(error: Exception, name: str) -> InputError:
    from PIL import Image

    if isinstance(error, IsADirectoryError):
        return InputError(
            f"{name} is a folder, not a picture. Name the files in it, for example {name}/*.jpg."
        )
    if isinstance(error, FileNotFoundError):
        return InputError(f"{name} does not exist. Check the path and the root folder.")
    # The warning of half that size comes here where the user made warnings errors.
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return InputError(
            f"{name} is not decoded: {error} If it is meant to be that large, raise "
            "PIL.Image.MAX_IMAGE_PIXELS or make it smaller first."
        )
    return InputError(
        f"{name} cannot be read as a picture ({str(error) or type(error).__name__}). Replace "
        'or remove it; ImageOptions(unreadable="skip", verify=True) leaves such files out.'
    )


def _full_range(image: Image, name: str) -> Image:
    """A file's picture with grey values of more than 8 bits brought to 0..65535 (mode "I;16").

    Raises:
        InputError: Its pixels are floats.
    """
    if image.mode not in WIDE_MODES:
        return image
    if image.mode == "F":  # a guess by the picture's own range would make a dark one bright
        raise InputError(
            f"{name} has float pixels (mode F), and a file does not say what their range is. "
            "Convert the set to uint8 or uint16 first, with one factor for all of it, for example "
            "(values / values_max * 65535).astype('uint16')."
        )
    if image.mode == "I":
        # Pillow scales such a PGM to 65535; a TIFF of 32 bits has no range that is known.
        return _sixteen_bits(np.array(image), image) if image.format == "PPM" else image
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_TIFF_BITS, (16,))[0]
    white_is_zero = tags.get(_TIFF_PHOTOMETRIC) == 0  # Pillow inverts 8 bits, and not 16
    if bits == 16 and not white_is_zero:
        return image
    values = np.array(image).astype(np.uint32)
    values = (values * 65535 + (1 << (bits - 1))) // ((1 << bits) - 1)
    return _sixteen_bits(65535 - values if white_is_zero else values, image)


def _sixteen_bits(values: NDArray[Any], image: Image) -> Image:
    from PIL import Image as pillow  # noqa: N813

    converted = pillow.fromarray(values.astype(np.uint16))
    converted.getexif()[ORIENTATION_TAG] = orientation(image)
    return converted


def orientation(image: Image) -> int:
    """The EXIF orientation 1..8; 1 where there is none or the EXIF data are damaged."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 damaged EXIF data make Pillow raise nearly anything
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
