"""Keep decoded images in a memory-mapped file that all processes of a machine share."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from hashlib import blake2b
from typing import Any

from flambeau.data.mapped_store import MappedStore
from flambeau_vision.decode import array_pixels
from flambeau_vision.load_images import LoadedImages, load_readable, with_progress
from flambeau_vision.open_image import DRAFT_FACTOR, exif_orientation, load_opened, loaded
from flambeau_vision.resize import REDUCING_GAP, Geometry

# Increase it when decoding or resizing changes the pixels, so that older files are not used.
_FORMAT = 2
# Decoded at once and then written: keeps all cores busy and needs little memory.
_CHUNK_BYTES = 64_000_000
_ADVICE = (
    " Choose a folder on a larger disk with ImageOptions(cache_folder=…) or FLAMBEAU_CACHE, or "
    'read the files every epoch: choices={"cache": "files"}.'
)


def available_cache_bytes(folder: str | os.PathLike[str] | None = None) -> int:
    """Return how many bytes one cache in ``folder`` may have if older caches are removed."""
    return image_caches(folder).available_bytes()


def image_caches(folder: str | os.PathLike[str] | None = None) -> MappedStore:
    """Return the store of decoded images in ``folder``; by default in `default_folder`."""
    return MappedStore("images", folder, advice=_ADVICE)


def load_cached(
    items: Sequence[Any],
    geometry: Geometry,
    *,
    folder: str | os.PathLike[str] | None = None,
    skip: bool = False,
    title: str | None = None,
) -> LoadedImages:
    """Return the images of ``items`` from a cache file, which is written if it does not exist.

    The file is memory-mapped and shared by all processes; see `MappedStore`. Its key is a hash of
    the items' paths, sizes and modification times, the geometry and the decoder's version.

    Args:
        items: Whatever `flambeau_vision.decode.decode` accepts.
        geometry: Size, channels and resize method of the images.
        folder: The cache folder; by default `default_folder`.
        skip: Skip items that cannot be read.
        title: Label of the progress bar while the file is written.

    Raises:
        InputError: An item cannot be read, and ``skip`` is False.
        StorageError: There is too little disk space, or the folder cannot be written.
    """
    shape = geometry.shape
    step = max(1, _CHUNK_BYTES // math.prod(shape))
    unreadable: list[int] = []

    def write_chunks(file: Any) -> Iterator[int]:
        for first in range(0, len(items), step):
            indices = range(first, min(first + step, len(items)))
            loaded = load_readable(items, geometry, indices=indices, skip=skip)
            unreadable.extend(loaded.unreadable)
            file.write(loaded.pixels.numpy().data)
            yield from indices

    def write(file: Any) -> Mapping[str, Any]:
        for _ in with_progress(write_chunks(file), len(items), title):
            pass
        return {"unreadable": unreadable}

    found = image_caches(folder).load(
        _cache_key(items, geometry),
        shape,
        write,
        most_rows=len(items),
        accepts=lambda details: skip or not details["unreadable"],
    )
    return LoadedImages(found.values, tuple(map(int, found.details["unreadable"])))


def _cache_key(items: Sequence[Any], geometry: Geometry) -> str:
    from PIL import __version__, features

    versions = (_FORMAT, __version__, features.version("jpg"), DRAFT_FACTOR, REDUCING_GAP)
    digest = blake2b(json.dumps([versions, asdict(geometry)]).encode(), digest_size=16)
    for item in items:
        digest.update(_item_key(item, geometry.channels))
    return digest.hexdigest()


def _item_key(item: Any, channels: int) -> bytes:
    """Return bytes that identify an item, without decoding a file."""
    item = loaded(item)
    if isinstance(item, str | os.PathLike):
        path = os.path.abspath(item)
        with suppress(OSError):
            state = os.stat(path)
            return f"{path}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(
                errors="surrogateescape"
            )
        return f"{path}\0missing\0".encode(errors="surrogateescape")
    if not isinstance(item, bytes | bytearray | memoryview):
        item = _content(item, channels)
    return blake2b(item, digest_size=16).digest()


def _content(item: Any, channels: int) -> bytes:
    if hasattr(item, "getbands"):
        load_opened(item)
        about = (item.mode, item.size, item.getpalette(), item.info.get("transparency"))
        return repr((*about, exif_orientation(item))).encode() + item.tobytes()
    pixels = array_pixels(item, channels)
    return repr(pixels.shape).encode() + pixels.tobytes()
