"""List the image files of a folder with the labels that their names contain."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from flambeau.data.known_classes import name_as_in
from flambeau.data.part_columns import part_of_name
from flambeau.data.reading import Reading
from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_vision.folder import (
    FolderListing,
    check_classes,
    foreign_classes_error,
)
from flambeau_vision.folder_roles import check_parts, parts_option
from flambeau_vision.image_files import has_images, images_in, subfolders


def list_by_name(
    folder: str | os.PathLike[str],
    pattern: str,
    classes: Sequence[str] | None = None,
    parts: Mapping[str, str] | None = None,
    *,
    some: bool = False,
    for_training: bool = True,
) -> FolderListing:
    """Return the images at any depth in ``folder``, with the labels that their names contain.

    Folders named like parts (``train``, ``test_set``) directly in ``folder`` are parts.

    Args:
        folder: The folder to search.
        pattern: Regular expression, matched from the start of the file name; the first group is the
            label.
        classes: The classes to use; by default all. Without training they are the classes of the
            model, and images of other classes are listed too.
        parts: Name of a folder → its part; by default such folders are recognised by their names.
        some: Whether ``classes`` are the classes of a trained model: then some of them may have no
            images, and images of another class are an error.
        for_training: Whether the images are trained on.

    Raises:
        InputError: The pattern is invalid or has no group, a name does not match it, a class has no
            images, or ``parts`` names a folder that does not exist.
    """
    root = Path(folder)
    files = images_in(root)
    if not files:
        raise InputError(f"{root} has no images.")
    named = set(classes or ())
    labels = [name_as_in(label, named) for label in _labels(files, pattern)]
    every = sorted(set(labels))
    if for_training and named:
        if some and (foreign := sorted(set(every) - named)):
            raise foreign_classes_error(root, foreign, tuple(classes or ()))
        if not some:
            check_classes(root, tuple(classes or ()), every)
    part_of, readings = _parts(root, files, parts)
    rows = [
        (file, label)
        for file, label in zip(files, labels, strict=True)
        if label in named or not (for_training and named)
    ]
    what = f"The labels are the group of {pattern!r} in the file names, such as {labels[0]!r}."
    return FolderListing(
        tuple(file for file, _ in rows),
        tuple(label for _, label in rows),
        tuple(part_of.get(_top_folder(root, file)) for file, _ in rows),
        tuple(every if classes is None else classes),
        (),
        (Reading("targets", what), *readings),
    )


def labels_are_in_names(folder: str | os.PathLike[str]) -> bool:
    """Return whether the images are directly in the folder, or directly in folders of parts."""
    if has_images(folder):
        return True
    if not os.path.isdir(folder):
        return False
    inside = [each for each in subfolders(Path(folder)) if images_in(each)]
    return bool(inside) and all(part_of_name(each.name) and has_images(each) for each in inside)


def _labels(files: Sequence[Path], pattern: str) -> list[str]:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(
            f"pattern={pattern!r} is not a valid regular expression: {error}."
        ) from error
    if not compiled.groups:
        raise InputError(f"pattern={pattern!r} has no group. Put the label in ( ): '(.+)_[0-9]+'.")
    matches = [compiled.match(file.name) for file in files]
    labels = [match[1] if match is not None else None for match in matches]
    # An optional group that matches nothing has no label either.
    if wrong := [file.name for file, label in zip(files, labels, strict=True) if not label]:
        raise InputError(
            f"{len(wrong):,} of {len(files):,} file names do not match pattern={pattern!r}: "
            f"{name_some(wrong, most=10)}. Correct the pattern, or move these files elsewhere."
        )
    return [str(label) for label in labels]


def _parts(
    root: Path, files: Sequence[Path], given: Mapping[str, str] | None
) -> tuple[dict[str, str], tuple[Reading, ...]]:
    """Return the part of each folder that is one, and how the folders were interpreted."""
    names = list(dict.fromkeys(_top_folder(root, file) for file in files))
    if given is not None:
        check_parts(root, names, given)
        return dict(given), ()
    found = {name: part for name in names if (part := part_of_name(name)) is not None}
    if not found:
        return {}, ()
    counts = {name: sum(_top_folder(root, file) == name for file in files) for name in names}
    shown = name_some(f"{name} ({counts[name]:,} images) as {part}" for name, part in found.items())
    readings = [
        Reading(
            "split",
            f"Folders used as parts, because of their names: {shown}.",
            {"folders": dict(found)},
            ("a random split",),
            0.9,
            f"Choose the parts with {parts_option(found)}; without parts: --parts ''.",
        )
    ]
    others = [name or root.name for name in names if name not in found]
    if others and "train" in found.values():
        readings.append(
            Reading(
                "split",
                "Images that are not used, because they are not in the folder of a part but in "
                f"{name_some(others)}.",
                {"not used": others},
                (),
                0.4,
                f"Choose the parts with {parts_option(found)}.",
            )
        )
    return dict(found), tuple(readings)


def _top_folder(root: Path, file: Path) -> str:
    """Return the name of the folder in ``root`` that contains the file; "" for ``root`` itself."""
    inner = file.relative_to(root).parts
    return inner[0] if len(inner) > 1 else ""
