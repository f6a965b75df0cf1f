"""Decoded pictures in a memory-mapped file, shared by all processes of a machine."""

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

from flambeau.artefact.atomic import atomic_folder, explained, remove_folder
from flambeau.cache_folder import default_folder
from flambeau.errors import StorageError
from flambeau_vision.decode import array_pixels
from flambeau_vision.opening import DRAFT_FACTOR, orientation
from flambeau_vision.resize import REDUCING_GAP, Geometry, Loaded, load_readable, shown

# To be raised when decoding or resizing gives other pixels, so that no older file is used.
_FORMAT = 1
# Of what is free on the disk (and what older caches hold): the rest is for checkpoints and others.
_DISK_SHARE = 0.5
# Decoded at once and then written; keeps both cores busy and little memory taken.
_CHUNK_BYTES = 64_000_000
_PIXELS, _RECORD = "pixels.bin", "cache.json"


def room_bytes(folder: str | os.PathLike[str] | None = None) -> int:
    """How large one cache in ``folder`` may be; older ones there make way for it."""
    place = _pictures_folder(folder)
    held = sum(size for _, size, _ in _entries(place))
    for existing in (place, *place.parents):
        with suppress(OSError):
            return int(_DISK_SHARE * (shutil.disk_usage(existing).free + held))
    return 0


def cached(
    items: Sequence[Any],
    geometry: Geometry,
    *,
    folder: str | os.PathLike[str] | None = None,
    skip: bool = False,
    title: str | None = None,
) -> Loaded:
    """The pictures of ``items`` from a file on disk, which is made where there is none.

    The file is mapped, so that processes share one copy in memory, and what is written into the
    tensor stays in this process. It is found again by the paths, sizes and times of the items, the
    geometry and the decoder's version. It is complete or not there: written beside its place,
    flushed and renamed; of several processes one makes it and the others wait.

    Args:
        items: What `flambeau_vision.decode.decode` takes.
        geometry: What they are brought to.
        folder: Where caches lie; by default `default_folder`.
        skip: Leave out what cannot be read.
        title: Shown beside a progress bar while the file is made.

    Raises:
        InputError: An item cannot be read, and ``skip`` is off.
        StorageError: There is not enough room, or the folder cannot be written.
    """
    place = _pictures_folder(folder)
    entry = place / _key(items, geometry)
    found = _opened(entry, geometry, skip)
    if found is not None:
        return found
    with explained(entry):
        place.mkdir(parents=True, exist_ok=True)
    with _alone(place / f"{entry.name}.lock"):
        found = _opened(entry, geometry, skip)  # another process was first
        if found is None:
            _make_room(place, len(items) * _picture_bytes(geometry))
            _write(entry, items, geometry, skip, title)
            found = _opened(entry, geometry, skip)
    if found is None:
        raise StorageError(
            f"{entry} was written, and cannot be read back. Look after the disk, or use "
            'choices={"cache": "files"}.'
        )
    return found


# ---------------------------------------------------------------- one file


def _write(
    entry: Path, items: Sequence[Any], geometry: Geometry, skip: bool, title: str | None
) -> None:
    step = max(1, _CHUNK_BYTES // _picture_bytes(geometry))
    unreadable: list[int] = []

    def written(file: Any) -> Iterator[int]:
        for first in range(0, len(items), step):
            places = range(first, min(first + step, len(items)))
            loaded = load_readable(items, geometry, places=places, skip=skip)
            unreadable.extend(loaded.unreadable)
            file.write(loaded.pixels.numpy().data)
            yield from places

    with atomic_folder(entry) as folder:
        with (folder / _PIXELS).open("wb") as file:
            for _ in shown(written(file), len(items), title):
                pass
        record = {
            "key": entry.name,
            "shape": [len(items) - len(unreadable), *_shape(geometry)],
            "unreadable": unreadable,
        }
        (folder / _RECORD).write_text(json.dumps(record), encoding="utf-8")


def _opened(entry: Path, geometry: Geometry, skip: bool) -> Loaded | None:
    """The pictures of ``entry``; None where it is missing, damaged or another's."""
    try:
        record = json.loads((entry / _RECORD).read_text(encoding="utf-8"))
        count, unreadable = int(record["shape"][0]), tuple(map(int, record["unreadable"]))
        shape = (count, *_shape(geometry))
        whole = (entry / _PIXELS).stat().st_size == count * _picture_bytes(geometry)
        if record["key"] != entry.name or tuple(record["shape"]) != shape or not whole:
            return None
        if unreadable and not skip:
            return None
        if not count:
            return Loaded(torch.empty(shape, dtype=torch.uint8), unreadable)
        # "c": pages are the disk's until they are written to, and then this process's own.
        pixels = np.memmap(entry / _PIXELS, np.uint8, "c", shape=shape)
        with suppress(OSError):
            os.utime(entry / _RECORD)  # used last, so removed last
        return Loaded(torch.from_numpy(pixels), unreadable)
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None


def _key(items: Sequence[Any], geometry: Geometry) -> str:
    from PIL import __version__, features

    versions = (_FORMAT, __version__, features.version("jpg"), DRAFT_FACTOR, REDUCING_GAP)
    digest = blake2b(json.dumps([versions, asdict(geometry)]).encode(), digest_size=16)
    for item in items:
        digest.update(_identity(item, geometry.channels))
    return digest.hexdigest()


def _identity(item: Any, channels: int) -> bytes:
    """What tells one item from another, without decoding a file."""
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
        return repr((*about, orientation(item))).encode() + item.tobytes()
    pixels = array_pixels(item, channels)
    return repr(pixels.shape).encode() + pixels.tobytes()


def _shape(geometry: Geometry) -> tuple[int, int, int]:
    return geometry.channels, geometry.size, geometry.size


def _picture_bytes(geometry: Geometry) -> int:
    return geometry.channels * geometry.size * geometry.size


# ---------------------------------------------------------------- the folder


def _pictures_folder(folder: str | os.PathLike[str] | None) -> Path:
    return Path(os.path.abspath(default_folder() if folder is None else folder)) / "pictures"


def _entries(place: Path) -> list[tuple[float, int, Path]]:
    """Each cache's last use, size and folder, the least recently used first."""
    found: list[tuple[float, int, Path]] = []
    with suppress(OSError):
        for entry in place.iterdir():
            with suppress(OSError):  # no cache, or one that is being removed
                used = (entry / _RECORD).stat().st_mtime
                found.append((used, (entry / _PIXELS).stat().st_size, entry))
    return sorted(found)


def _make_room(place: Path, wanted: int) -> None:
    """Removes the least recently used caches until ``wanted`` bytes fit into the allowed share.

    Raises:
        StorageError: They do not fit into an empty folder.
    """
    allowed = room_bytes(place.parent)
    if wanted > allowed:
        raise StorageError(
            f"The decoded pictures take {wanted / 1e9:,.2f} GB, and {place} may take "
            f"{allowed / 1e9:,.2f} GB ({_DISK_SHARE:.0%} of what is free on its disk). Name a "
            "folder on a larger disk with ImageOptions(cache_folder=…) or FLAMBEAU_CACHE, or read "
            'the files every epoch: choices={"cache": "files"}.'
        )
    held = _entries(place)
    total = sum(size for _, size, _ in held)
    for _, size, entry in held:
        if total + wanted <= allowed:
            return
        remove_folder(entry)  # who has it mapped keeps it until the end
        total -= size


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process of the machine at a time; the lock ends with the process, however it ends."""
    try:
        import fcntl
    except ImportError:  # Windows: two processes then make the same file, and the last one stays
        yield
        return
    while True:
        with explained(path):
            file = path.open("wb")
        with file:
            with suppress(OSError):  # a file system without locks: as above
                fcntl.flock(file, fcntl.LOCK_EX)
            if not _is_still(path, file.fileno()):
                continue  # whoever had the lock removed the file
            try:
                yield
            finally:
                path.unlink(missing_ok=True)
            return


def _is_still(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except OSError:
        return False
