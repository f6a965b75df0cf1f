"""List the image files of a folder with their classes and parts (train, validation, test)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from flambeau.data.split_request import PART_NAMES
from flambeau.errors import InputError
from flambeau.wording import name_some

_IMAGE_TYPES = "avif bmp gif jfif jp2 jpeg jpg pbm pgm png ppm tif tiff webp"
IMAGE_EXTENSIONS = frozenset(f".{name}" for name in _IMAGE_TYPES.split(" "))
"""Extensions of image files, in lower case."""

_SYSTEM_FILES = ("__MACOSX", "Thumbs.db", "desktop.ini")


@dataclass(frozen=True)
class FolderListing:
    """The images of a folder.

    Attributes:
        files: Paths, ordered by part, class and name.
        labels: The class of each file.
        parts: "train", "valid", "test" or "calibration" of each file where a folder denotes it,
            else None.
        classes: Class names, sorted.
        notes: What was found and what was skipped, for the report.
    """

    files: tuple[Path, ...]
    labels: tuple[str, ...]
    parts: tuple[str | None, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def list_folder(
    folder: str | os.PathLike[str], classes: Sequence[str] | None = None, *, some: bool = False
) -> FolderListing:
    """Return the images in ``folder`` with their classes and parts.

    Two layouts: ``folder/class/image``, and ``folder/train/class/image`` with ``valid`` (or
    ``val``), ``test`` and ``calibration`` beside ``train``. Class folders are searched recursively.
    Folders with the name of a part are not classes unless ``classes`` names them.

    Args:
        folder: The folder to search.
        classes: The classes to use and their order; by default all, sorted by name.
        some: Whether ``classes`` are all classes of a model: some may have no folder, and there
            must be no others.

    Raises:
        InputError: The folder does not exist, there are no images in class folders, there are
            fewer than two classes, or the class folders do not match ``classes``.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder. Give a folder with one sub-folder per class.")
    named = set(classes or ())
    used = set[str]() if some else named
    part_folders = {
        path: PART_NAMES[path.name.lower()]
        for path in _subfolders(root)
        if path.name.lower() in PART_NAMES and path.name not in named
    }
    notes: list[str] = []
    ignored: Counter[str] = Counter()
    rows: list[tuple[Path, str, str | None]] = []
    for path, part in part_folders.items():
        rows += [(file, label, part) for file, label in _labelled_files(path, used, ignored)]
    with_train = any(part == "train" for _, _, part in rows)
    others = [path for path in _subfolders(root) if path not in part_folders]
    if with_train and others:
        notes.append(f"skipped folders beside train: {_name_folders([p.name for p in others])}")
    elif not with_train:
        rows += [
            (file, label, None)
            for file, label in _labelled_files(root, used, ignored, part_folders)
        ]
    if part_folders:
        found = Counter(part for _, _, part in rows if part is not None)
        shown = [f"{path.name} ({found[part]:,} images)" for path, part in part_folders.items()]
        notes.append(f"folders used as parts: {', '.join(shown)}")
    if ignored:
        kinds = ", ".join(f"{n} {ending or 'no extension'}" for ending, n in ignored.most_common(5))
        notes.append(f"skipped files without an image extension: {kinds}")
    if some and (others := sorted({label for _, label, _ in rows} - named)):
        raise InputError(
            f"{root} has images of {_name_folders(others)}, which the model does not have; its "
            f"classes are {_name_folders(tuple(classes or ()))}. Move these folders elsewhere, or "
            "read the data without like= (--like) and train a new head."
        )
    return _build_listing(root, rows, classes, notes, ignored, some=some)


def _build_listing(
    root: Path,
    rows: list[tuple[Path, str, str | None]],
    classes: Sequence[str] | None,
    notes: list[str],
    ignored: Counter[str],
    *,
    some: bool,
) -> FolderListing:
    if not rows:
        raise _no_images_error(root, ignored)
    found = sorted({label for _, label, _ in rows})
    names = tuple(classes) if classes is not None else tuple(found)
    missing = [name for name in names if name not in found]
    if missing and not some:
        raise InputError(
            f"{root} has no images of {_name_folders(missing)}; its class folders are "
            f"{_name_folders(_class_folders(root))}. Use the names of existing class folders."
        )
    if len(names) < 2:
        raise InputError(
            f"{root} has a single class; the class folders with images are {_name_folders(found)}. "
            "At least two classes with images are needed."
        )
    return FolderListing(
        tuple(file for file, _, _ in rows),
        tuple(label for _, label, _ in rows),
        tuple(part for _, _, part in rows),
        names,
        tuple(notes),
    )


def _no_images_error(root: Path, ignored: Counter[str]) -> InputError:
    unsorted = sum(1 for file in root.iterdir() if _is_image(file))
    what = "has no images in class folders."
    if not any(root.iterdir()):
        what = "is empty."
    elif ignored and not unsorted:
        kinds = ", ".join(sorted(kind or "no extension" for kind in ignored))
        known = " ".join(sorted(IMAGE_EXTENSIONS))
        what = f"has class folders without images: found files {kinds}; image extensions: {known}."
    hint = (
        f" It contains {unsorted:,} images directly: if a table has the labels, use "
        "ImageData.from_csv or from_df; else from_items([(path, label), …])."
        if unsorted
        else ""
    )
    return InputError(
        f"{root} {what} Put images into one folder per class (folder/class/image.jpg, or "
        f"folder/train/class/image.jpg).{hint}"
    )


def _labelled_files(
    folder: Path,
    named: set[str],
    ignored: Counter[str],
    without: Sequence[Path] | dict[Path, str] = (),
) -> Iterator[tuple[Path, str]]:
    for class_folder in _subfolders(folder):
        if class_folder in without or (named and class_folder.name not in named):
            continue
        for directory, files in _walk(class_folder):
            for name in files:
                if _is_image(Path(name)):
                    yield Path(directory, name), class_folder.name
                else:
                    ignored[Path(name).suffix.lower()] += 1


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield each folder below with its files, sorted; follow links, but enter no folder twice."""
    entered = {os.path.realpath(folder)}
    for directory, folders, files in os.walk(folder, onerror=_raise_not_listed, followlinks=True):
        below: list[str] = []
        for name in sorted(name for name in folders if not _is_hidden(name)):
            real = os.path.realpath(os.path.join(directory, name))
            if real not in entered:  # else a link to a parent folder or to one already listed
                entered.add(real)
                below.append(name)
        folders[:] = below
        yield directory, sorted(name for name in files if not _is_hidden(name))


def _raise_not_listed(error: OSError) -> None:
    raise InputError(
        f"The folder {error.filename} cannot be listed ({error.strerror}). Give read permission, "
        "or move it elsewhere."
    ) from error


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))


def _class_folders(root: Path) -> list[str]:
    """Return the names of all class folders, including class folders in part folders."""
    names: set[str] = set()
    for folder in _subfolders(root):
        is_part = folder.name.lower() in PART_NAMES
        names.update([path.name for path in _subfolders(folder)] if is_part else [folder.name])
    return sorted(names)


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name in _SYSTEM_FILES


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS and not _is_hidden(path.name)


def _name_folders(names: Sequence[str]) -> str:
    return name_some(names, most=10)
