"""Compare the labels of data for evaluation with the classes of the trained model."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flambeau.data.label_rows import NumberRows
from flambeau.data.reading import Reading
from flambeau.data.tables import to_list
from flambeau.errors import InputError
from flambeau.wording import name_some

Unknown = Literal["raise", "skip"]


@dataclass(frozen=True)
class LabelMatch:
    """The rows whose labels are classes of the model.

    Attributes:
        rows: The numbers of these rows, ascending.
        labels: The name of the model's class for each of these rows.
        readings: Notes on how the labels differ from the classes of the model.
    """

    rows: list[int]
    labels: list[Any]
    readings: tuple[Reading, ...]


def match_labels(
    labels: Sequence[Any], classes: Sequence[str], unknown: Unknown = "raise"
) -> LabelMatch:
    """Return the labels that are classes of a model, in the spelling of the model.

    Upper and lower case, and the Unicode form of accents, may differ if only one class matches. If
    the labels are whole numbers and no class is named by one of them, they are class indices and
    are returned unchanged.

    Args:
        labels: One label per row.
        classes: The classes of the model.
        unknown: "raise" an error if a label is not a class of the model, or "skip" its rows.

    Raises:
        InputError: Labels are unknown; the message gives the number of rows of each.
    """
    counts = Counter(labels)
    if all(isinstance(label, int) for label in counts) and not set(map(str, counts)) & set(classes):
        return LabelMatch(list(range(len(labels))), list(labels), ())
    class_of = _classes_of(counts, classes)
    rows = [row for row, label in enumerate(labels) if class_of[label] is not None]
    readings = _check(counts, class_of, classes, unknown, rows)
    return LabelMatch(rows, [class_of[labels[row]] for row in rows], readings)


def match_tags(
    tags: Sequence[Sequence[str]], classes: Sequence[str], unknown: Unknown = "raise"
) -> LabelMatch:
    """Return the rows whose labels are all classes of a model, with the labels as it spells them.

    Args:
        tags: The labels of each row.
        classes: The classes of the model.
        unknown: As for `match_labels`.

    Raises:
        InputError: Labels are unknown; the message gives the number of rows of each.
    """
    counts = Counter(tag for row in tags for tag in dict.fromkeys(row))
    class_of = _classes_of(counts, classes)
    rows = [row for row, each in enumerate(tags) if all(class_of[tag] is not None for tag in each)]
    readings = _check(counts, class_of, classes, unknown, rows)
    return LabelMatch(rows, [[class_of[tag] for tag in tags[row]] for row in rows], readings)


def match_columns(rows: NumberRows, labels: Sequence[Any], classes: Sequence[str]) -> LabelMatch:
    """Return all rows of labels that are columns of 0 and 1, one for each class of the model.

    Args:
        rows: The labels as numbers.
        labels: The labels, which are returned unchanged.
        classes: The classes of the model.
    """
    readings: tuple[Reading, ...] = ()
    if rows.values.shape[1] == len(classes):
        used: list[bool] = to_list(rows.values.any(axis=0))
        found = {name for name, is_used in zip(classes, used, strict=True) if is_used}
        readings = tuple(_absent(found, classes))
    return LabelMatch(list(range(len(labels))), list(labels), readings)


def name_as_in(name: str, names: Collection[str]) -> str:
    """Return the spelling in ``names`` if only the Unicode form of accents differs, else ``name``.

    File systems and archives of macOS decompose the accented letters in names.
    """
    if name in names or name.isascii():
        return name
    composed = unicodedata.normalize("NFC", name)
    same = [each for each in names if unicodedata.normalize("NFC", each) == composed]
    return same[0] if same else name


def _classes_of(counts: Mapping[Any, int], classes: Sequence[str]) -> dict[Any, str | None]:
    """Return the class of the model for each distinct label; None for a label without one."""
    folded = Counter(map(_folded, classes))
    by_name = {_folded(name): name for name in classes if folded[_folded(name)] == 1}
    return {
        label: text if (text := _name(label)) in classes else by_name.get(_folded(text))
        for label in counts
    }


def _check(
    counts: Mapping[Any, int],
    class_of: Mapping[Any, str | None],
    classes: Sequence[str],
    unknown: Unknown,
    rows: Sequence[int],
) -> tuple[Reading, ...]:
    """Return notes on labels that differ from the classes; ``rows`` are those that can be used.

    Raises:
        InputError: Labels are unknown, and unknown is "raise" or no row can be used.
    """
    missing = {label: n for label, n in counts.items() if class_of[label] is None}
    shown = name_some((f"{label} ({n:,})" for label, n in missing.items()), most=10)
    if missing and (unknown == "raise" or not rows):
        which = "All" if len(missing) == len(counts) else f"{len(missing):,} of {len(counts):,}"
        raise InputError(
            f"{which} classes of the data are not classes of the model: {shown}. The model knows "
            f"{name_some(classes, most=20)}. Leave these samples out with unknown='skip', on the "
            "command line --unknown skip, or correct the labels."
        )
    left_out = f"Rows left out, because the model does not know their class: {shown}."
    return (
        *([_note(left_out)] if missing else []),
        *_other_spelling(class_of),
        *_absent(set(class_of.values()), classes),
    )


def _other_spelling(class_of: Mapping[Any, str | None]) -> list[Reading]:
    changed = [
        f"{ascii_if_accents(label)} as {ascii_if_accents(name)}"
        for label, name in class_of.items()
        if name and _name(label) != name
    ]
    if not changed:
        return []
    return [
        _note(
            "Labels in another case or Unicode form than the model's classes: "
            f"{name_some(changed)}."
        )
    ]


def ascii_if_accents(name: object) -> str:
    """Return a name, with escapes if it has combining characters, which look like letters."""
    text = str(name)
    return ascii(text) if any(map(unicodedata.combining, text)) else text


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _absent(found: Collection[str | None], classes: Sequence[str]) -> list[Reading]:
    absent = [name for name in classes if name not in found]
    if not absent:
        return []
    return [_note(f"No sample has the class {name_some(absent)}, so the scores say nothing of it.")]


def _note(what: str) -> Reading:
    return Reading("targets", what)


def _name(label: Any) -> str:
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
