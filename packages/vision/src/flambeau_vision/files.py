"""What lies in a folder of pictures, and what each file's header says."""

from __future__ import annotations

import io
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flambeau.data.samples import Problem
from flambeau.device import usable_cores
from flambeau.errors import InputError
from flambeau_vision.decode import UNREADABLE, check_loads, decode, describe, orientation

_IMAGE_TYPES = "avif bmp gif jfif jp2 jpeg jpg pbm pgm png ppm tif tiff webp"
ENDINGS = frozenset(f".{name}" for name in _IMAGE_TYPES.split(" "))
"""Endings of files that are taken for pictures, in lower case."""

PART_NAMES = {
    "train": "train",
    "training": "train",
    "valid": "valid",
    "val": "valid",
    "validation": "valid",
    "dev": "valid",
    "test": "test",
    "testing": "test",
}
"""Folder names and column values that stand for a part, in lower case."""

_CLUTTER = ("__MACOSX", "Thumbs.db", "desktop.ini")
# The last bytes of a whole file; one that ends otherwise is decoded to see whether it is whole.
_TAILS = {"JPEG": (b"\xff\xd9", 2), "PNG": (b"IEND", 8)}
# A header takes 0.1 ms to 0.2 ms from a warm disk; threads pay where files come from a slow one.
_THREADS_FROM = 64


@dataclass(frozen=True)
class Listing:
    """The pictures of a folder.

    Attributes:
        files: Paths, in the order of part, class and name.
        labels: The class of each.
        parts: "train", "valid" or "test" of each where the folders say so, else None.
        classes: Class names, sorted.
        notes: What was seen and what was left out, in words.
    """

    files: tuple[Path, ...]
    labels: tuple[str, ...]
    parts: tuple[str | None, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def list_folder(folder: str | os.PathLike[str], classes: Sequence[str] | None = None) -> Listing:
    """The pictures under ``folder``, by class and part.

    Two layouts: ``folder/class/picture``, and ``folder/train/class/picture`` with ``valid`` (or
    ``val``) and ``test`` beside ``train``. Below a class folder any depth is searched. Names that
    stand for a part are never taken for classes unless ``classes`` names them.

    Args:
        folder: Where to look.
        classes: The classes to take and their order; by default all, sorted by name.

    Raises:
        InputError: There is no folder, no picture in class folders, fewer than two classes, or a
            class that was named has no folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root} is no folder. Give the folder that holds a folder a class.")
    named = set(classes or ())
    part_folders = {
        path: PART_NAMES[path.name.lower()]
        for path in _folders(root)
        if path.name.lower() in PART_NAMES and path.name not in named
    }
    notes: list[str] = []
    ignored: Counter[str] = Counter()
    rows: list[tuple[Path, str, str | None]] = []
    for path, part in part_folders.items():
        rows += [(file, label, part) for file, label in _by_class(path, named, ignored)]
    with_train = any(part == "train" for _, _, part in rows)
    beside = [path for path in _folders(root) if path not in part_folders]
    if with_train and beside:
        notes.append(f"beside the parts, left out: {_some([path.name for path in beside])}")
    elif not with_train:
        rows += [
            (file, label, None) for file, label in _by_class(root, named, ignored, part_folders)
        ]
    if part_folders:
        found = Counter(part for _, _, part in rows if part is not None)
        shown = [f"{path.name} ({found[part]:,} pictures)" for path, part in part_folders.items()]
        notes.append(f"folders that are parts: {', '.join(shown)}")
    if ignored:
        kinds = ", ".join(
            f"{n} {ending or 'without ending'}" for ending, n in ignored.most_common(5)
        )
        notes.append(f"left out, since the names are not those of pictures: {kinds}")
    return _listing(root, rows, classes, notes)


def _listing(
    root: Path,
    rows: list[tuple[Path, str, str | None]],
    classes: Sequence[str] | None,
    notes: list[str],
) -> Listing:
    if not rows:
        loose = sum(1 for file in root.iterdir() if _is_picture(file))
        hint = (
            f" {loose:,} pictures lie in it directly: where the labels stand in a table, use "
            "ImageData.from_csv or from_df; else from_items([(path, label), …])."
            if loose
            else ""
        )
        raise InputError(
            f"{root} has no pictures in class folders (folder/class/picture.jpg, or "
            f"folder/train/class/picture.jpg).{hint}"
        )
    found = sorted({label for _, label, _ in rows})
    names = tuple(classes) if classes is not None else tuple(found)
    missing = [name for name in names if name not in found]
    if missing or len(names) < 2:
        if missing:
            raise InputError(
                f"{root} has no pictures of {_some(missing)}; its class folders are "
                f"{_some(_class_folders(root))}. Name classes that are there."
            )
        raise InputError(
            f"{root} has a single class; the class folders with pictures are {_some(found)}. Two "
            "classes with pictures are needed."
        )
    return Listing(
        tuple(file for file, _, _ in rows),
        tuple(label for _, label, _ in rows),
        tuple(part for _, _, part in rows),
        names,
        tuple(notes),
    )


def _by_class(
    folder: Path,
    named: set[str],
    ignored: Counter[str],
    without: Sequence[Path] | dict[Path, str] = (),
) -> Iterator[tuple[Path, str]]:
    for class_folder in _folders(folder):
        if class_folder in without or (named and class_folder.name not in named):
            continue
        for place, folders, files in os.walk(class_folder):
            folders[:] = sorted(name for name in folders if not _is_hidden(name))
            for name in sorted(name for name in files if not _is_hidden(name)):
                if _is_picture(Path(name)):
                    yield Path(place, name), class_folder.name
                else:
                    ignored[Path(name).suffix.lower()] += 1


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))


def _class_folders(root: Path) -> list[str]:
    """Names of all class folders, those in part folders too."""
    names: set[str] = set()
    for folder in _folders(root):
        is_part = folder.name.lower() in PART_NAMES
        names.update([path.name for path in _folders(folder)] if is_part else [folder.name])
    return sorted(names)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _CLUTTER


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in ENDINGS and not _is_hidden(path.name)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(map(str, names[:10]))
    return f"{shown}, … ({len(names):,} in all)" if len(names) > 10 else shown


# ---------------------------------------------------------------- headers


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of its picture before it is decoded.

    Attributes:
        width: Pixels, once it stands upright.
        height: Pixels, once it stands upright.
        mode: Pillow's colour mode.
        format: "JPEG", "PNG", …; "" where it is no file.
        animated: More than one frame; the first is used.
    """

    width: int
    height: int
    mode: str
    format: str = ""
    animated: bool = False


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
            if verify and isinstance(item, str | os.PathLike | bytes | bytearray):
                check_loads(item)
            return header
        except InputError as error:
            return Problem(describe(item), str(error))

    return _in_threads(examine, items)


def _in_threads(examine: Callable[[Any], Header | Problem], items: Sequence[Any]) -> list[Any]:
    if len(items) < _THREADS_FROM:
        return [examine(item) for item in items]
    with ThreadPoolExecutor(2 * usable_cores()) as pool:
        return list(pool.map(examine, items))


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
        except (*UNREADABLE, Image.DecompressionBombError):
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
