"""Open image files with Pillow; every failure raises an error that names the file."""

from __future__ import annotations

import io
import os
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_vision.sixteen_bit_colour import is_sixteen_bit_colour, keep_lower_bytes

if TYPE_CHECKING:
    from PIL.Image import Image

HIGH_BIT_DEPTH_MODES = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")
"""Pillow's modes of grey values with more than 8 bits."""

HEIF_EXTENSIONS = (".heic", ".heif")
"""Extensions of images that need the package pillow-heif."""

ORIENTATION_TAG = 0x0112
_TIFF_BITS, _TIFF_PHOTOMETRIC = 258, 262
# A JPEG decoded at reduced size keeps at least this many times the requested pixels on each side;
# the final resize then hides the difference: 12 of 255 levels at most and less than 1 on average in
# 200 photographs resized to 32, 48 and 64. Decoding 12 megapixels for a side of 224 takes 93 ms of
# one core instead of 242 ms.
DRAFT_FACTOR = 3


def item_name(item: Any) -> str:
    """Return how messages name an item: its path, or its type and size."""
    if isinstance(item, str | os.PathLike):
        return str(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return f"image of {len(item)} bytes"
    if is_file(item):
        return str(getattr(item, "name", None) or type(item).__name__)
    if hasattr(item, "filename") and item.filename:
        return str(item.filename)
    if hasattr(item, "shape"):
        return f"{type(item).__name__} of shape {tuple(item.shape)}"
    return type(item).__name__


def loaded(item: Any) -> Any:
    """Return the image if ``item`` reads one from a data set; else return ``item`` unchanged."""
    return item.load_image() if hasattr(item, "load_image") else item


def is_file(item: Any) -> bool:
    """Return whether an item is an open file, or a buffer such as ``io.BytesIO``."""
    return hasattr(item, "read") and not hasattr(item, "getbands")


def file_content(item: Any) -> bytes:
    """Return all bytes of an open file, from its start if the file can be rewound.

    Raises:
        InputError: The file is closed, or open as text.
    """
    name = item_name(item)
    try:
        if item.seekable():
            item.seek(0)
        content = item.read()
    except (ValueError, OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{name} cannot be read ({error}). Open it with open(path, 'rb')."
        ) from error
    if not isinstance(content, bytes):
        raise InputError(f"{name} is open as text. Open it with open(path, 'rb').")
    return content


def name_items(items: Sequence[Any]) -> str:
    """Return the names of the first items and how many more there are."""
    return name_some([item_name(item) for item in items])


@contextmanager
def open_image(item: Any, target_side: int | None = None) -> Iterator[Image]:
    """Open a file, or the bytes of a file, as a Pillow image with its pixels loaded.

    Grey values of more than 8 bits are scaled to 0..65535 if the file declares their range.

    Args:
        item: The path, the bytes, or an open file.
        target_side: The side in pixels to which the image will be resized; see `decode`. 0 if the
            pixels are discarded.

    Raises:
        InputError: The file cannot be read, or its pixels are floats; the message names the file.
    """
    from PIL import Image

    name = item_name(item)
    is_path = isinstance(item, str | os.PathLike)
    item = file_content(item) if is_file(item) else item
    size = Path(item).stat().st_size if is_path and Path(item).is_file() else 1
    if size == 0 or (not is_path and not len(item)):
        raise InputError(f"{name} is empty (0 bytes). Replace or remove it.")
    image = None
    if is_path:
        register_plugins(item)
    try:
        image = Image.open(item if is_path else io.BytesIO(item))
        if target_side is not None and image.format == "JPEG":
            image.draft(None, _draft_size(image.size, target_side))
        if is_sixteen_bit_colour(image):
            with Image.open(item if is_path else io.BytesIO(item)) as again:
                keep_lower_bytes(image, again)
        image.load()  # Image.open and even verify() accept a truncated file
    except BaseException as error:
        if image is not None:
            image.close()
        # On damaged bytes Pillow's decoders raise nearly any exception: RuntimeError (AVIF),
        # TypeError (TIFF) and KeyError in addition to the documented OSError.
        if isinstance(error, Exception) and not isinstance(error, MemoryError):
            raise _read_error(error, name) from error
        raise
    with image:
        yield _scale_high_bit_depth(image, name)


def load_opened(image: Image) -> None:
    """Load the pixels of an image that the user opened; Pillow turns a TIFF upright with that.

    Raises:
        InputError: Its file is truncated or closed; the message names it.
    """
    try:
        image.load()
    except Exception as error:
        if isinstance(error, MemoryError):
            raise
        raise _read_error(error, item_name(image)) from error


def _draft_size(size: tuple[int, int], target_side: int) -> tuple[int, int]:
    """Return the smallest size at which a JPEG may be decoded; see `decode`."""
    if target_side == 0:
        return 1, 1
    for divisor in (8, 4, 2):
        # Only exact divisors: half a pixel at the edge would shift the centre crop by up to one
        # pixel of the result (up to 135 of 255 levels in photographs resized to 48).
        if not any(side % divisor or side // divisor < target_side * DRAFT_FACTOR for side in size):
            return size[0] // divisor, size[1] // divisor
    return size


def _missing_hint(name: str) -> str:
    """Return the advice for a file that does not exist."""
    if os.sep == "/" and "\\" in name:
        return (
            'The path has backslashes, which are not separators on this system. Write "/": '
            'frame["file"].str.replace("\\\\", "/").'
        )
    path = Path(name)
    cases = (path.name.lower(), path.name.upper())
    cases += (path.stem + path.suffix.lower(), path.stem + path.suffix.upper())
    for other in cases:
        if path.with_name(other).exists():
            return f"{other} exists: the names differ in upper and lower case."
    for form in ("NFC", "NFD"):
        if os.path.exists(other := unicodedata.normalize(form, name)) and other != name:
            return (
                f"A file whose name has the same letters in the Unicode form {form} exists: "
                f'convert the paths with unicodedata.normalize("{form}", path).'
            )
    hint = (
        "Check the path; relative paths of a table start from its root folder (root=…, on the "
        "command line --root)."
    )
    if path.suffix:
        return hint
    return (
        f"{hint} If the table has ids instead of file names, pass suffix='.jpg', on the command "
        "line --suffix .jpg."
    )


def register_plugins(path: object) -> None:
    """Register the plugin for HEIF images if it is installed and ``path`` is a HEIF image."""
    is_heif = Path(str(path)).suffix.lower() in HEIF_EXTENSIONS
    if is_heif and find_spec("pillow_heif") is not None:
        import_module("pillow_heif").register_heif_opener()


def _read_error(error: Exception, name: str) -> InputError:
    from PIL import Image

    if isinstance(error, IsADirectoryError):
        return InputError(
            f"{name} is a folder, not an image. Pass the files in it, for example {name}/*.jpg."
        )
    if isinstance(error, FileNotFoundError):
        return InputError(f"{name} does not exist. {_missing_hint(name)}")
    if Path(name).suffix.lower() in HEIF_EXTENSIONS and find_spec("pillow_heif") is None:
        return InputError(
            f"{name} is a HEIF image, which Pillow reads only with a plugin: pip install "
            "pillow-heif. Or convert it to JPEG."
        )
    # Pillow warns at half the limit; the warning arrives here if the user turned it into an error.
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return InputError(
            f"{name} is not decoded: {error} If the size is intended, raise "
            "PIL.Image.MAX_IMAGE_PIXELS or downscale the file first."
        )
    return InputError(
        f"{name} cannot be read as an image ({str(error) or type(error).__name__}). Replace "
        "or remove it."
    )


def _scale_high_bit_depth(image: Image, name: str) -> Image:
    """Return ``image``; grey values of more than 8 bits are scaled to 0..65535 ("I;16").

    Raises:
        InputError: The pixels are floats, and the file does not declare their range.
    """
    if image.mode not in HIGH_BIT_DEPTH_MODES:
        return image
    if image.mode == "F":  # scaling each image by its own range would brighten a dark one
        raise InputError(
            f"{name} has float pixels (mode F), and the file does not declare their range. "
            "Convert the data set to uint8 or uint16 first, with one factor for all images, for "
            "example (values / values_max * 65535).astype('uint16')."
        )
    if image.mode == "I":
        # Pillow scales such a PGM to 65535; the range of a 32-bit TIFF is unknown.
        return _to_sixteen_bits(np.array(image), image) if image.format == "PPM" else image
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_TIFF_BITS, (16,))[0]
    white_is_zero = tags.get(_TIFF_PHOTOMETRIC) == 0  # Pillow inverts 8-bit images, not 16-bit ones
    if bits == 16 and not white_is_zero:
        return image
    values = np.array(image).astype(np.uint32)
    values = (values * 65535 + (1 << (bits - 1))) // ((1 << bits) - 1)
    return _to_sixteen_bits(65535 - values if white_is_zero else values, image)


def _to_sixteen_bits(values: NDArray[Any], image: Image) -> Image:
    from PIL import Image as pillow  # noqa: N813

    converted = pillow.fromarray(values.astype(np.uint16))
    converted.getexif()[ORIENTATION_TAG] = exif_orientation(image)
    return converted


def exif_orientation(image: Image) -> int:
    """Return the EXIF orientation 1..8; 1 if it is missing or the EXIF data are damaged."""
    try:
        value = image.getexif().get(ORIENTATION_TAG, 1)
    except Exception:  # noqa: BLE001 damaged EXIF data make Pillow raise nearly any exception
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1
