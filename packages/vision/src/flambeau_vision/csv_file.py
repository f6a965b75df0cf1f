"""A CSV file as columns by name."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flambeau.errors import InputError


def read_csv(
    path: str | os.PathLike[str], *, rows: int | None = None
) -> Mapping[str, Sequence[Any]]:
    """Return the columns of a CSV file with a header; purely numeric columns as numbers.

    Args:
        path: The file, UTF-8; separated by comma, semicolon or tab, whichever is most frequent in
            the header.
        rows: Read only this many rows.

    Raises:
        InputError: The file does not exist, has no rows, or a row has another length.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist. Give a CSV file with a header.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        header_line = file.readline()
        file.seek(0)
        delimiter = max(",;\t", key=header_line.count)
        lines = itertools.islice(
            csv.reader(file, delimiter=delimiter), None if rows is None else rows + 1
        )
        table = [row for row in lines if row]
    if len(table) < 2:
        raise InputError(f"{path} has no rows below its header. Give at least one.")
    header, body = table[0], table[1:]
    for number, row in enumerate(body):
        if len(row) != len(header):
            raise InputError(
                f"Row {number} of {path} has {len(row)} fields, but the header has {len(header)}: "
                f"{row[:4]}"
            )
    columns = zip(*body, strict=True)
    return {name: _parse_column(column) for name, column in zip(header, columns, strict=True)}


def _parse_column(column: Sequence[str]) -> list[Any]:
    for kind in (int, float):
        try:
            return [kind(text) for text in column]
        except ValueError:
            continue
    return list(column)
