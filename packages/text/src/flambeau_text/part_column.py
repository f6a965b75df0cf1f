"""The parts of tables of texts: a frame for each, or a column that has the part of each row."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from flambeau.data.part_columns import doubt_about_part_columns, find_part_column
from flambeau.data.reading import Reading
from flambeau.data.split_request import SplitRequest
from flambeau.data.tables import Table, read_table


def split_of_option(value: str | None) -> str | bool | None:
    """Return ``split`` for the option ``--split``: "none" means that no column has the parts."""
    return False if value == "none" else value


def read_frames(frame: Any, request: SplitRequest) -> dict[str, Table]:
    """Return the tables of a ``from_df``: of train, and of each part with a frame of its own.

    Raises:
        SplitError: A part has its own frame, and ``split`` is given too.
    """
    return {
        part: read_table(each, "frame" if part == "train" else f"{part} frame")
        for part, each in {"train": frame, **request.separate(object)}.items()
    }


def part_column(
    table: Table, request: SplitRequest, known: Collection[str]
) -> tuple[str | None, tuple[Reading, ...]]:
    """Return the column with the part of each row, if there is one, and why it is used.

    Args:
        table: The table.
        request: The requested split, which may name the column or give the rows of each part.
        known: Columns with another meaning.

    Raises:
        SplitError: Several columns could contain the parts.
    """
    if request.column is not None or request.split is not None:
        return request.column, ()
    match = find_part_column(table, known)
    if match is None:
        return None, doubt_about_part_columns(table, known)
    return match[0], (match[1],)
