"""List the image files of a folder with their classes and parts (train, validation, test)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flambeau.data.known_classes import name_as_in
from flambeau.data.reading import Reading
from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_vision.folder_roles import Contents, FolderRoles, classes_option, find_roles
from flambeau_vision.image_files import IMAGE_EXTENSIONS, images_in, is_image, subfolders

_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos")
_MASK_FOLDERS = ("masks", "mask", "segmentation", "segmentations", "segmentationclass")


@dataclass(frozen=True)
class FolderListing:
    """The images of a folder.

    Attributes:
        files: Paths, ordered by part, class and name.
        labels: The class of each file.
        parts: "train", "valid", "test" or "calibration" of each file, if a folder determines it,
            else None.
        classes: Class names, sorted.
        notes: What was found and what was skipped, for the report.
        readings: Which folders are parts, and which are not used.
    """

    files: tuple[Path, ...]
    labels: tuple[str, ...]
    parts: tuple[str | None, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    readings: tuple[Reading, ...]


def list_folder(
    folder: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    parts: Mapping[str, str] | None = None,
    *,
    some: bool = False,
    for_training: bool = True,
) -> FolderListing:
    """Return the images in ``folder`` with their classes and parts.

    Two layouts: ``folder/class/image``, and ``folder/train/class/image`` with folders for other
    parts beside ``train``; see `find_roles`. Class folders are searched recursively.

    Args:
        folder: The folder to search.
        classes: The classes to use and their order; by default all, sorted by name. Without
            training they are the classes of the model, and images of other classes are listed too.
        parts: Name of a folder → its part; by default such folders are recognised by their names.
        some: Whether ``classes`` are the classes of a trained model: then some of them may have no
            folder, and a folder of another class is an error.
        for_training: Whether there must be at least two classes.

    Raises:
        InputError: The folder does not exist, there are no images in class folders, there are
            fewer than two classes, the class folders do not match ``classes``, or it is not clear
            which folders are parts.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"{root} is not a folder. Give a folder with one sub-folder per class.")
    named = set(classes or ())
    ignored: Counter[str] = Counter()
    contents: list[Contents] = []
    empty: list[str] = []
    for path in subfolders(root):
        others: Counter[str] = Counter()
        contents.append(Contents(path, images_in(path, others)))
        ignored += others
        if not contents[-1].files:
            empty.append(_name_empty(path, others))
    inside = [each for each in contents if each.files]
    roles = find_roles(root, inside, named, parts, for_training=for_training)
    empty += _empty_in_parts(roles)
    rows = [(file, name_as_in(label, named), part) for file, label, part in _labelled(roles)]
    every = sorted({label for _, label, _ in rows})
    foreign = sorted(set(every) - named) if some or (named and not for_training) else []
    hint = _wrapper_hint(inside)
    if foreign and (some or (hint and len(foreign) == len(every))):
        raise foreign_classes_error(root, foreign, tuple(classes or ()), hint)
    if not named:
        _check_no_masks(root, every)
    if named and for_training:
        rows = [row for row in rows if row[1] in named]
    notes: list[str] = []
    if ignored:
        kinds = ", ".join(f"{n} {ending or 'no extension'}" for ending, n in ignored.most_common(5))
        notes.append(f"skipped files without an image extension: {kinds}")
    if not every:
        raise _no_images_error(root, ignored)
    names = tuple(every if classes is None else classes)
    if for_training and not some:
        check_classes(root, names, every, hint, empty)
    return FolderListing(
        tuple(file for file, _, _ in rows),
        tuple(label for _, label, _ in rows),
        tuple(part for _, _, part in rows),
        names,
        tuple(notes),
        (*roles.readings, *_empty_folders(empty)),
    )


def _labelled(roles: FolderRoles) -> list[tuple[Path, str, str | None]]:
    """Return file, class and part of each image in a class folder."""
    rows: list[tuple[Path, str, str | None]] = [
        (file, label, part)
        for each, part in roles.parts
        for file in each.files
        if (label := each.class_of(file)) is not None
    ]
    return rows + [(file, each.name, None) for each in roles.classes for file in each.files]


# ---------------------------------------------------------------- checks


def foreign_classes_error(
    root: Path, foreign: Sequence[str], classes: Sequence[str], hint: str = ""
) -> InputError:
    """Return the error for folders of classes that the model does not have."""
    return InputError(
        f"{root} has images of {_name_folders(foreign)}, which the model does not have; its "
        f"classes are {_name_folders(classes)}."
        + (
            hint
            or " Move these folders elsewhere, or read the data without like= (--like) and "
            "train a new head."
        )
    )


def check_classes(
    root: Path,
    names: Sequence[str],
    every: Sequence[str],
    hint: str = "",
    empty: Sequence[str] = (),
) -> None:
    """Raise an InputError if a class has no images, or there are fewer than two classes.

    Args:
        root: The folder.
        names: The classes to use.
        every: The classes with images.
        hint: Advice for a single class.
        empty: Folders without images, for the message.
    """
    without = f" Folders without images: {_name_folders(empty)}." if empty else ""
    missing = [name for name in names if name not in every]
    if missing:
        raise InputError(
            f"{root} has no images of {_name_folders(missing)}; its class folders are "
            f"{_name_folders(every)}.{without} Use the names of existing class folders."
        )
    if len(names) < 2:
        raise InputError(
            f"{root} has a single class; the class folders with images are {_name_folders(every)}."
            f"{without} At least two classes with images are needed.{hint}"
        )


def _wrapper_hint(inside: Sequence[Contents]) -> str:
    """Return the advice to pass the only sub-folder if it has class folders or parts, else ""."""
    while len(inside) == 1:
        [outer] = inside
        inside = [outer.subfolder(name) for name in outer.inner]
        if len(inside) > 1:
            names = _name_folders(outer.inner)
            return f" If {names} are the classes or parts, pass {outer.folder}."
    return ""


def _check_no_masks(root: Path, names: Sequence[str]) -> None:
    """Raise an error if the folders have images and segmentation masks instead of classes.

    Raises:
        InputError: The message names both folders.
    """
    images = [name for name in names if name.lower() in _IMAGE_FOLDERS]
    masks = [name for name in names if name.lower() in _MASK_FOLDERS]
    if images and masks:
        raise InputError(
            f"{root} has the folders {images[0]!r} and {masks[0]!r}: images and masks for "
            "segmentation, which is not supported yet. If they are classes, name them: "
            f"{classes_option(names)}."
        )


def _no_images_error(root: Path, ignored: Counter[str]) -> InputError:
    unsorted = sum(1 for file in root.iterdir() if is_image(file))
    what = "has no images in class folders."
    if not any(root.iterdir()):
        what = "is empty."
    elif ignored and not unsorted:
        kinds = ", ".join(sorted(kind or "no extension" for kind in ignored))
        known = " ".join(sorted(IMAGE_EXTENSIONS))
        what = f"has class folders without images: found files {kinds}; image extensions: {known}."
    hint = (
        f" It contains {unsorted:,} images directly: if a table has the labels, use "
        "ImageData.from_csv or from_df; else from_items([(path, label), …]). If the labels are in "
        'the file names, pass ImageOptions(pattern="(.+)_[0-9]+"), on the command line --pattern.'
        if unsorted
        else ""
    )
    return InputError(
        f"{root} {what} Put images into one folder per class (folder/class/image.jpg, or "
        f"folder/train/class/image.jpg).{hint}"
    )


# ---------------------------------------------------------------- folders without images


def _empty_in_parts(roles: FolderRoles) -> list[str]:
    found: list[str] = []
    for each, _ in roles.parts:
        for path in subfolders(each.folder):
            if path.name not in each.inner:
                others: Counter[str] = Counter()
                images_in(path, others)
                found.append(_name_empty(path, others, f"{each.name}/"))
    return found


def _empty_folders(empty: Sequence[str]) -> list[Reading]:
    if not empty:
        return []
    return [
        Reading(
            "targets",
            "Folders that are not used as classes, because they have no images: "
            f"{name_some(empty, most=10)}.",
            {"without images": len(empty)},
            (),
            0.4,
            "Add images to them, or list the classes to use: classes=[…], on the command line "
            "--classes.",
        )
    ]


def _name_empty(folder: Path, others: Counter[str], prefix: str = "") -> str:
    kinds = ", ".join(f"{n} {kind or 'without extension'}" for kind, n in others.most_common(3))
    return f"{prefix}{folder.name} ({kinds or 'empty'})"


def _name_folders(names: Sequence[str]) -> str:
    return name_some(names, most=10)
