"""From a table to the arguments of ``TabularData``: target, structure, split."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from flambeau.artefact.read_like import read_record, reading_options
from flambeau.data.part_columns import find_part_column, read_part_column
from flambeau.data.reading import Reading
from flambeau.data.split import PARTS, Rows
from flambeau.data.split_request import SplitRequest, consecutive_rows, rows_by_part
from flambeau.data.tables import Table
from flambeau.data.targets import Targets
from flambeau.errors import ArgumentError, InputError
from flambeau_tabular.columns import (
    Frame,
    iter_csv_tables,
    iter_parquet_tables,
    read_csv_table,
    read_frame,
    read_parquet_table,
)
from flambeau_tabular.columns.cell_error import numbered_as
from flambeau_tabular.columns.cells import dictionary_codes, value_type
from flambeau_tabular.columns.column_source import read_columns, readable_names
from flambeau_tabular.columns.frames import is_table
from flambeau_tabular.columns.memory import release_memory
from flambeau_tabular.csv_options import CsvOptions
from flambeau_tabular.options import TabularOptions, Target
from flambeau_tabular.predicted_frame import label_type_of
from flambeau_tabular.recognise import CSV_ENDINGS, PARQUET_ENDINGS
from flambeau_tabular.several_targets import are_of_several_kinds, targets_by_name
from flambeau_tabular.structure import Structure
from flambeau_tabular.target import rows_with_target, target_names, targets_of

_MOST_DISTINCT = 100
"""A column with more distinct cells does not have the part of each row."""

_UNREADABLE = "cells that cannot be read"
"""Stands for the cells of such a column; it is not the name of a part."""

_FIRST_ROWS = 10_000
"""Rows that usually show that a column has more."""


def read_file(path: Path, csv: CsvOptions | None = None) -> Frame:
    """Return the table in a CSV, TSV or Parquet file; ``csv`` is for the first two.

    Raises:
        InputError: The file is missing or no table.
    """
    return read_parquet_table(path) if _is_parquet(path, csv) else read_csv_table(path, csv)


def read_files_of_parts(request: SplitRequest, csv: CsvOptions | None = None) -> SplitRequest:
    """Return the request with the table of each part that is given as a file.

    Raises:
        InputError: A file is missing or no table.
        SplitError: ``split`` is given too.
    """
    files = request.separate(str, os.PathLike)
    return replace(request, **{part: read_file(Path(file), csv) for part, file in files.items()})


def iter_file(path: Path, csv: CsvOptions | None = None) -> Iterator[Frame]:
    """Return the rows of a CSV, TSV or Parquet file in pieces, for files larger than memory.

    Raises:
        InputError: The file is missing or no table.
    """
    return iter_parquet_tables(path) if _is_parquet(path) else iter_csv_tables(path, csv)


def _is_parquet(path: Path, csv: CsvOptions | None = None) -> bool:
    endings = [ending.lower() for ending in path.suffixes]
    if not path.exists():
        raise InputError(f"There is no file {path}. Check the path.")
    if any(ending in PARQUET_ENDINGS for ending in endings):
        if csv is not None and csv.to_json():
            raise InputError(
                f"{', '.join(csv.to_json())} of CsvOptions is for text files, but {path} is a "
                "Parquet file. Omit it."
            )
        return True
    if any(ending in CSV_ENDINGS for ending in endings):
        return False
    raise InputError(
        f"{path} is no table that flambeau reads. Give a file .csv, .tsv or .parquet; read other "
        "files with pandas or polars and pass the frame to TabularData.from_df."
    )


def assemble(
    frame: Frame, target: Target | None, request: SplitRequest, options: TabularOptions
) -> dict[str, Any]:
    """Return the arguments of ``TabularData``: read the target, leave out rows without one, split.

    Raises:
        InputError: A column is missing or its cells cannot be used.
        SplitError: The parts cannot be formed.
    """
    _check_csv(frame, options)
    frame, given = with_separate_parts(frame, request)
    if target is None and options.like is not None:
        target = _target_of_export(options)
    names = target_names(frame, target)
    _check_roles(names, options)
    if options.embargo is not None and options.time is None:
        raise InputError("embargo needs time=…, the column from which it is measured.")
    for name in (*options.drop, *(options.kinds or {})):
        frame.check_name(name)
    column, found = _part_column(frame, request, (*names, *options.roles.values(), *options.drop))
    if column is not None:
        cells = frame.column(column).to_pylist()
        given = {**given, **rows_by_part(read_part_column(cells, column, frame.name))}
    n = len(frame)
    several = are_of_several_kinds(frame, names, options)
    kept, note = rows_with_target(frame, names, some=several)
    if kept is not None:
        frame = frame.take(kept)
    frame = replace(frame, readings=(*frame.readings, *found))
    with numbered_as(frame.rows):
        structure = Structure.of(frame, options)
    targets, labels = _targets(frame, names, options, several=several)
    stratify = request.stratify is True or request.stratify == "auto"
    single = targets if isinstance(targets, Targets) else None
    is_classes = stratify and single is not None and single.kind == "classification"
    if request.stratify is True and not is_classes:
        why = "there are several targets" if single is None else single.reason
        raise ArgumentError(
            f"stratify=True keeps the proportions of classes, but the target is not a class: {why}."
            " Omit stratify."
        )
    split = request.resolve(
        n,
        kept=kept,
        given=given or None,
        classes=single.values.numpy() if is_classes and single is not None else None,
        groups=structure.groups,
        times=structure.times,
        embargo=options.embargo,
    )
    if structure.groups is not None and request.for_training:
        split.check_groups(structure.groups)
    inputs = frame.drop([*names, *([] if column is None else [column])])
    release_memory(len(frame))
    notes = (*([] if note is None else [note]), *split.notes)
    return {
        "frame": inputs,
        "targets": targets,
        "split": split,
        "options": options,
        "target_names": names,
        "structure": structure,
        "label_type": labels,
        "notes": notes,
        "kept": kept,
    }


def _targets(
    frame: Frame, names: Sequence[str], options: TabularOptions, *, several: bool
) -> tuple[Targets | dict[str, Targets], Any]:
    """Return the targets, by name if they are of several kinds, and the types of class labels."""
    if several:
        return targets_by_name(frame, names, options)
    with numbered_as(frame.rows):
        targets = targets_of(frame, names, options)
    labels = None
    if targets.kind == "classification" and len(names) == 1:
        labels = label_type_of(frame.column(names[0]).type, targets.names)
    return targets, labels


def with_separate_parts(frame: Frame, request: SplitRequest) -> tuple[Frame, Mapping[str, Rows]]:
    """Return the table with the rows of separate frames added, and the rows of their parts."""
    parts = {
        part: read_frame(value, part)
        for part in PARTS[1:]
        if is_table(value := getattr(request, part)) or isinstance(value, Frame)
    }
    if not parts:
        return frame, {}
    if request.split is not None and request.split is not False:
        raise ArgumentError(
            f"Separate frames for {' and '.join(parts)} cannot be combined with split=…, which "
            "assigns the rows of one frame to the parts. Omit split."
        )
    names = frame.column_names
    for part, other in parts.items():
        missing = [name for name in names if name not in other.column_names]
        if missing:
            raise InputError(
                f"The {part} frame has no column {missing[0]!r}, which the train frame has. Give "
                "the same columns in each frame."
            )
    sources = [each.table for each in (frame, *parts.values())]

    def joined(name: str) -> pa.ChunkedArray:
        parts = [source.column(name) for source in sources]
        if len({part.type for part in parts}) > 1:  # text beside categories
            parts = [part.cast(value_type(part)) for part in parts]
        tables = [pa.table({name: part}) for part in parts]
        return pa.concat_tables(tables, promote_options="permissive").column(0)

    try:
        table = read_columns((name, lambda name=name: joined(name)) for name in names)
    except pa.ArrowException as error:
        raise InputError(
            f"The frames of {' and '.join(parts)} have columns of other types than the train "
            f"frame: {error}. Give the same types in each frame."
        ) from error
    rows = consecutive_rows(
        {"train": len(frame), **{name: len(each) for name, each in parts.items()}}
    )
    # Parts that have only a size are drawn from the train rows.
    return replace(frame, table=table, index=None), rows


def _check_csv(frame: Frame, options: TabularOptions) -> None:
    if options.csv is not None and frame.dialect is None and options.like is None:
        raise InputError(
            "csv= (CsvOptions) is for from_csv, because other tables have typed cells. Omit it."
        )


def _check_roles(names: Sequence[str], options: TabularOptions) -> None:
    for role, name in options.roles.items():
        if name in names:
            raise InputError(f"{role}={name!r} is also the target. Give two different columns.")


def _part_column(
    frame: Frame, request: SplitRequest, others: Sequence[str]
) -> tuple[str | None, tuple[Reading, ...]]:
    """Return the column with the part of each row, if there is one, and why it is used."""
    if request.column is not None:
        frame.column(request.column)
        return request.column, ()
    if request.split is not None:
        return None, ()

    def distinct(name: str) -> list[Any]:
        try:
            cells = frame.column(name)
        except InputError:  # such as lists, which are an error only if they are inputs
            return [_UNREADABLE]
        codes, values = dictionary_codes(cells.slice(0, _FIRST_ROWS))
        if len(values) <= _MOST_DISTINCT:
            codes, values = dictionary_codes(cells)
        found = values.slice(0, _MOST_DISTINCT).to_pylist()
        return [*found, None] if (codes < 0).any() else found

    # Every distinct cell once is enough to recognise the column, and few of them to exclude it.
    names = [name for name in readable_names(frame.table) if name not in others]
    columns = {name: _later(distinct, name) for name in names}
    found = find_part_column(Table(columns, frame.name))
    return (None, ()) if found is None else (found[0], (found[1],))


def _later(function: Any, name: str) -> Any:
    return lambda: function(name)


def _target_of_export(options: TabularOptions) -> Target | None:
    saved = reading_options(read_record(options.like or "", "tabular", "like")).get("target")
    return tuple(saved) if isinstance(saved, list) else saved
