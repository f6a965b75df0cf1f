"""Functions that read tables, files, folders, arrays and data sets as ``LabelledTexts``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from flambeau.data.label_columns import label_rows_of_columns
from flambeau.data.label_rows import list_labels
from flambeau.data.part_columns import read_part_column
from flambeau.data.split import Rows
from flambeau.data.split_request import SplitRequest, consecutive_rows, rows_by_part
from flambeau.data.tables import Table, read_csv, read_table, to_list
from flambeau.errors import ArgumentError, InputError
from flambeau.tensors.columns import as_sample_weights, weights_of_column
from flambeau_text.checked_text import refuse_names
from flambeau_text.classification.assemble import LabelledTexts, TextDataArguments, assemble
from flambeau_text.classification.columns import (
    TextTable,
    as_names,
    check_column,
    find_columns,
    find_text_column,
    unused_columns,
)
from flambeau_text.classification.options import TextOptions
from flambeau_text.part_column import part_column
from flambeau_text.text_lines import read_lines
from flambeau_text.word_count import count_words

# ---------------------------------------------------------------- tables


def read_text_table(
    source: TextTable, request: SplitRequest, options: TextOptions, *, separate: bool = False
) -> tuple[LabelledTexts, TextOptions]:
    """Read the texts and labels of a table, and return the options with the columns found.

    Args:
        source: The table.
        request: The requested split.
        options: How the table is read.
        separate: Whether the parts were given separately, so that no column has them.

    Raises:
        InputError: A column does not exist or cannot be found, or its cells cannot be used.
        SplitError: A cell of the split column names no part.
    """
    table = source.table
    source = replace(source, text=source.text or options.text, label=source.label or options.label)
    labels = [source.label] if isinstance(source.label, str) else list(source.label or ())
    known = [*as_names(source.text), *labels, "text", "label"]
    column, readings = (None, ()) if separate else part_column(table, request, known)
    roles = [name for name in (column, options.weight, options.group) if name is not None]
    for name in roles:
        check_column(table, name)
    columns = find_columns(source, without=roles)
    given = {}
    if column is not None:
        given = rows_by_part(read_part_column(table.column(column), column, table.name))
    options = options.updated({"text": columns.texts, "label": columns.label})
    if isinstance(columns.label, str):
        found_labels: list[Any] = table.column(columns.label)
        _refuse_row_as_header(table, columns.texts, columns.label, found_labels)
        order = source.orders.get(columns.label)
        if order is not None and options.task in (None, "classification") and not options.sep:
            options = options.updated({"classes": options.classes or order})
    else:
        found_labels = label_rows_of_columns(table, columns.label)
        options = options.updated({"classes": options.classes or columns.label})
    cells = [table.column(name) for name in columns.texts]
    texts = cells[0] if len(cells) == 1 else list(zip(*cells, strict=True))
    found = LabelledTexts(
        texts,
        found_labels,
        [f"{table.name}, row {row}" for row in range(len(texts))],
        given,
        None if options.weight is None else weights_of_column(table, options.weight),
        None if options.group is None else table.column(options.group),
        readings=(
            *readings,
            *columns.readings,
            *unused_columns(table, (*columns.names, *roles)),
        ),
    )
    return found, options


def _refuse_row_as_header(
    table: Table, texts: Sequence[str], label: str, labels: Sequence[Any]
) -> None:
    """Raise an InputError if the names of the columns are a text and its label."""
    if label not in set(map(str, labels)) or any(count_words(name) < 2 for name in texts):
        return
    raise InputError(
        f"The columns of {table.name} are named {texts[0]!r:.60} and {label!r}, which is also a "
        "label: its first row was probably read as a header. Add a line with the names of the "
        "columns, such as text,label; with pandas use read_csv(…, names=[…])."
    )


def join_tables(parts: Mapping[str, Table]) -> tuple[Table, dict[str, Any]]:
    """Return one table with the rows of all parts, and the rows of each part.

    Raises:
        InputError: A part lacks a column that train has.
    """
    train = parts["train"]
    if len(parts) == 1:
        return train, {}
    for part, table in parts.items():
        if missing := [name for name in train.names if name not in table]:
            raise InputError(
                f"The {part} table ({table.name}) has no column {missing[0]!r}, which that of "
                "train has. Give the same columns in each table."
            )
    columns = {
        name: [cell for table in parts.values() for cell in table.column(name)]
        for name in train.names
    }
    sizes = {part: len(table.column(train.names[0])) for part, table in parts.items()}
    return read_table(columns, " and ".join(table.name for table in parts.values())), dict(
        consecutive_rows(sizes)
    )


def read_json_lines(path: Path) -> Table:
    """Read a file with a JSON object per line as a table.

    Raises:
        InputError: The file is missing or not UTF-8, or a line is not a JSON object; the message
            names the line.
    """
    rows: list[Mapping[str, Any]] = []
    for number, line in enumerate(read_lines(path), start=1):
        if not line.strip():
            continue
        try:
            value: Any = json.loads(line)
        except json.JSONDecodeError as error:
            raise InputError(
                f"{path}, line {number} is not JSON: {error.msg} at character {error.pos + 1}. "
                "Each line must be one object with a text and a label."
            ) from None
        if not isinstance(value, Mapping):
            raise InputError(
                f"{path}, line {number} is {value!r:.60}, not an object. Write "
                '{"text": …, "label": …} on each line.'
            )
        rows.append(cast("Mapping[str, Any]", value))
    return table_of_rows(rows, path.name)


def table_of_rows(rows: Sequence[Mapping[str, Any]], name: str) -> Table:
    """Return mappings as the rows of a table; a field that a row lacks is None.

    Raises:
        InputError: There are no rows.
    """
    if not rows:
        raise InputError(f"{name} has no rows. Give at least one text with its label.")
    names = list(dict.fromkeys(str(key) for row in rows for key in row))
    return read_table({key: [row.get(key) for row in rows] for key in names}, name)


def rows_of_json(path: Path) -> list[Mapping[str, Any]]:
    """Return the objects in a file of JSON lines; see `read_json_lines`."""
    return rows_of_table(read_json_lines(path))


def rows_of_csv(path: Path) -> list[Mapping[str, Any]]:
    """Return the rows of a CSV file, every cell as text."""
    return rows_of_table(read_csv(path))


def rows_of_table(table: Table) -> list[Mapping[str, Any]]:
    """Return the rows of a table as mappings."""
    columns = [table.column(name) for name in table.names]
    return [dict(zip(table.names, cells, strict=True)) for cells in zip(*columns, strict=True)]


def assemble_table(
    source: TextTable, given: Mapping[str, Rows], request: SplitRequest, options: TextOptions
) -> TextDataArguments:
    """Return the arguments of ``TextData`` for a table.

    Args:
        source: The table.
        given: Rows of each part, if the parts were given separately.
        request: The requested split.
        options: How the table is read.
    """
    found, options = read_text_table(source, request, options, separate=bool(given))
    if given:
        locations = [
            f"{source.table.name}, {part} row {row}"
            for part, rows in given.items()
            for row in range(len(rows))
        ]
        found = replace(found, given=given, locations=locations)
    return assemble(found, request, options)


def csv_source(table: Table, text: Any, label: Any, options: TextOptions) -> TextTable:
    """Return the table of a CSV file; number-like cells are numbers, except in the texts.

    The label "a,b" names two columns unless "a,b" is one.
    """
    text, label = text or options.text, label or options.label
    if isinstance(label, str) and label not in table and "," in label:
        label = [name.strip() for name in label.split(",")]
    labels = [label] if isinstance(label, str) else list(label or ())
    numbers = table.with_numbers()
    found = as_names(text) or find_text_column(numbers, labels)[:1]
    return TextTable(table.with_numbers(text=found), text, label)


# ---------------------------------------------------------------- arrays


def read_arrays(
    texts: Any,
    labels: Any,
    request: SplitRequest,
    options: TextOptions,
    sample_weight: Any = None,
    group: Any = None,
) -> tuple[LabelledTexts, TextOptions]:
    """Read sequences of texts and labels; see ``TextData.from_arrays``."""
    pairs = {"train": (texts, labels), **request.separate(tuple, pair="(texts, labels)")}
    all_texts: list[Any] = []
    all_labels: list[Any] = []
    locations: list[str] = []
    sizes: dict[str, int] = {}
    names: Sequence[str] | None = None
    for part, pair in pairs.items():
        if isinstance(pair[0], str):
            raise ArgumentError(
                f"The {part} texts are one text. Give a list of texts, and a list of labels."
            )
        refuse_names(pair[0], f"{part} texts", "TextData.from_df(…)")
        own = to_list(pair[0])
        found, columns = list_labels(pair[1])
        if len(own) != len(found):
            raise InputError(
                f"There are {len(own):,} {part} texts, but {len(found):,} labels. Give one label "
                "per text."
            )
        names = columns if part == "train" else names
        all_texts += own
        all_labels += list(found)
        locations += [f"{part} text {row}" for row in range(len(own))]
        sizes[part] = len(own)
    options = options.updated({"classes": options.classes or names})
    weights = None
    if sample_weight is not None:
        weights = as_sample_weights(sample_weight)
        _check_length("sample_weight", len(weights), sizes)
        weights = _with_ones(weights, sum(sizes.values()))
    groups = None
    if group is not None:
        groups = to_list(group)
        _check_length("group", len(groups), sizes)
        if len(sizes) > 1:
            raise InputError(
                f"group has the groups of the train texts, but {', '.join([*sizes][1:])} is given "
                "separately. Give all texts together and the size of each part (valid=0.2)."
            )
    rows = consecutive_rows(sizes)
    given = rows if len(rows) > 1 else {}
    return LabelledTexts(all_texts, all_labels, locations, given, weights, groups), options


def _check_length(name: str, n: int, sizes: Mapping[str, int]) -> None:
    if n != sizes["train"]:
        raise InputError(
            f"There are {sizes['train']:,} train texts, but {n:,} entries in {name}. Give one per "
            "text."
        )


def _with_ones(weights: Any, n: int) -> Any:
    """Return the weights of train, and 1 for the texts of other parts."""
    import torch

    return torch.cat([weights, weights.new_ones(n - len(weights))])
