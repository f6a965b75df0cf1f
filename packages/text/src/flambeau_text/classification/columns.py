"""Find the columns of a table that have the texts and the labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flambeau.data.ordered_names import in_order
from flambeau.data.reading import Reading
from flambeau.data.tables import Table
from flambeau.errors import InputError, did_you_mean
from flambeau.wording import name_some
from flambeau_text.word_count import count_words

TEXT_NAMES = ("text", "texts", "sentence", "document", "review", "comment", "content", "message")
"""Usual names of the column of texts, the most usual first."""

LABEL_NAMES = ("label", "labels", "target", "class", "category", "sentiment", "y")
"""Usual names of the column of labels, the most usual first."""

_ROWS_SEEN = 100
_FEWEST_WORDS = 3.0  # on average, in a column of texts
_MUCH_LONGER = 3.0  # times the words of the next longest column


@dataclass(frozen=True)
class TextTable:
    """A table of texts and labels.

    Attributes:
        table: The columns.
        text: Name of the column of texts, or of the two columns of pairs; None finds one.
        label: Name of the column of labels, or of several; None finds it.
        orders: The categories of the columns that have an order of their own.
    """

    table: Table
    text: str | Sequence[str] | None = None
    label: str | Sequence[str] | None = None
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


@dataclass(frozen=True)
class TextColumns:
    """The columns of texts and labels, and how they were found."""

    texts: tuple[str, ...]
    label: str | tuple[str, ...]
    readings: tuple[Reading, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all these columns."""
        labels = (self.label,) if isinstance(self.label, str) else self.label
        return (*self.texts, *labels)


def find_columns(source: TextTable, without: Collection[str] = ()) -> TextColumns:
    """Return the columns of texts and labels.

    Args:
        source: The table.
        without: Columns with another meaning, such as that of the parts.

    Raises:
        InputError: A column does not exist, or cannot be found.
    """
    table, readings = source.table, list[Reading]()
    labels: tuple[str, ...] = ()
    if isinstance(source.label, str):
        labels = (source.label,)
    elif source.label is not None:
        labels = tuple(in_order(source.label, "label", "column"))
    texts = as_names(source.text)
    for name in (*texts, *labels):
        check_column(table, name)
    if both := [name for name in texts if name in labels]:
        raise InputError(
            f"text and label are both {both[0]!r}. Name two columns: text=… and label=…, on "
            "the command line --text and --target."
        )
    if not texts:
        text, reading = find_text_column(table, (*labels, *without))
        texts, readings = (text,), [*readings, *reading]
    if not labels:
        label, reading = _find_label_column(table, (*texts, *without))
        return TextColumns(texts, label, (*readings, *reading))
    return TextColumns(texts, labels[0] if len(labels) == 1 else labels, tuple(readings))


def as_names(text: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the columns of texts; empty for None."""
    if text is None:
        return ()
    return (text,) if isinstance(text, str) else tuple(text)


def check_column(table: Table, name: str) -> None:
    """Raise an InputError that names the nearest column if the table has no such column."""
    if name not in table:
        raise InputError(f"{table.name} has no column {name!r}. {did_you_mean(name, table.names)}")


def find_text_column(table: Table, without: Collection[str] = ()) -> tuple[str, list[Reading]]:
    """Return the column of texts: one named so, else the only one with several words per cell.

    Args:
        table: The table.
        without: Columns with another meaning.

    Raises:
        InputError: There is no such column, or several columns could be meant.
    """
    names = [name for name in table.names if name not in without]
    words = {name: each for name in names if (each := _mean_words(table, name)) is not None}
    by_name = _first_named(words, TEXT_NAMES)
    if by_name is None and TEXT_NAMES[0] in names:  # its cells are numbers
        by_name = TEXT_NAMES[0]
    if by_name is not None:
        return by_name, []
    long = sorted((name for name in words if words[name] >= _FEWEST_WORDS), key=words.__getitem__)
    if len(words) == 1:
        long = list(words)
    is_clear = len(long) == 1 or (
        len(long) > 1 and words[long[-1]] >= _MUCH_LONGER * words[long[-2]]
    )
    if not is_clear:
        raise InputError(
            f"It is not clear which column of {table.name} has the texts: "
            f"{name_some(map(repr, names), most=10)}. Name it: text=…, on the command line --text."
        )
    found = long[-1]
    what = (
        f"The texts are in the column {found!r} of {table.name}, whose first {_ROWS_SEEN} cells "
        f"have {words[found]:.1f} words on average."
    )
    others = tuple(name for name in words if name != found)
    override = "For another column pass text=…, on the command line --text."
    evidence = {"column": found, "words": round(words[found], 1)}
    return found, [Reading("targets", what, evidence, others, 0.8, override)]


def _find_label_column(table: Table, without: Collection[str]) -> tuple[str, list[Reading]]:
    names = [name for name in table.names if name not in without]
    by_name = _first_named(names, LABEL_NAMES)
    if by_name is not None:
        others = [name for name in names if name.strip().lower() in LABEL_NAMES and name != by_name]
        if not others:
            return by_name, []
        what = (
            f"The labels are in the column {by_name!r} of {table.name}; "
            f"{name_some(map(repr, others))} could have them, too."
        )
        override = f"For another column pass label={others[0]!r}, on the command line --target."
        return by_name, [
            Reading("targets", what, {"column": by_name}, tuple(others), 0.45, override)
        ]
    if len(names) == 1:
        what = f"The labels are in the column {names[0]!r} of {table.name}, the only other column."
        override = "For another column pass label=…, on the command line --target."
        return names[0], [Reading("targets", what, {"column": names[0]}, (), 0.9, override)]
    shown = name_some(map(repr, names), most=10) if names else "none besides the texts"
    raise InputError(
        f"It is not clear which column of {table.name} has the labels: {shown}. Name it: label=…, "
        "on the command line --target."
    )


def unused_columns(table: Table, used: Collection[str]) -> list[Reading]:
    """Report the columns that are not used."""
    unused = [name for name in table.names if name not in used]
    if not unused:
        return []
    what = f"Columns of {table.name} that are not used: {name_some(unused, most=10)}."
    return [Reading("targets", what, {"unused": len(unused)}, (), 0.9)]


def _first_named(names: Collection[str], known: Sequence[str]) -> str | None:
    plain = {name.strip().lower(): name for name in reversed(list(names))}
    return next((plain[name] for name in known if name in plain), None)


def _mean_words(table: Table, name: str) -> float | None:
    """Return the mean number of words of the first cells of text; None for other columns."""
    cells: list[Any] = table.column(name)[:_ROWS_SEEN]
    texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    if not texts or any(not isinstance(cell, str | None) and cell == cell for cell in cells):  # noqa: PLR0124  NaN
        return None
    return sum(map(count_words, texts)) / len(texts)
