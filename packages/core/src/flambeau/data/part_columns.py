"""Recognise the names of parts (train, valid, test), and the table column that contains them."""

from __future__ import annotations

import re
import unicodedata
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
    # Spanish, Portuguese, Italian, French, German, Dutch, Chinese
    **dict.fromkeys(("entrenamiento", "treino", "treinamento", "addestramento"), "train"),
    **dict.fromkeys(("entraînement", "entrainement", "apprentissage", "训练"), "train"),
    **dict.fromkeys(("validación", "validacion", "validação", "validacao"), "valid"),
    **dict.fromkeys(("validazione", "validierung", "validatie", "验证"), "valid"),
    **dict.fromkeys(("prueba", "pruebas", "teste", "测试"), "test"),
}
"""Names of folders and values of a split column that denote a part, in lower case."""

# Words and endings beside the name of a part: training_set, TestImages, val-data, train2017.
_FILLERS = ("set", "data", "dataset", "images", "image", "imgs", "img", "samples", "split", "part")
_ENDINGS = (*_FILLERS, "daten", "sdaten", "集")
_WORD_BORDERS = re.compile(r"[\s_.-]+|(?:19|20)[0-9]{2}$")
# Borders inside a name: seg_train, PublicTest, Train80, trainA.
_INNER_BORDERS = re.compile(r"[\W_0-9]+|(?<=[a-z])(?=[A-Z])")

_GROUP_NAME = re.compile(
    r"(patient|subject|participant|person|speaker|session|household|group|site|video|scene)"
    r"s?([\s_-]?(id|no|nr|number))?",
    re.IGNORECASE,
)

# Columns with these names have the part of each row, whatever their cells are.
_SPLIT_COLUMNS = ("split", "data_split", "partition")
_YES, _NO = ("true", "1", "1.0", "yes"), ("false", "0", "0.0", "no")
_MOST_PART_NAMES = 20  # distinct cells of a column of parts
_FOLDS = re.compile(r"((k|cv)[\s_-]?)?folds?", re.IGNORECASE)


def part_of_name(name: str) -> Part | None:
    """Return the part that the name of a folder or the text of a cell denotes; None without one.

    Example:
        >>> [part_of_name(name) for name in ("Validation", "training_set", "testing-images", "cat")]
        ['valid', 'train', 'test', None]
    """
    plain = unicodedata.normalize("NFC", name).strip().lower()
    words = [word for word in _WORD_BORDERS.split(plain) if word]
    [word, *others] = [word for word in words if word not in _FILLERS] or [""]
    if others:
        return None
    for ending in ("", *_ENDINGS):
        if word.endswith(ending) and (part := PART_NAMES.get(word.removesuffix(ending))):
            return part
    return None


def part_in_name(name: str) -> Part | None:
    """Return the part that a word in the name denotes, although the name has other words.

    Example:
        >>> [part_in_name(name) for name in ("seg_train", "PublicTest", "Test20", "contest")]
        ['train', 'test', 'test', None]
    """
    words = filter(None, _INNER_BORDERS.split(name))
    return next((part for word in words if (part := part_of_name(word)) is not None), None)


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
    yes = _part_of_flag(column) or part_in_name(column) or "valid"
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
    name "split", or with the names of train and of another part, is returned whatever its other
    cells are, so that a cell that names no part is an error.

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
        if re.sub(r"\W+", "_", name.strip().lower()) in _SPLIT_COLUMNS:
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


def doubt_about_part_columns(table: Table, without: Collection[str] = ()) -> tuple[Reading, ...]:
    """Return a doubtful reading of columns that could contain parts but are not used as such.

    These are numbers of folds, and flags whose name contains a part: "in_test_set".
    """
    folds = [name for name in table.names if _FOLDS.fullmatch(name.strip())]
    flags = [
        name
        for name in table.names
        if part_in_name(name) is not None and _only(table.column(name), (*_YES, *_NO))
    ]
    found = [name for name in (*folds, *flags) if name not in without]
    if not found:
        return ()
    override = f"Use the column with split={found[0]!r}, on the command line --split {found[0]}."
    if found[0] in folds:
        override = (
            "For one fold as the valid part add a column: "
            f"frame['is_valid'] = frame[{found[0]!r}] == 0."
        )
    columns = "column" if len(found) == 1 else "columns"
    what = (
        f"The {columns} {name_some(map(repr, found))} of {table.name} could contain the parts of "
        "the rows, but no column is used as such."
    )
    return (Reading("split", what, {"columns": found}, (), 0.4, override),)


def _part_of_flag(column: str) -> Part | None:
    """Return the part of a column such as "is_valid" or "test"."""
    return part_of_name(re.sub(r"^is[_ -]?", "", column.strip(), flags=re.IGNORECASE))


def _only(cells: Sequence[Any], known: Collection[str]) -> bool:
    return bool(cells) and {str(cell).strip().lower() for cell in cells} <= set(known)


def _has_part_names(cells: Sequence[Any]) -> bool:
    """Return whether the cells name train and other parts, or all cells name several parts.

    Other cells ("holdout", "PublicTest", an empty one) may be among them.
    """
    names = {str(cell) for cell in cells}
    if len(names) > _MOST_PART_NAMES:
        return False
    parts = {part_of_name(name) for name in names}
    in_names = {part_in_name(name) for name in names} - {None}
    return len(in_names) > 1 and ("train" in parts or None not in parts)
