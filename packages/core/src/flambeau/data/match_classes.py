"""``match_classes``: the rows of data for evaluation whose labels are classes of the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from flambeau.data.known_classes import (
    LabelMatch,
    Unknown,
    match_columns,
    match_labels,
    match_tags,
)
from flambeau.data.label_rows import read_number_rows
from flambeau.data.targets import split_tags


class LabelOptions(Protocol):
    """How labels are read, as the options of a data class have it."""

    @property
    def classes(self) -> Sequence[str] | None:
        """The classes of the model."""
        ...

    @property
    def task(self) -> str | None:
        """The task of the model; None if it has one label per row."""
        ...

    @property
    def sep(self) -> str | None:
        """Separator between several labels of one row."""
        ...

    @property
    def unknown(self) -> Unknown:
        """What to do with rows of unknown classes; see `match_labels`."""
        ...


def match_classes(labels: Sequence[Any], options: LabelOptions) -> LabelMatch | None:
    """Return the rows whose labels are classes of the model; None if the model has no classes.

    Args:
        labels: One label per row, of any form that ``read_labels`` reads.
        options: Classes and task of the model, and how labels are read.

    Raises:
        InputError: Labels are unknown; the message gives the number of rows of each.
    """
    if options.classes is None or options.task == "regression":
        return None
    columns = read_number_rows(labels)
    if columns is not None:
        return match_columns(columns, labels, options.classes)
    if options.task in (None, "classification"):
        return match_labels(labels, options.classes, options.unknown)
    tags = split_tags(labels, options.sep, "row {}".format)
    return match_tags(tags, options.classes, options.unknown)
