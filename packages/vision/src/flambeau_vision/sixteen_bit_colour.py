"""Read both bytes of colour images with 16 bits per channel; Pillow reads only the upper ones."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from PIL.Image import Image

# Pillow's names for "the upper byte of two" in files of either byte order; with the name of the
# other order it reads the lower byte.
_ORDERS = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_LOWER = "flambeau: lower bytes"  # key of ``Image.info``


def is_sixteen_bit_colour(image: Image) -> bool:
    """Return whether an opened image that is not loaded has 16 bits per colour channel."""
    return _lower_tiles(image) is not None


def keep_lower_bytes(image: Image, again: Image) -> None:
    """Keep the lower bytes of an image of 16-bit colour with the image, before it is loaded.

    Args:
        image: An opened image; nothing is kept if it has 8 bits.
        again: The same file, opened once more; it is loaded.
    """
    tiles = _lower_tiles(again)
    if tiles is not None:
        setattr(again, "tile", tiles)  # noqa: B010 not in the types of Image
        again.load()
        image.info[_LOWER] = again


def sixteen_bit_values(image: Image, upright: Any) -> NDArray[np.uint16] | None:
    """Return uint16 ``(height, width, channels)`` of a loaded image; None if it has 8 bits.

    Args:
        image: The image, for which `keep_lower_bytes` was called.
        upright: A function that returns an image in its EXIF orientation.
    """
    lower = image.info.get(_LOWER)
    if lower is None:
        return None
    upper = np.array(upright(image)).astype(np.uint16)
    return upper * np.uint16(256) + np.array(upright(lower)).astype(np.uint16)


def _lower_tiles(image: Any) -> list[Any] | None:
    """Return the parts of the file with the mode that reads the lower bytes; None for 8 bits."""
    tiles: list[Any] = []
    for tile in getattr(image, "tile", ()):
        args = tile[3]
        mode = args if isinstance(args, str) else args[0] if args else None
        if not isinstance(mode, str) or mode[:-1] not in ("RGB;16", "RGBA;16"):
            return None
        lower = mode[:-1] + _ORDERS[mode[-1]]
        tiles.append(tile._replace(args=lower if isinstance(args, str) else (lower, *args[1:])))
    return tiles or None
