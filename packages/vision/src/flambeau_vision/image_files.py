"""Find the image files in a folder."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from flambeau.errors import InputError

_IMAGE_TYPES = "avif bmp gif heic heif jfif jp2 jpeg jpg pbm pgm png ppm tif tiff webp"
IMAGE_EXTENSIONS = frozenset(f".{name}" for name in _IMAGE_TYPES.split(" "))
"""Extensions of image files, in lower case."""

# Folders and files of operating systems and storage devices, in lower case.
_SYSTEM_FILES = (
    *("__macosx", "thumbs.db", "desktop.ini", "$recycle.bin", "recycler", "recycled"),
    *("system volume information", "lost+found", "@eadir", "#recycle", "@recycle"),
    *("@recently-snapshot", "#snapshot", "~snapshot", "@tmp", "@sharebin", "__pycache__"),
)
_FOUND_FILES = re.compile(r"found\.[0-9]{3}")  # folders of chkdsk


def is_image(path: Path) -> bool:
    """Return whether a file has the extension of an image and is not hidden."""
    return path.suffix.lower() in IMAGE_EXTENSIONS and not _is_hidden(path.name)


def subfolders(folder: Path) -> list[Path]:
    """Return the sub-folders that are not hidden, sorted."""
    return sorted(path for path in folder.iterdir() if path.is_dir() and not _is_hidden(path.name))


def images_in(folder: Path, others: Counter[str] | None = None) -> tuple[Path, ...]:
    """Return the images at any depth in a folder, ordered by folder and name.

    Args:
        folder: The folder.
        others: Receives the number of other files by extension.

    Raises:
        InputError: A folder cannot be listed.
    """
    found: list[Path] = []
    for directory, files in _walk(folder):
        for name in files:
            if is_image(Path(name)):
                found.append(Path(directory, name))
            elif others is not None:
                others[Path(name).suffix.lower()] += 1
    return tuple(found)


def has_images(folder: str | os.PathLike[str]) -> bool:
    """Return whether images are directly in the folder, so that it has no class folders."""
    root = Path(folder)
    return root.is_dir() and any(map(is_image, root.iterdir()))


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """Return the paths of all images at any depth in ``folder``, ordered by folder and name.

    Raises:
        InputError: There are no images.
    """
    found = images_in(Path(folder))
    if not found:
        known = " ".join(sorted(IMAGE_EXTENSIONS))
        raise InputError(f"{folder} is a folder without images. Known extensions: {known}.")
    return [str(file) for file in found]


def _walk(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Yield ``folder`` and each folder below it, with its files, sorted; enter no folder twice."""
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


def _is_hidden(name: str) -> bool:
    lower = name.lower()
    is_system = lower in _SYSTEM_FILES or _FOUND_FILES.fullmatch(lower) is not None
    return name.startswith(".") or is_system
