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
        parts = _parts_of_mapping(cast("Mapping[str, Any]", train), request)
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


def _parts_of_mapping(sets: Mapping[str, Any], request: SplitRequest) -> dict[str, Any]:
    """Return the data sets of a mapping such as ``DatasetDict`` by part."""
    found = {part_of_name(str(name)): each for name, each in sets.items()}
    if "train" not in found or None in found or len(found) < len(sets):
        raise ArgumentError(
            f"The data sets have the names {name_some(map(repr, sets))}; each must name a part, "
            "and one must be train. Pass the data sets one by one: "
            "TextData.from_datasets(sets['train'], valid=sets['dev'])."
        )
    request.refuse_unused_sizes({part: None for part in found if part and part != "train"})
    return {part: found[part] for part in PARTS if part in found}


def _table_of(items: Any, part: str, options: TextOptions) -> tuple[Table, list[str]]:
    """Return a data set as a table, with the names of its classes in their order."""
    columns: Any = getattr(items, "column_names", None)
    if isinstance(columns, list) and hasattr(items, "features"):
        if not hasattr(items, "__len__"):
            raise ArgumentError(
                f"The {part} data set is a {type(items).__name__}, which is read as a stream. Load "
                "it: datasets.load_dataset(…, streaming=False), or give a list of its rows."
            )
        return _table_of_hugging_face(items, cast("list[str]", columns), part, options)
    refuse_names(items, f"the {part} data set", "TextData.from_df(…)")
    if not hasattr(items, "__len__") or not hasattr(items, "__getitem__"):
        raise ArgumentError(
            f"The {part} data set is a {type(items).__name__}, which lacks __len__ or __getitem__. "
            "Give a list of rows, or a map-style data set."
        )
    return _table_of_samples((items[index] for index in range(len(items))), part), []


def _table_of_samples(samples: Iterable[Any], part: str) -> Table:
    rows: list[Mapping[str, Any]] = []
    for index, sample in enumerate(samples):
        if isinstance(sample, Mapping):
            rows.append(cast("Mapping[str, Any]", sample))
        elif isinstance(sample, tuple | list) and len(cast("Sequence[Any]", sample)) == 2:
            rows.append({"text": sample[0], "label": sample[1]})
        else:
            raise ArgumentError(
                f"Sample {index} of {part} is a {type(sample).__name__}. Give pairs (text, label), "
                "or mappings with a text and a label."
            )
    return table_of_rows(rows, part)


def _table_of_hugging_face(
    items: Any, names: list[str], part: str, options: TextOptions
) -> tuple[Table, list[str]]:
    """Return the columns of a Hugging Face data set; class numbers become class names."""
    columns = {name: list(items[name]) for name in names}
    table = read_table(columns, part)
    source = TextTable(table, options.text, options.label)
    found = find_columns(source)
    if not isinstance(found.label, str):
        return table, []
    feature: Any = items.features[found.label]
    classes = getattr(feature, "names", getattr(getattr(feature, "feature", None), "names", None))
    if not classes:
        return table, []
    known = list(map(str, classes))
    columns[found.label] = [
        _named(label, known, part, row) for row, label in enumerate(columns[found.label])
    ]
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
