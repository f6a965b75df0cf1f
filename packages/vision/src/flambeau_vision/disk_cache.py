"""Decoded images in a memory-mapped file, shared by all processes of a machine."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flambeau.artefact.atomic_write import atomic_folder, remove_folder, storage_errors
from flambeau.cache_folder import default_folder
from flambeau.errors import StorageError
from flambeau.wording import format_bytes
from flambeau_vision.decode import array_pixels
from flambeau_vision.load_images import LoadedImages, load_readable, with_progress
from flambeau_vision.open_image import DRAFT_FACTOR, exif_orientation
from flambeau_vision.resize import REDUCING_GAP, Geometry

# Increase it when decoding or resizing changes the pixels, so that older files are not used.
_FORMAT = 1
# Share of the free disk space (plus that of older caches): the rest is for checkpoints and others.
_DISK_SHARE = 0.5
# Decoded at once and then written: keeps all cores busy and needs little memory.
_CHUNK_BYTES = 64_000_000
_PIXELS, _RECORD = "pixels.bin", "cache.json"


def available_cache_bytes(folder: str | os.PathLike[str] | None = None) -> int:
    """Return the largest allowed size of one cache in ``folder``, if older ones are removed."""
    root = _images_folder(folder)
    used = sum(size for _, size, _ in _list_caches(root))
    for existing in (root, *root.parents):
        with suppress(OSError):
            return int(_DISK_SHARE * (shutil.disk_usage(existing).free + used))
    return 0


def load_cached(
    items: Sequence[Any],
    geometry: Geometry,
    *,
    folder: str | os.PathLike[str] | None = None,
    skip: bool = False,
    title: str | None = None,
) -> LoadedImages:
    """Return the images of ``items`` from a cache file, which is written if it does not exist.

    The file is memory-mapped copy-on-write: processes share one copy, and writing into the tensor
    does not change the file. Its key is a hash of the items' paths, sizes and modification times,
    the geometry and the decoder's version. It is written atomically (to a temporary folder, flushed
    and renamed); if several processes need it, one writes it and the others wait.

    Args:
        items: Whatever `flambeau_vision.decode.decode` accepts.
        geometry: Size, channels and resize method of the images.
        folder: The cache folder; by default `default_folder`.
        skip: Skip items that cannot be read.
        title: Label of the progress bar while the file is written.

    Raises:
        InputError: An item cannot be read, and ``skip`` is off.
        StorageError: There is too little disk space, or the folder cannot be written.
    """
    root = _images_folder(folder)
    path = root / _cache_key(items, geometry)
    loaded = _read_cache(path, geometry, skip)
    if loaded is not None:
        return loaded
    with storage_errors(path):
        root.mkdir(parents=True, exist_ok=True)
    with _exclusive_lock(root / f"{path.name}.lock"):
        loaded = _read_cache(path, geometry, skip)  # another process may have written it
        if loaded is None:
            _free_space(root, len(items) * _image_bytes(geometry))
            _write_cache(path, items, geometry, skip, title)
            loaded = _read_cache(path, geometry, skip)
    if loaded is None:
        raise StorageError(
            f"{path} was written but cannot be read back. Check the disk, or read the files every "
            'epoch: choices={"cache": "files"}.'
        )
    return loaded


# ---------------------------------------------------------------- one file


def _write_cache(
    path: Path, items: Sequence[Any], geometry: Geometry, skip: bool, title: str | None
) -> None:
    step = max(1, _CHUNK_BYTES // _image_bytes(geometry))
    unreadable: list[int] = []

    def write_chunks(file: Any) -> Iterator[int]:
        for first in range(0, len(items), step):
            indices = range(first, min(first + step, len(items)))
            loaded = load_readable(items, geometry, indices=indices, skip=skip)
            unreadable.extend(loaded.unreadable)
            file.write(loaded.pixels.numpy().data)
            yield from indices

    with atomic_folder(path) as folder:
        with (folder / _PIXELS).open("wb") as file:
            for _ in with_progress(write_chunks(file), len(items), title):
                pass
        record = {
            "key": path.name,
            "shape": [len(items) - len(unreadable), *_image_shape(geometry)],
            "unreadable": unreadable,
        }
        (folder / _RECORD).write_text(json.dumps(record), encoding="utf-8")


def _read_cache(path: Path, geometry: Geometry, skip: bool) -> LoadedImages | None:
    """Return the images of the cache; None if it is missing, damaged or has another key."""
    try:
        record = json.loads((path / _RECORD).read_text(encoding="utf-8"))
        count, unreadable = int(record["shape"][0]), tuple(map(int, record["unreadable"]))
        shape = (count, *_image_shape(geometry))
        complete = (path / _PIXELS).stat().st_size == count * _image_bytes(geometry)
        if record["key"] != path.name or tuple(record["shape"]) != shape or not complete:
            return None
        if unreadable and not skip:
            return None
        if not count:
            return LoadedImages(torch.empty(shape, dtype=torch.uint8), unreadable)
        # "c" is copy-on-write: pages are shared until they are written to.
        pixels = np.memmap(path / _PIXELS, np.uint8, "c", shape=shape)
        with suppress(OSError):
            os.utime(path / _RECORD)  # the time of last use decides which cache is removed first
        return LoadedImages(torch.from_numpy(pixels), unreadable)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _cache_key(items: Sequence[Any], geometry: Geometry) -> str:
    from PIL import __version__, features

    versions = (_FORMAT, __version__, features.version("jpg"), DRAFT_FACTOR, REDUCING_GAP)
    digest = blake2b(json.dumps([versions, asdict(geometry)]).encode(), digest_size=16)
    for item in items:
        digest.update(_item_key(item, geometry.channels))
    return digest.hexdigest()


def _item_key(item: Any, channels: int) -> bytes:
    """Return bytes that identify an item, without decoding a file."""
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
        about = (item.mode, item.size, item.getpalette(), item.info.get("transparency"))
        return repr((*about, exif_orientation(item))).encode() + item.tobytes()
    pixels = array_pixels(item, channels)
    return repr(pixels.shape).encode() + pixels.tobytes()


def _image_shape(geometry: Geometry) -> tuple[int, int, int]:
    return geometry.channels, geometry.size, geometry.size


def _image_bytes(geometry: Geometry) -> int:
    return geometry.channels * geometry.size * geometry.size


# ---------------------------------------------------------------- the folder


def _images_folder(folder: str | os.PathLike[str] | None) -> Path:
    return Path(os.path.abspath(default_folder() if folder is None else folder)) / "images"


def _list_caches(root: Path) -> list[tuple[float, int, Path]]:
    """Return the last use, size and folder of each cache, the least recently used first."""
    found: list[tuple[float, int, Path]] = []
    with suppress(OSError):
        for path in root.iterdir():
            with suppress(OSError):  # not a cache, or one that is being removed
                used = (path / _RECORD).stat().st_mtime
                found.append((used, (path / _PIXELS).stat().st_size, path))
    return sorted(found)


def _free_space(root: Path, needed: int) -> None:
    """Remove the least recently used caches until ``needed`` bytes fit into the allowed share.

    Raises:
        StorageError: They do not fit even into an empty folder.
    """
    allowed = available_cache_bytes(root.parent)
    if needed > allowed:
        raise StorageError(
            f"The decoded images need {format_bytes(needed)}, but {root} may use "
            f"{format_bytes(allowed)} ({_DISK_SHARE:.0%} of the free space on its disk). Choose a "
            "folder on a larger disk with ImageOptions(cache_folder=…) or FLAMBEAU_CACHE, or read "
            'the files every epoch: choices={"cache": "files"}.'
        )
    caches = _list_caches(root)
    total = sum(size for _, size, _ in caches)
    for _, size, path in caches:
        if total + needed <= allowed:
            return
        remove_folder(path)  # processes that have it mapped can still read it
        total -= size


@contextmanager
def _exclusive_lock(path: Path) -> Iterator[None]:
    """Lock the block for other processes of the machine; the lock also ends with the process."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes may write the same file, and the last one remains
        yield
        return
    while True:
        with storage_errors(path):
            file = path.open("wb")
        with file:
            with suppress(OSError):  # a file system without locks: as above
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_same_file(path, file.fileno()):
                continue  # the previous holder of the lock removed the file
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_same_file(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False
