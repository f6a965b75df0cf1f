"""Read the target columns of a table."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from flambeau.data.float_dtype import to_default_dtype
from flambeau.data.ordered_names import in_order, ordered_names
from flambeau.data.reading import Reading
from flambeau.data.targets import Targets, read_labels
from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_tabular.columns import Frame
from flambeau_tabular.columns.category_column import is_numeric
from flambeau_tabular.columns.cell_error import ROW, CellError, with_prefix
from flambeau_tabular.columns.cells import (
    LARGEST,
    as_numbers,
    dictionary_codes,
    is_text,
    pc,
    value_type,
)
from flambeau_tabular.options import TabularOptions

_MOST_CLASSES = 20
"""Whole numbers with more distinct values are amounts, unless the user says otherwise."""

_EXACT = 2**53
"""Floats below this have all whole numbers."""

_MOST_READ = 100_000
"""Rows from which the task is inferred; the classes are those of all rows."""


def target_names(frame: Frame, target: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the target columns.

    Raises:
        InputError: There is none, or the table has no such column.
    """
    names = _names(frame, target)
    if not names:
        shown = suggested_target(frame)
        raise InputError(
            f"No target is given. Name the column to predict: target={shown!r}, on the "
            f"command line --target {shlex.quote(shown)}. The columns are "
            f"{name_some(map(repr, frame.column_names), 20)}."
        )
    for name in names:
        frame.column(name)
    if len(set(names)) < len(names):
        raise InputError(
            f"target names a column twice: {name_some(map(repr, names))}. Name it once."
        )
    return names


def _names(frame: Frame, target: Any) -> tuple[str, ...]:
    """Return the names of the target columns, which may be numbers or tuples in pandas."""
    if target is None or isinstance(target, str):
        return () if not target else (target,)
    if isinstance(target, int | tuple) and str(target) in frame.column_names:
        return (str(target),)
    if isinstance(target, list | tuple | set | Mapping):
        return tuple(map(str, in_order(target, "target", "column")))
    if hasattr(target, "__array__"):
        raise InputError(
            f"target is a {type(target).__name__}, but it must be the name of a column. Add the "
            "targets to the table: frame.assign(y=…) and target='y'. The estimators take them "
            "apart: flambeau_tabular.sklearn.FlambeauClassifier().fit(frame, targets)."
        )
    raise InputError(
        f"target is a {type(target).__name__}. Give the name of the column to predict, or a list "
        f"of names. The columns are {name_some(map(repr, frame.column_names), 20)}."
    )


def suggested_target(frame: Frame) -> str:
    """Return the column that is most likely the target: one named so, else the last one."""
    usual = ("target", "label", "labels", "class", "y", "outcome", "response")
    for name in frame.column_names:
        if name.strip().lower() in usual:
            return name
    return frame.column_names[-1] if frame.column_names else "column"


def rows_with_target(
    frame: Frame, names: Sequence[str], *, some: bool = False
) -> tuple[NDArray[np.int64] | None, str | None]:
    """Return the rows in which no target is missing, and a note about the others; None for all.

    Args:
        frame: The table.
        names: The target columns.
        some: Whether one of the targets is enough.

    Raises:
        InputError: The target is missing in every row.
    """
    columns = [missing_targets(frame.column(name)) for name in names]
    missing = np.logical_and.reduce(columns) if some else np.logical_or.reduce(columns)
    if len(missing) and not missing.any():
        return None, None
    kept = np.flatnonzero(~missing)
    if not len(kept):
        shown = name_some(map(repr, names))
        what = f"all {len(frame):,} rows" if len(frame) else "a table without rows"
        raise InputError(f"The target {shown} is missing in {what}. Give rows with a target.")
    first = int(np.flatnonzero(missing)[0])
    n = len(frame) - len(kept)
    note = f"{n:,} rows without a target are left out (the first is row {first})"
    if not some and len(names) > 1 and not np.logical_and.reduce(columns).all() and n:
        has_some = int((missing & ~np.logical_and.reduce(columns)).sum())
        if has_some:
            note += f"; {has_some:,} of them have others: TabularOptions(task='combined') uses them"
    return kept, note


def targets_of(frame: Frame, names: Sequence[str], options: TabularOptions) -> Targets:
    """Return the targets of a table in which no target is missing.

    Args:
        frame: The table.
        names: The target columns. Several are labels if all are 0 and 1, else numbers.
        options: Task, classes and separator.

    Raises:
        InputError: A target is not finite or has another type than the task needs; the message
            gives the row.
    """
    for name in names:
        _refuse_infinite(frame.column(name), name)
        if options.task != "classification":
            _refuse_dates(frame.column(name), name)
    if len(names) > 1:
        return _read_columns(frame, names, options)
    cells = frame.column(names[0])
    readings: tuple[Reading, ...] = ()
    # Rows were left out: the cells of some had no target.
    if frame.rows is not None and options.task is None and options.classes is None:
        cells, readings = _without_floats(cells)
    try:
        targets = _read_column(cells, names[0], options)
    except InputError as error:
        raise with_prefix(f"The target {names[0]!r}: ", error) from error
    if targets.kind == "regression":
        return replace(targets, names=tuple(names))
    return replace(targets, readings=(*targets.readings, *readings))


def _without_floats(cells: pa.ChunkedArray) -> tuple[pa.ChunkedArray, tuple[Reading, ...]]:
    """Return whole numbers that were stored as floats as integers, with a reading.

    So pandas stores a column of integers of which some are missing. The same column without missing
    cells, or in a file, has integers, and they are read the same way.
    """
    if not pa.types.is_floating(cells.type):
        return cells, ()
    numbers = as_numbers(cells, "")
    if not bool(((numbers == np.round(numbers)) & (np.abs(numbers) < _EXACT)).all()):
        return cells, ()
    reading = Reading(
        "task",
        "The numbers are whole and some cells of the target are missing, as in a column of class "
        "numbers that pandas stores as floats.",
        {"rows": len(cells)},
        ("regression",),
        0.8,
        'For numbers pass task="regression": TabularOptions(task="regression"), on the command '
        "line --task regression.",
    )
    return cells.cast(pa.int64()), (reading,)


def _read_column(cells: pa.ChunkedArray, name: str, options: TabularOptions) -> Targets:
    if options.classes is None and (classes := _ordered_categories(cells, options)) is not None:
        return _read_column(cells, name, replace(options, task="classification", classes=classes))
    if options.task is None and options.classes is None and pa.types.is_integer(cells.type):
        amounts = _whole_amounts(cells)
        if amounts is not None:
            found = _read_column(cells, name, replace(options, task="regression"))
            return replace(found, readings=(amounts,))
    first = read_labels(
        _python_values(cells.slice(0, _MOST_READ)),
        task=options.kind,
        classes=options.classes,
        sep=options.sep,
    )
    if len(cells) <= _MOST_READ or first.kind == "multi_label":
        whole = first if len(cells) <= _MOST_READ else None
        return whole or read_labels(
            _python_values(cells), task=options.kind, classes=options.classes, sep=options.sep
        )
    if first.kind == "regression":
        values = to_default_dtype(torch.tensor(as_numbers(cells, name)))
        return replace(first, values=values)
    # Every distinct value once: a list of all values would take minutes for ten million rows.
    codes, distinct = dictionary_codes(cells)
    known = [value for value in _python_values(pa.chunked_array([distinct])) if value is not None]
    classes = read_labels(known, task="classification", classes=options.classes)
    number_of = dict(zip(known, classes.values.tolist(), strict=True))
    numbers = [number_of.get(value, -1) for value in distinct.to_pylist()]
    # In the smallest type: ten million class numbers in int64 have 80 MB.
    table = np.array(numbers, dtype=np.min_scalar_type(-len(classes.names) - 1))
    return replace(first, values=torch.from_numpy(table[codes]), names=classes.names)


def _ordered_categories(cells: pa.ChunkedArray, options: TabularOptions) -> tuple[str, ...] | None:
    """Return the categories that rows have, in their order; None for a column without an order."""
    kind = cells.type
    if options.kind not in (None, "classification") or options.sep is not None:
        return None
    if not pa.types.is_dictionary(kind) or not kind.ordered:
        return None
    codes, categories = dictionary_codes(cells)
    used = categories.take(pa.array(np.unique(codes[codes >= 0])))
    return ordered_names(used.to_pylist(), "the categories")


def _whole_amounts(cells: pa.ChunkedArray) -> Reading | None:
    """Return why whole numbers are amounts and not classes; None if they are few."""
    distinct = pc.count_distinct(cells).as_py()
    if distinct <= _MOST_CLASSES:
        return None
    low, high = (pc.min_max(cells)[end].as_py() for end in ("min", "max"))
    if max(-low, high) >= 2**53 and len(np.unique(as_numbers(cells, ""))) < distinct:
        raise InputError(
            f"{distinct:,} distinct whole numbers from {low:,} to {high:,} differ in digits that "
            "floats do not have. Subtract a constant from the column, or, if the numbers are "
            "classes, convert it to text."
        )
    return Reading(
        "task",
        f"{distinct:,} distinct whole numbers from {low:,} to {high:,} in {len(cells):,} rows are "
        "more than a class number usually has, so they are amounts.",
        {"distinct": distinct, "rows": len(cells)},
        ("classification",),
        0.8,
        'For classes pass task="classification": TabularOptions(task="classification"), on the '
        "command line --task classification.",
    )


def _read_columns(frame: Frame, names: Sequence[str], options: TabularOptions) -> Targets:
    text = [name for name in names if not _holds_numbers(frame.column(name))]
    if text:
        raise InputError(
            f"Several targets have to be numbers, or 0 and 1, but {name_some(map(repr, text))} "
            "contains text. Predict it alone: target="
            f"{text[0]!r}."
        )
    columns = np.stack([as_numbers(frame.column(name), name) for name in names], axis=1)
    is_binary = bool(((columns == 0) | (columns == 1)).all())
    if options.task == "classification":
        raise InputError(
            f"task='classification' has one target, but target names {len(names)} columns. Give "
            "one column, or task='multi_label' for columns of 0 and 1."
        )
    kind = options.kind or ("multi_label" if is_binary else "regression")
    if kind == "multi_label" and not is_binary:
        row, column = (int(each[0]) for each in np.nonzero((columns != 0) & (columns != 1)))
        raise CellError(
            f"task='multi_label' needs targets of 0 and 1, but {names[column]!r} is "
            f"{columns[row, column]:g} in row {ROW}.",
            row,
        )
    what = "0 and 1" if is_binary else "numbers"
    reason = f"{len(names)} target columns of {what} in {len(frame):,} rows"
    values = torch.from_numpy(columns)
    values = values.float() if kind == "multi_label" else to_default_dtype(values)
    return Targets(kind, values, tuple(names), reason)


def _python_values(cells: pa.ChunkedArray) -> list[Any]:
    if pa.types.is_decimal(value_type(cells)) or pa.types.is_float16(value_type(cells)):
        cells = cells.cast(pa.float64())
    return cells.to_pylist()


def _holds_numbers(cells: pa.ChunkedArray) -> bool:
    return is_numeric(cells) or pa.types.is_boolean(value_type(cells))


def missing_targets(cells: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Return which cells of a target column are missing: null, NaN or blank, ``(n,)``."""
    missing = cells.is_null()
    if pa.types.is_floating(cells.type):
        missing = cells.cast(pa.float64()).is_null(nan_is_null=True)
    found = np.asarray(missing.to_numpy(), dtype=np.bool_)
    if is_text(cells.type):
        blank = pc.equal(pc.utf8_trim_whitespace(cells.cast(pa.large_string())), "")
        found = found | np.asarray(blank.fill_null(True).to_numpy(), dtype=np.bool_)
    return found


def _refuse_infinite(cells: pa.ChunkedArray, name: str) -> None:
    if not pa.types.is_floating(value_type(cells)):
        return
    numbers = as_numbers(cells, name)
    rows = np.flatnonzero(np.abs(numbers) > LARGEST)  # False for NaN
    if len(rows):
        how = "infinite" if np.isinf(numbers[rows[0]]) else f"beyond ±{LARGEST:g}"
        raise CellError(
            f"The target {name!r} is {how} in {len(rows):,} rows, the first is row {ROW}. "
            "Correct these cells or drop the rows.",
            int(rows[0]),
        )


def _refuse_dates(cells: pa.ChunkedArray, name: str) -> None:
    kind = value_type(cells)
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        what, instead = "durations", "seconds: frame[column].dt.total_seconds()"
    elif pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        what, instead = "dates", "days since a date: (frame[column] - pd.Timestamp(…)).dt.days"
    else:
        return
    raise InputError(
        f"The target {name!r} consists of {what} ({kind}), but a model predicts numbers or "
        f"classes. Give {instead}. If each of them is a class, pass "
        "TabularOptions(task='classification'), on the command line --task classification."
    )
