"""List the image files of a folder with their classes and parts (train, validation, test)."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flambeau.data.reading import Reading
from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_vision.folder_roles import Contents, classes_option, find_roles

_IMAGE_TYPES = "avif bmp gif heic heif jfif jp2 jpeg jpg pbm pgm png ppm tif tiff webp"
IMAGE_EXTENSIONS = frozenset(f".{name}" for name in _IMAGE_TYPES.split(" "))
"""Extensions of image files, in lower case."""

_IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos")
_MASK_FOLDERS = ("masks", "mask", "segmentation", "segmentations", "segmentationclass")
# Folders and files of operating systems and storage devices, in lower case.
_SYSTEM_FILES = (
    *("__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("lost+found", "@eadir", "#recycle", "@recycle", "@recently-snapshot"),
)


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
        classes: The classes to use and their order; by default all, sorted by name.
        parts: The part of each folder that is one, by name; by default they are recognised.
        some: Whether ``classes`` are all classes of a model: some may have no folder, and there
            must be no others.
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
    for path in _subfolders(root):
        others: Counter[str] = Counter()
        contents.append(_contents(path, others))
        ignored += others
        if not contents[-1].files:
            empty.append(_name_empty(path, others))
    roles = find_roles(root, [each for each in contents if each.files], named, parts)
    for each, _ in roles.parts:
        inner = [path for path in _subfolders(each.folder) if path.name not in each.inner]
        empty += [_name_empty(path, _other_files(path), f"{each.name}/") for path in inner]
    rows: list[tuple[Path, str, str | None]] = [
        (file, label, part)
        for each, part in roles.parts
        for file in each.files
        if (label := each.class_of(file)) is not None
    ]
    rows += [(file, each.name, None) for each in roles.classes for file in each.files]
    every = sorted({label for _, label, _ in rows})
    if some and (foreign := sorted(set(every) - named)):
        raise InputError(
            f"{root} has images of {_name_folders(foreign)}, which the model does not have; its "
            f"classes are {_name_folders(tuple(classes or ()))}. Move these folders elsewhere, or "
            "read the data without like= (--like) and train a new head."
        )
    if not named:
        _check_no_masks(root, every)
    rows = [row for row in rows if not named or row[1] in named]
    notes: list[str] = []
    if ignored:
        kinds = ", ".join(f"{n} {ending or 'no extension'}" for ending, n in ignored.most_common(5))
        notes.append(f"skipped files without an image extension: {kinds}")
    if not every:
        raise _no_images_error(root, ignored)
    names = tuple(every if classes is None else classes)
    if for_training and not some:
        _check_classes(root, names, every, contents)
    return FolderListing(
        tuple(file for file, _, _ in rows),
        tuple(label for _, label, _ in rows),
        tuple(part for _, _, part in rows),
        names,
        tuple(notes),
        (*roles.readings, *_empty_folders(empty)),
    )


def list_by_name(
    folder: str | os.PathLike[str], pattern: str, classes: Sequence[str] | None = None
) -> FolderListing:
    """Return the images at any depth in ``folder``, with the label that their name contains.

    Args:
        folder: The folder to search.
        pattern: Regular expression, matched from the start of the file name; the first group is the
            label.
        classes: The classes to use; by default all.

    Raises:
        InputError: The pattern is invalid or has no group, or a name does not match it.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"pattern={pattern!r} is no regular expression: {error}.") from error
    if not compiled.groups:
        raise InputError(f"pattern={pattern!r} has no group. Put the label in ( ): '(.+)_[0-9]+'.")
    root, ignored = Path(folder), Counter[str]()
    files = _contents(root, ignored).files
    matches = [compiled.match(file.name) for file in files]
    if wrong := [file.name for file, match in zip(files, matches, strict=True) if match is None]:
        raise InputError(
            f"{len(wrong):,} of {len(files):,} file names do not match pattern={pattern!r}: "
            f"{_name_folders(wrong)}. Correct the pattern, or move these files elsewhere."
        )
    if not files:
        raise InputError(f"{root} has no images.")
    found = [(file, match[1]) for file, match in zip(files, matches, strict=True) if match]
    every = sorted({label for _, label in found})
    rows = [(file, label) for file, label in found if classes is None or label in classes]
    what = f"The labels are the group of {pattern!r} in the file names, such as {rows[0][1]!r}."
    return FolderListing(
        tuple(file for file, _ in rows),
        tuple(label for _, label in rows),
        (None,) * len(rows),
        tuple(every if classes is None else classes),
        (),
        (Reading("targets", what),),
    )


def has_images(folder: str | os.PathLike[str]) -> bool:
    """Return whether images are directly in the folder, so that it has no class folders."""
    root = Path(folder)
    return root.is_dir() and any(map(_is_image, root.iterdir()))


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """Return the paths of all images at any depth in ``folder``, ordered by folder and name.

    Raises:
        InputError: There are none.
    """
    found = _contents(Path(folder), Counter()).files
    if not found:
        known = " ".join(sorted(IMAGE_EXTENSIONS))
        raise InputError(f"{folder} is a folder without images. Known extensions: {known}.")
    return [str(file) for file in found]


def _contents(folder: Path, ignored: Counter[str]) -> Contents:
    """Return the images in a folder; files that are not images are counted by extension."""
    found: list[Path] = []
    for directory, files in _walk(folder):
        for name in files:
            if _is_image(Path(name)):
                found.append(Path(directory, name))
            else:
                ignored[Path(name).suffix.lower()] += 1
    return Contents(folder, tuple(found))


def _empty_folders(empty: Sequence[str]) -> list[Reading]:
    if not empty:
        return []
    return [
        Reading(
            "targets",
            f"Folders without images, which are no classes: {name_some(empty, most=10)}.",
            {"without images": len(empty)},
            (),
            0.4,
            "Add images to them, or name the classes that are meant with classes=[…], on the "
            "command line --classes.",
        )
    ]


def _name_empty(folder: Path, others: Counter[str], prefix: str = "") -> str:
    kinds = ", ".join(f"{n} {kind or 'without extension'}" for kind, n in others.most_common(3))
    return f"{prefix}{folder.name} ({kinds or 'empty'})"


def _other_files(folder: Path) -> Counter[str]:
    others: Counter[str] = Counter()
    _contents(folder, others)
    return others


def _check_classes(
    root: Path, names: Sequence[str], every: Sequence[str], contents: Sequence[Contents]
) -> None:
    missing = [name for name in names if name not in every]
    if missing:
        raise InputError(
            f"{root} has no images of {_name_folders(missing)}; its class folders are "
            f"{_name_folders(every)}. Use the names of existing class folders."
        )
    if len(names) < 2:
        raise InputError(
            f"{root} has a single class; the class folders with images are {_name_folders(every)}. "
            "At least two classes with images are needed." + _wrapper_hint(root, contents)
        )


def _wrapper_hint(root: Path, contents: Sequence[Contents]) -> str:
    """Return what to pass instead if the only folder has the class folders or the parts."""
    inside = [each for each in contents if each.files]
    if len(inside) != 1 or len(inside[0].inner) < 2:
        return ""
    names = _name_folders(inside[0].inner)
    return f" If {names} are the classes or parts, pass {root / inside[0].name}."


def _check_no_masks(root: Path, names: Sequence[str]) -> None:
    """Raise an error if the folders are images and their masks instead of classes.

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
        "ImageData.from_csv or from_df; else from_items([(path, label), …]). If their names have "
        'the labels, pass ImageOptions(pattern="(.+)_[0-9]+"), on the command line --pattern.'
        if unsorted
        else ""
    )
    return InputError(
        f"{root} {what} Put images into one folder per class (folder/class/image.jpg, or "
        f"folder/train/class/image.jpg).{hint}"
    )


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


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _SYSTEM_FILES


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS and not _is_hidden(path.name)


def _name_folders(names: Sequence[str]) -> str:
    return name_some(names, most=10)
