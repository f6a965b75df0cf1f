"""Group images by file name: frames of one film, images of one patient.

Images of a group are similar. If some are in train and some in valid, the validation score
overestimates the accuracy on new groups.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor

from flambeau.errors import InputError

# A file name belongs to a group if it has at least two numbers: one of the group, one of the frame.
_GROUPED_NAME = re.compile(r"^(?P<group>.*\d.*?)[\W_a-zA-Z]*?(?<!\d)\d+$")
# If fewer file names than this share match, the names are not systematic and nothing is reported.
_MIN_SHARE = 0.5
_MIN_MEAN_SIZE = 2.0


@dataclass(frozen=True)
class FilenameGroup:
    """A group of images whose file names have a common start.

    Attributes:
        name: The common start of the file names, or the folder.
        rows: Row numbers of the images.
        parts: The parts that contain images of the group, sorted.
    """

    name: str
    rows: tuple[int, ...]
    parts: tuple[str, ...]


def are_paths(items: Sequence[Any] | Tensor) -> TypeGuard[Sequence[str | os.PathLike[str]]]:
    """Return whether all items are paths; images in arrays have no file names."""
    return not isinstance(items, Tensor) and all(isinstance(i, str | os.PathLike) for i in items)


def groups_of_paths(files: Sequence[str | os.PathLike[str]], root: Path, pattern: str) -> list[str]:
    """Return the group of each file: what ``pattern`` finds in its path below ``root``.

    Args:
        files: Paths below ``root``.
        root: The folder.
        pattern: Regular expression; its first group in ( ), else the whole match, is the group.

    Raises:
        InputError: The pattern is invalid, or a path does not match it.
    """
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise InputError(f"group={pattern!r} is not a regular expression: {error}.") from error
    found: list[str] = []
    for file in files:
        path = Path(file).relative_to(root).as_posix()
        match = compiled.search(path)
        name = match and (match[1] if compiled.groups else match[0])
        if not name:
            raise InputError(
                f"group={pattern!r} matches nothing in the path {path!r}, so this image has no "
                "group. Write an expression that matches every path, such as "
                "group='patient[0-9]+'."
            )
        found.append(name)
    return found


def declared_across_parts(groups: Sequence[str], parts: Sequence[str]) -> list[FilenameGroup]:
    """Return the groups of the user with images in more than one part, the largest first."""
    rows_of: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(groups):
        if parts[row]:
            rows_of[name].append(row)
    return _crossing(rows_of, parts)


def groups_across_parts(
    items: Sequence[Any] | Tensor, parts: Sequence[str], labels: Sequence[str] | None = None
) -> list[FilenameGroup]:
    """Return the groups with images in more than one part, the largest first.

    The result is empty unless the names are systematic: at least half of the files have two numbers
    (``patient07_frame3.jpg``) or are in numbered folders that are not classes
    (``patient07/3.jpg``), and groups have at least two images on average.

    Args:
        items: Paths; the result is empty for other items, which have no file names.
        parts: "train", "valid" or "test" of each item; "" excludes it.
        labels: Label of each item; a folder with that name is a class, not a group.

    Example:
        >>> names = ["p1_f1.png", "p1_f2.png", "p2_f1.png", "p2_f2.png"]
        >>> parts = ["train", "valid", "train", "train"]
        >>> [group.name for group in groups_across_parts(names, parts)]
        ['p1']
    """
    if not are_paths(items):
        return []
    rows_of: dict[str, list[int]] = defaultdict(list)
    named = 0
    for row, item in enumerate(items):
        if not parts[row]:
            continue
        name = _group_name(Path(item), "" if labels is None else labels[row])
        if name:
            named += 1
            rows_of[name].append(row)
    if len(rows_of) < 2 or named < _MIN_SHARE * len(items):
        return []
    if named < _MIN_MEAN_SIZE * len(rows_of):
        return []
    return _crossing(rows_of, parts)


def _crossing(rows_of: Mapping[str, Sequence[int]], parts: Sequence[str]) -> list[FilenameGroup]:
    groups = [
        FilenameGroup(
            name.removeprefix("/"), tuple(rows), tuple(sorted({parts[row] for row in rows}))
        )
        for name, rows in rows_of.items()
    ]
    crossing = [group for group in groups if len(group.parts) > 1]
    return sorted(crossing, key=lambda group: (-len(group.rows), group.name))


def _group_name(path: Path, label: str) -> str:
    match = _GROUPED_NAME.match(path.stem)
    if match:
        return match["group"].rstrip("_-. ")
    folder = path.parent.name
    # A class folder denotes what the image shows, not its origin.
    if folder != label and any(letter.isdigit() for letter in folder):
        return f"/{folder}"
    return ""
