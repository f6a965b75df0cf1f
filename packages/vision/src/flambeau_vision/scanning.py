"""What each picture's header says, and whether its file is whole."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flambeau.data.samples import Problem
from flambeau.device import usable_cores
from flambeau.errors import InputError
from flambeau_vision.decode import check_loads, decode
from flambeau_vision.opening import WIDE_MODES, describe, orientation
from flambeau_vision.resize import shown

# The last bytes of a whole file; one that ends otherwise is decoded to see whether it is whole.
_TAILS = {"JPEG": (b"\xff\xd9", 2), "PNG": (b"IEND", 8)}
# A header takes 0.03 ms from a warm disk; threads pay where files come from a slow one.
_THREADS_FROM = 64
# Sets up to this size are decoded when they are found. Reading through JPEGs takes about 10 ns a
# byte of one core (measured: 1,000 photographs of 500×375 in 120 MB 1.1 s, 1,000 of 12 megapixels
# in 2 GB 21 s), so this is at most 5 s, less with more cores.
VERIFY_UP_TO_BYTES = 500_000_000


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its picture before it is decoded.

    Attributes:
        width: Pixels, once it stands upright.
        height: Pixels, once it stands upright.
        mode: Pillow's colour mode.
        format: "JPEG", "PNG", …; "" where it is no file.
        animated: More than one frame or page; the first is used.
    """

    width: int
    height: int
    mode: str
    format: str = ""
    animated: bool = False


def is_quickly_verified(items: Sequence[Any]) -> bool:
    """Whether the files among ``items`` are small enough to decode all of them at once."""
    total = 0
    for item in items:
        if isinstance(item, str | os.PathLike):
            with suppress(OSError):  # what is missing is told by the scan
                total += os.stat(item).st_size
    return total <= VERIFY_UP_TO_BYTES


def scan(items: Sequence[Any], *, verify: bool = False) -> list[Header | Problem]:
    """The header of every item, or why it cannot be read, in their order.

    A file that does not end as its format asks is decoded, so that half files are found here and
    not in the middle of training.

    Args:
        items: What `flambeau_vision.decode.decode` takes.
        verify: Decode every file, which finds damage in the middle too.
    """

    def examine(item: Any) -> Header | Problem:
        try:
            header = _header(item)
            if isinstance(item, str | os.PathLike) and (verify or header.mode in WIDE_MODES):
                check_loads(item)
            return header
        except InputError as error:
            return Problem(describe(item), str(error))

    return _in_threads(examine, items)


def _in_threads(examine: Callable[[Any], Header | Problem], items: Sequence[Any]) -> list[Any]:
    if len(items) < _THREADS_FROM:
        return [examine(item) for item in items]
    with ThreadPoolExecutor(2 * usable_cores()) as pool:
        return list(shown(pool.map(examine, items), len(items), "checking pictures"))


def _header(item: Any) -> Header:
    from PIL import Image

    if isinstance(item, str | os.PathLike):
        path = Path(item)
        try:
            if path.stat().st_size == 0:
                check_loads(path)  # raises, in the words that decoding uses
            with Image.open(path) as image:
                header = _of_image(image)
            whole = _ends_well(path, header.format)
        except Exception:  # noqa: BLE001 whatever it is, decoding finds the words for it
            whole = False
        if not whole:
            check_loads(path)
            with Image.open(path) as image:
                return _of_image(image)
        return header
    if isinstance(item, bytes | bytearray | memoryview):
        check_loads(item)
        with Image.open(io.BytesIO(item)) as image:
            return _of_image(image)
    if hasattr(item, "getbands"):
        return _of_image(item)
    height, width, channels = decode(item).shape
    return Header(width, height, {1: "L", 3: "RGB"}.get(channels, f"{channels} channels"))


def _of_image(image: Any) -> Header:
    width, height = image.size
    if orientation(image) >= 5:
        width, height = height, width
    return Header(
        width, height, image.mode, image.format or "", bool(getattr(image, "is_animated", False))
    )


def _ends_well(path: Path, format_: str) -> bool:
    """Whether the file's end is that of a whole one; False where only decoding can tell."""
    if format_ not in _TAILS:
        return False
    mark, within = _TAILS[format_]
    with path.open("rb") as file:
        file.seek(-min(path.stat().st_size, within), os.SEEK_END)
        return mark in file.read()
