"""Compare the labels of data for evaluation with the classes of the trained model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from flambeau.data.reading import Reading
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

    Upper and lower case may differ if only one class matches. If the labels are whole numbers and
    no class is named by one of them, they are class indices and are returned unchanged.

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
    folded = Counter(name.casefold() for name in classes)
    by_case = {name.casefold(): name for name in classes if folded[name.casefold()] == 1}
    class_of: dict[Any, str | None] = {
        label: text if (text := _name(label)) in classes else by_case.get(text.casefold())
        for label in counts
    }
    missing = {label: n for label, n in counts.items() if class_of[label] is None}
    shown = name_some((f"{label} ({n:,})" for label, n in missing.items()), most=10)
    if missing and (unknown == "raise" or len(missing) == len(counts)):
        which = "All" if len(missing) == len(counts) else f"{len(missing):,} of {len(counts):,}"
        raise InputError(
            f"{which} classes of the data are not classes of the model: {shown}. The model knows "
            f"{name_some(classes, most=20)}. Leave these samples out with unknown='skip', on the "
            "command line --unknown skip, or correct the labels."
        )
    rows = [row for row, label in enumerate(labels) if class_of[label] is not None]
    readings = [
        *(
            [_note(f"Rows left out, because the model does not know their class: {shown}.")]
            * bool(missing)
        ),
        *_other_case(class_of),
        *_absent(set(class_of.values()), classes),
    ]
    return LabelMatch(rows, [class_of[labels[row]] for row in rows], tuple(readings))


def _other_case(class_of: dict[Any, str | None]) -> list[Reading]:
    changed = [
        f"{label} as {name}" for label, name in class_of.items() if name and _name(label) != name
    ]
    if not changed:
        return []
    return [_note(f"Labels in another case than the model's classes: {name_some(changed)}.")]


def _absent(found: set[str | None], classes: Sequence[str]) -> list[Reading]:
    absent = [name for name in classes if name not in found]
    if not absent:
        return []
    return [_note(f"No sample has the class {name_some(absent)}, so the scores say nothing of it.")]


def _note(what: str) -> Reading:
    return Reading("targets", what)


def _name(label: Any) -> str:
    return str(int(label)) if isinstance(label, float) and label.is_integer() else str(label)
