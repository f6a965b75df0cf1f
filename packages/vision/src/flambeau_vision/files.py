"""What lies in a folder of pictures: the files, their classes and their parts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flambeau.errors import InputError

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
    return _listing(root, rows, classes, notes, ignored)


def _listing(
    root: Path,
    rows: list[tuple[Path, str, str | None]],
    classes: Sequence[str] | None,
    notes: list[str],
    ignored: Counter[str],
) -> Listing:
    if not rows:
        loose = sum(1 for file in root.iterdir() if _is_picture(file))
        what = "has no pictures in class folders."
        if not any(root.iterdir()):
            what = "is empty."
        elif ignored and not loose:
            kinds = ", ".join(sorted(kind or "without ending" for kind in ignored))
            known = " ".join(sorted(ENDINGS))
            what = f"has class folders, but no pictures: files {kinds}; pictures end in {known}."
        hint = (
            f" {loose:,} pictures lie in it directly: where the labels stand in a table, use "
            "ImageData.from_csv or from_df; else from_items([(path, label), …])."
            if loose
            else ""
        )
        raise InputError(
            f"{root} {what} Pictures belong in a folder a class (folder/class/picture.jpg, or "
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
        for place, files in _walk(class_folder):
            for name in files:
                if _is_picture(Path(name)):
                    yield Path(place, name), class_folder.name
                else:
                    ignored[Path(name).suffix.lower()] += 1


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Each folder below with its files, sorted; links are followed, into no folder twice."""
    entered = {os.path.realpath(folder)}
    for place, folders, files in os.walk(folder, onerror=_not_listed, followlinks=True):
        below: list[str] = []
        for name in sorted(name for name in folders if not _is_hidden(name)):
            real = os.path.realpath(os.path.join(place, name))
            if real not in entered:  # else a link to a folder above, or to one that was listed
                entered.add(real)
                below.append(name)
        folders[:] = below
        yield place, sorted(name for name in files if not _is_hidden(name))


def _not_listed(error: OSError) -> None:
    raise InputError(
        f"The folder {error.filename} cannot be listed ({error.strerror}). Give read permission, "
        "or move it elsewhere."
    ) from error


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
