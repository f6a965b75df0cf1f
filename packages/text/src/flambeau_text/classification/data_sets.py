"""Read data sets of Hugging Face, and other sequences of pairs or mappings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from flambeau.data.part_columns import part_of_name
from flambeau.data.split import PARTS
from flambeau.data.split_request import SplitRequest
from flambeau.data.tables import Table, read_table
from flambeau.errors import ArgumentError, InputError
from flambeau.wording import name_some
from flambeau_text.checked_text import refuse_names
from flambeau_text.classification.columns import TextTable, find_columns
from flambeau_text.classification.options import TextOptions
from flambeau_text.classification.sources import join_tables, table_of_rows


def read_datasets(
    train: Any, request: SplitRequest, options: TextOptions
) -> tuple[Table, dict[str, Any], TextOptions]:
    """Read data sets of mappings or pairs, also those of Hugging Face; see ``from_datasets``.

    Returns:
        One table, the rows of each part, and the options.

    Raises:
        ArgumentError: A data set has no length, or its samples are neither mappings nor pairs.
        InputError: Two parts number their classes differently.
    """
    parts: dict[str, Any] = {"train": train, **request.separate(object)}
    if isinstance(train, Mapping):
        parts = parts_of_mapping(cast("Mapping[str, Any]", train), request, "TextData")
    tables: dict[str, Table] = {}
    classes: dict[str, list[str]] = {}
    for part, items in parts.items():
        tables[part], classes[part] = _table_of(items, part, options)
        if classes[part] != classes["train"]:
            raise InputError(
                f"The classes of {part} are {name_some(classes[part])}, but those of train are "
                f"{name_some(classes['train'])}, so the same class number has two meanings. Give "
                "all data sets the same classes in the same order."
            )
    table, rows = join_tables(tables)
    if (names := classes["train"]) and options.classes is None:
        found = find_columns(TextTable(table, options.text, options.label))
        cells: list[Any] = [] if not isinstance(found.label, str) else table.column(found.label)
        present = {name for cell in cells for name in (cell if isinstance(cell, list) else [cell])}
        options = options.updated({"classes": [name for name in names if name in present]})
    return table, rows, options


def parts_of_mapping(
    sets: Mapping[str, Any], request: SplitRequest, data_class: str
) -> dict[str, Any]:
    """Return the data sets of a mapping such as ``DatasetDict`` by part.

    Args:
        sets: The data sets by the names of their parts.
        request: The requested split.
        data_class: Name of the data class, for messages.

    Raises:
        ArgumentError: A name is not that of a part, or train is missing.
    """
    found = {part_of_name(str(name)): each for name, each in sets.items()}
    if "train" not in found or None in found or len(found) < len(sets):
        raise ArgumentError(
            f"The data sets have the names {name_some(map(repr, sets))}; each must name a part, "
            "and one must be train. Pass the data sets one by one: "
            f"{data_class}.from_datasets(sets['train'], valid=sets['dev'])."
        )
    request.refuse_unused_sizes({part: None for part in found if part and part != "train"})
    return {part: found[part] for part in PARTS if part in found}


def _table_of(items: Any, part: str, options: TextOptions) -> tuple[Table, list[str]]:
    """Return a data set as a table, with the names of its classes in their order."""
    table = table_of_data_set(items, part, ("text", "label"), "TextData")
    if not is_hugging_face(items):
        return table, []
    found = find_columns(TextTable(table, options.text, options.label))
    if not isinstance(found.label, str):
        return table, []
    return with_class_names(table, items, found.label, part)


def is_hugging_face(items: Any) -> bool:
    """Return whether an object is a data set of Hugging Face."""
    return isinstance(getattr(items, "column_names", None), list) and hasattr(items, "features")


def table_of_data_set(items: Any, part: str, pair: tuple[str, str], data_class: str) -> Table:
    """Return a data set of mappings or pairs as a table, also one of Hugging Face.

    Args:
        items: The data set.
        part: Name of the part.
        pair: Names of both values of pairs.
        data_class: Name of the data class, for messages.

    Raises:
        ArgumentError: It has no length or no index, or its samples are neither mappings nor pairs.
    """
    if is_hugging_face(items):
        if not hasattr(items, "__len__"):
            raise ArgumentError(
                f"The {part} data set is a {type(items).__name__}, which is read as a stream. Load "
                "it: datasets.load_dataset(…, streaming=False), or give a list of its rows."
            )
        return read_table({name: list(items[name]) for name in items.column_names}, part)
    refuse_names(items, f"the {part} data set", f"{data_class}.from_df(…)")
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
        raise ArgumentError(
            f"The {part} data set is a {type(items).__name__}, which lacks __len__ or __getitem__. "
            "Give a list of rows, or a map-style data set."
        )
    return _table_of_samples((items[index] for index in range(len(items))), part, pair)


def _table_of_samples(samples: Iterable[Any], part: str, pair: tuple[str, str]) -> Table:
    rows: list[Mapping[str, Any]] = []
    for index, sample in enumerate(samples):
        if isinstance(sample, Mapping):
            rows.append(cast("Mapping[str, Any]", sample))
        elif isinstance(sample, tuple | list) and len(cast("Sequence[Any]", sample)) == 2:
            rows.append(dict(zip(pair, cast("Sequence[Any]", sample), strict=True)))
        else:
            raise ArgumentError(
                f"Sample {index} of {part} is a {type(sample).__name__}. Give pairs "
                f"({', '.join(pair)}), or mappings with {' and '.join(pair)}."
            )
    return table_of_rows(rows, part)


def with_class_names(table: Table, items: Any, column: str, part: str) -> tuple[Table, list[str]]:
    """Return the table with class names in place of class numbers, and the names of all classes.

    Args:
        table: The columns of the data set.
        items: The data set of Hugging Face, with its features.
        column: The column of the labels: a ``ClassLabel``, or lists of them.
        part: Name of the part.

    Raises:
        InputError: A number is not that of a class.
    """
    feature: Any = items.features[column]
    classes = getattr(feature, "names", getattr(getattr(feature, "feature", None), "names", None))
    if not classes:
        return table, []
    known = list(map(str, classes))
    columns = {name: table.column(name) for name in table.names}
    columns[column] = [_named(label, known, part, row) for row, label in enumerate(columns[column])]
    return read_table(columns, part), known


def _named(label: Any, names: Sequence[str], part: str, row: int) -> Any:
    if isinstance(label, list):
        return [_named(each, names, part, row) for each in cast("list[Any]", label)]
    if label is None:
        return None
    if not 0 <= label < len(names):
        raise InputError(
            f"The label of {part} row {row} is {label}, outside 0..{len(names) - 1}. Data sets "
            "mark texts without a label by -1: leave them out, for example with "
            "dataset.filter(lambda row: row['label'] >= 0)."
        )
    return names[label]
