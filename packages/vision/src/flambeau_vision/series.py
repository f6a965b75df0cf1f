"""Pictures that belong together by their names: frames of one film, pictures of one patient.

Such pictures are alike. With some in train and some in valid the score says how well the network
knows the film, not how well it will do on another.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from torch import Tensor

# A name is taken for one of a series from two numbers on: that of the series and that of the frame.
_SERIES = re.compile(r"^(?P<series>.*\d.*?)[\W_a-zA-Z]*?(?<!\d)\d+$")
# Fewer names of that shape than this share, and they are no system.
_LEAST_SHARE = 0.5
_LEAST_MEAN_LENGTH = 2.0


@dataclass(frozen=True)
class Series:
    """Pictures whose names begin alike.

    Attributes:
        name: What they share: the beginning of the file name, or the folder.
        rows: Their numbers.
        parts: In which parts they are.
    """

    name: str
    rows: tuple[int, ...]
    parts: tuple[str, ...]


def have_names(items: Sequence[Any] | Tensor) -> TypeGuard[Sequence[str | os.PathLike[str]]]:
    """Whether all of them are paths; pictures in arrays have no names."""
    return not isinstance(items, Tensor) and all(isinstance(i, str | os.PathLike) for i in items)


def split_series(
    items: Sequence[Any] | Tensor, parts: Sequence[str], labels: Sequence[str] | None = None
) -> list[Series]:
    """The series that lie in more than one part, the longest first; empty where names say nothing.

    Names say something where at least half of them have two numbers (``patient07_frame3.jpg``) or
    lie in numbered folders that are no classes (``patient07/3.jpg``), and series have two pictures
    or more on average.

    Args:
        items: Paths; anything else has no name.
        parts: "train", "valid" or "test" of each; "" leaves it out.
        labels: Of each; a folder of that name is a class, no series.

    Example:
        >>> names = ["p1_f1.png", "p1_f2.png", "p2_f1.png", "p2_f2.png"]
        >>> [series.name for series in split_series(names, ["train", "valid", "train", "train"])]
        ['p1']
    """
    if not have_names(items):
        return []
    groups: dict[str, list[int]] = defaultdict(list)
    named = 0
    for row, item in enumerate(items):
        if not parts[row]:
            continue
        name = _series_of(Path(item), "" if labels is None else labels[row])
        if name:
            named += 1
            groups[name].append(row)
    if len(groups) < 2 or named < _LEAST_SHARE * len(items):
        return []
    if named < _LEAST_MEAN_LENGTH * len(groups):
        return []
    found = [
        Series(name.removeprefix("/"), tuple(rows), tuple(sorted({parts[row] for row in rows})))
        for name, rows in groups.items()
    ]
    crossing = [series for series in found if len(series.parts) > 1]
    return sorted(crossing, key=lambda series: (-len(series.rows), series.name))


def _series_of(path: Path, label: str) -> str:
    match = _SERIES.match(path.stem)
    if match:
        return match["series"].rstrip("_-. ")
    folder = path.parent.name
    # A class folder says what is on the pictures, not from where they are.
    if folder != label and any(letter.isdigit() for letter in folder):
        return f"/{folder}"
    return ""
