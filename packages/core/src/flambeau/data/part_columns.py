"""Recognise the names of parts (train, valid, test), and the table column that contains them."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from flambeau.data.reading import Reading
from flambeau.data.split import PARTS, Part
from flambeau.data.tables import Table
from flambeau.errors import SplitError
from flambeau.wording import name_some

PART_NAMES: Mapping[str, Part] = {
    **{part: part for part in PARTS},
    "training": "train",
    "trn": "train",
    "val": "valid",
    "validation": "valid",
    "validate": "valid",
    "dev": "valid",
    "testing": "test",
    "tst": "test",
}
"""Names of folders and values of a split column that denote a part, in lower case."""

# Words and endings beside the name of a part: training_set, TestImages, val-data, train2017.
_FILLERS = ("set", "data", "dataset", "images", "image", "imgs", "img", "samples", "split", "part")
_WORD_BORDERS = re.compile(r"[\s_.-]+|(?:19|20)[0-9]{2}$")

_GROUP_NAME = re.compile(
    r"(patient|subject|participant|person|speaker|session|household|group|site|video|scene)"
    r"s?([\s_-]?(id|no|nr|number))?",
    re.IGNORECASE,
)

# Columns with these names have the part of each row, whatever their cells are.
_SPLIT_COLUMNS = ("split", "data_split", "partition")
_YES, _NO = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")


def part_of_name(name: str) -> Part | None:
    """Return the part that the name of a folder or the text of a cell denotes; None without one.

    Example:
        >>> [part_of_name(name) for name in ("Validation", "training_set", "testing-images", "cat")]
        ['valid', 'train', 'test', None]
    """
    words = [word for word in _WORD_BORDERS.split(name.strip().lower()) if word]
    [word, *others] = [word for word in words if word not in _FILLERS] or [""]
    if others:
        return None
    for ending in ("", *_FILLERS):
        if word.endswith(ending) and (part := PART_NAMES.get(word.removesuffix(ending))):
            return part
    return None


def is_group_name(column: str) -> bool:
    """Return whether the name of a column suggests groups of similar samples, as of one patient."""
    return _GROUP_NAME.fullmatch(column.strip()) is not None


def read_part_column(values: Iterable[Any], column: str, table: str) -> list[Part]:
    """Return the part of each row, as given in the cells of a split column.

    Args:
        values: The cells: "train", "valid", "test" or another name that `part_of_name` knows; or
            bools (or 0 and 1). True denotes the part in the name of the column ("is_test": test),
            or valid if the name contains no part.
        column: Name of the column.
        table: Name of the table, for messages.

    Raises:
        SplitError: A cell denotes no part; the message has its row.
    """
    yes = _part_of_flag(column) or "valid"
    no: Part = "valid" if yes == "train" else "train"
    found: list[Part] = []
    for row, value in enumerate(values):
        name = str(value).strip().lower()
        if name in _YES:
            found.append(yes)
        elif name in _NO:
            found.append(no)
        elif (part := part_of_name(name)) is not None:
            found.append(part)
        else:
            raise SplitError(
                f"The split column {column!r} has {value!r:.60} in row {row} of {table}. Use "
                f"{', '.join(PARTS)}, or True for {yes} and False for {no}. If the column is no "
                "split, pass split=False, on the command line --split none."
            )
    return found


def find_part_column(table: Table, without: Collection[str] = ()) -> tuple[str, Reading] | None:
    """Return the column that contains the part of each row, and why; None if there is none.

    In this column every cell names a part, or it is a flag such as "is_valid". A column with the
    name "split" is returned whatever its cells are, so that a cell that names no part is an error.

    Args:
        table: The table.
        without: Columns with another meaning, such as the labels.

    Raises:
        SplitError: Several columns could contain the parts.
    """
    found: dict[str, float] = {}
    for name in table.names:
        if name in without:
            continue
        is_flag = _part_of_flag(name) is not None
        if name.strip().lower() in _SPLIT_COLUMNS:
            found[name] = 0.95
        elif is_flag and _only(table.column(name), (*_YES, *_NO)):
            # "valid" alone may also mark rows that are usable.
            found[name] = 0.9 if name.strip().lower().startswith("is") else 0.4
        elif is_flag and name.strip().lower().startswith("is"):
            found[name] = 0.9  # an unknown cell is an error
        elif _has_part_names(table.column(name)):
            found[name] = 0.9
    if not found:
        return None
    if len(found) > 1:
        raise SplitError(
            f"Several columns of {table.name} could contain the part of each row: "
            f"{name_some(map(repr, found))}. Choose one with split=…, on the command line --split "
            "(split=False, --split none for a random split)."
        )
    [(name, confidence)] = found.items()
    cells = name_some(sorted(set(map(str, table.column(name)))))
    reading = Reading(
        "split",
        f"The column {name!r} of {table.name} contains the part of each row ({cells}).",
        {"column": name},
        ("a random split",),
        confidence,
        "For a random split pass split=False, on the command line --split none; for another column "
        "pass its name.",
    )
    return name, reading


def _part_of_flag(column: str) -> Part | None:
    """Return the part of a column such as "is_valid" or "test"."""
    return part_of_name(re.sub(r"^is[_ -]?", "", column.strip(), flags=re.IGNORECASE))


def _only(cells: Sequence[Any], known: Collection[str]) -> bool:
    return bool(cells) and {str(cell).strip().lower() for cell in cells} <= set(known)


def _has_part_names(cells: Sequence[Any]) -> bool:
    """Return whether every cell is the name of a part, and there are several parts."""
    names = {str(cell) for cell in cells}
    parts = {part_of_name(name) for name in names} if len(names) <= len(PART_NAMES) else {None}
    return len(parts) > 1 and None not in parts
