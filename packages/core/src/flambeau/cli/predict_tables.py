"""``predict_tables``: predictions for table files of any size, written piece by piece."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import numpy as np
import typer

from flambeau.artefact.predictor import Predictor
from flambeau.artefact.read_like import reading_options
from flambeau.cli.table_writer import arrow, table_writer
from flambeau.data.data import Data
from flambeau.data.preprocess import PredictsTables
from flambeau.errors import ArgumentError, InputError


def predict_tables(
    predictor: Predictor,
    data_class: type[Data],
    files: Sequence[Path],
    keep: Sequence[str],
    out: Path | None,
    show: Callable[[Sequence[dict[str, Any]]], None],
) -> None:
    """Predict for the rows of table files, and write or print one row for each.

    Each row begins with the columns ``keep`` of the input or, without them, with "row": its number
    in the file, from 0. With several files the first column is "file".

    Args:
        predictor: The predictor; its preprocessor is a ``PredictsTables``.
        data_class: Reads the files.
        files: The files.
        keep: Columns of the files.
        out: File of the output, read by ``table_writer``; None prints.
        show: Prints rows.

    Raises:
        InputError: A file is missing or no table, a column is missing, or a cell is invalid.
    """
    tables = cast("PredictsTables", predictor.preprocessor)
    options = {} if predictor.record is None else reading_options(predictor.record)
    check = tables.input_check()
    for file in files:
        if out is not None and file.exists() and out.exists() and file.samefile(out):
            raise ArgumentError(f"--out {out} is an input file. Choose another file.")
    rows = 0
    shown: list[dict[str, Any]] = []
    with nullcontext(None) if out is None else table_writer(out) as write:
        for file in files:
            for start, piece in _pieces(data_class, file, options):
                try:
                    check.add(piece)
                    found = predictor.predict(piece)
                except InputError as error:
                    named = not start or error.names_source_row
                    where = "" if named else f"In the rows of {file} from {start:,} on: "
                    raise InputError(f"{where}{error}") from error
                first = {"file": arrow().repeat(str(file), len(piece))} if len(files) > 1 else {}
                own = {name: piece.column(name) for name in keep}
                own = own or {"row": arrow().array(np.arange(start, start + len(piece)))}
                table = _with_columns(first | own, found)
                rows += len(piece)
                if write is None:
                    shown += table.to_pylist()
                else:
                    write(table)
                    _show_progress(rows)
    if out is None:
        show(shown)
    typer.echo(check.summary(), err=True)
    check.warn()
    if out is not None:
        typer.echo(f"Wrote {rows:,} predictions to {out}.")


def _pieces(
    data_class: type[Data], file: Path, options: Mapping[str, Any]
) -> Iterator[tuple[int, Any]]:
    """Yield the number of the first row, and the rows, of each piece of a file."""
    if not file.exists():
        raise InputError(f"{file} does not exist (current folder: {Path.cwd()}).")
    pieces = data_class.tables_from_path(file, options)
    if pieces is None:
        raise ArgumentError(
            f"{file} is no table, but another file is. Give tables only, or one command for each."
        )
    start = 0
    for piece in cast("Iterable[Any]", pieces):
        yield start, piece
        start += len(piece)


def _with_columns(first: dict[str, Any], predictions: Any) -> Any:
    """Return one table; a column of the input with the name of a prediction is "input.NAME"."""
    columns: dict[str, Any] = {}
    taken = set(predictions.column_names)
    for name, cells in first.items():
        free = name
        while free in taken:
            free = f"input.{free}"
        columns[free] = cells
        taken.add(free)
    for name in predictions.column_names:
        columns[name] = predictions.column(name)
    return arrow().table(columns)


def _show_progress(rows: int) -> None:
    if sys.stderr.isatty():
        typer.echo(f"\r{rows:,} rows", nl=False, err=True)
