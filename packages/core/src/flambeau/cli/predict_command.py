"""``flambeau predict MODEL FILES…``: predictions for new files."""

from __future__ import annotations

import codecs
import csv
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, TextIO, cast

import typer

from flambeau.artefact.predictor import Predictor
from flambeau.cli.data_arguments import take_options
from flambeau.cli.threshold_option import Threshold, with_threshold
from flambeau.data.data import Data
from flambeau.data.prediction_columns import fields_of
from flambeau.domain import get_domain
from flambeau.errors import ArgumentError, FlambeauError, InputError, StorageError
from flambeau.report import text_table


class Format(StrEnum):
    """Output format of the predictions."""

    table = "table"
    json = "json"
    csv = "csv"


def predict(
    context: typer.Context,
    model: Annotated[Path, typer.Argument(help="A folder that `flambeau fit` exported.")],
    files: Annotated[
        list[str] | None,
        typer.Argument(help="Input files; without files, or with -, lines of standard input."),
    ] = None,
    format: Annotated[Format, typer.Option(help="Output format.")] = Format.table,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Write the predictions to this file, *.csv, *.jsonl or *.parquet, as columns."
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Inputs per batch; with 1 each line is predicted before the next is read."
        ),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(help="Columns of an input table that the output repeats: --keep id,name."),
    ] = None,
    threshold: Threshold = None,
) -> None:
    """Predict for new files with an exported model.

    Tables (CSV, Parquet) are read and their predictions written in pieces, whatever their size.

    If one of several inputs is invalid, its record has an error instead of a prediction, and the
    exit code is 1.

    Without files (or with -) each line of standard input is one input and gives one line on
    standard output: flambeau predict MODEL < sentences.txt
    """
    if out is not None:
        check_output(out)
    predictor, paths, prompt = _load(model, [*(files or []), *context.args])
    predictor.task = with_threshold(predictor.task, threshold)
    if batch_size is not None:
        predictor.batch_size = _checked_batch_size(batch_size)
    if prompt is not None:
        _predict_prompt(predictor, prompt, paths, format if out is None else out)
        return
    if paths and _data_class(predictor).tables_from_path(paths[0]) is not None:
        _predict_tables(predictor, paths, keep, out, format)
        return
    if keep is not None:
        raise ArgumentError("--keep is only for tables, such as rows.csv or rows.parquet. Omit it.")
    if not paths or paths == [Path("-")]:
        if out is None:
            if format is Format.csv:
                raise ArgumentError("--format csv needs files, or --out FILE.csv.")
            predict_lines(predictor, sys.stdin.buffer, as_json=format is Format.json)
            return
        items: list[Any] = list(map(_decode_line, sys.stdin.buffer))
        sources: list[dict[str, Any]] = [{"line": n} for n in range(1, len(items) + 1)]
    else:
        items, sources = read_items(predictor, paths)
    results = _predict_all(predictor, items)
    errors = [result for result in results if isinstance(result, FlambeauError)]
    if errors and len(results) == 1:
        raise errors[0]
    records = [source | _as_record(result) for source, result in zip(sources, results, strict=True)]
    _write(records, format if out is None else out, len(errors))
    if errors:
        raise typer.Exit(1)


def _write(records: Sequence[Mapping[str, Any]], target: Format | Path, n_errors: int) -> None:
    """Print the records of predictions, or write them to a file."""
    if isinstance(target, Path):
        write_records(records, target)
        typer.echo(f"Wrote {len(records):,} predictions to {target} ({n_errors:,} errors).")
    else:
        _print(target, records)


def _load(model: Path, words: Sequence[str]) -> tuple[Predictor, list[Path], str | None]:
    """Return the predictor, set to the domain's options in ``words``, the other words, the prompt.

    The prompt is the value of a domain's option with the key "prompt".
    """
    if str(model).startswith("--"):
        raise ArgumentError(f"MODEL is missing before {str(model)!r}: give its folder first.")
    predictor = Predictor.load(model)
    if predictor.record is None:
        return predictor, list(map(Path, words)), None
    options, others = take_options(get_domain(predictor.record.domain), "predict", words)
    prompt = options.pop("prompt", None)
    predictor.task = predictor.task.for_prediction(options)
    return predictor, list(map(Path, others)), prompt


def _predict_prompt(
    predictor: Predictor, prompt: str, paths: Sequence[Path], target: Format | Path
) -> None:
    """Print the text predicted for a prompt as it is generated, or write its record."""
    if paths:
        raise ArgumentError(
            f"--prompt is the input, so {paths[0]} cannot be another one. Omit one of the two."
        )
    if target is Format.table:
        from flambeau.artefact.streaming import stream_text

        for piece in stream_text(predictor, prompt):
            typer.echo(piece, nl=False)
        typer.echo()
        return
    _write([_as_record(predictor.predict(prompt))], target, 0)


def _predict_tables(
    predictor: Predictor, files: Sequence[Path], keep: str | None, out: Path | None, format: Format
) -> None:
    from flambeau.cli.predict_tables import predict_tables

    data_class, show = _data_class(predictor), partial(_print, format)
    predict_tables(predictor, data_class, files, names_in(keep), out, show)


def names_in(text: str | None) -> list[str]:
    """Return names separated by commas; none for None."""
    return [name.strip() for name in (text or "").split(",") if name.strip()]


def _checked_batch_size(batch_size: int) -> int:
    if batch_size < 1:
        raise ArgumentError(f"--batch-size must be at least 1, not {batch_size}.")
    return batch_size


def _data_class(predictor: Predictor) -> type[Data]:
    """Return the class that reads files for the predictor; ``Data`` if it has no domain."""
    record = predictor.record
    return next(iter(get_domain(record.domain).data_classes.values())) if record else Data


def _predict_all(predictor: Predictor, items: Sequence[Any]) -> list[Any]:
    """Return for each input its prediction, its error, or None if it is a blank line."""
    numbered, size = list(enumerate(items)), predictor.batch_size
    chunks = (numbered[begin : begin + size] for begin in range(0, len(items), size))
    return [result for chunk in chunks for _, result in _predict_each(predictor, chunk)]


def check_output(path: Path) -> None:
    """Raise an ArgumentError unless the ending of ``--out`` names a format."""
    if path.suffix.lower() not in (".csv", ".jsonl", ".parquet"):
        raise ArgumentError(
            f"--out {path} must end in .csv (a table), .jsonl (one JSON object per line) or "
            ".parquet."
        )


def write_records(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write one row per record to a CSV or Parquet file, or one line to a JSONL file.

    Raises:
        StorageError: The file cannot be written.
        MissingDependencyError: Parquet needs pyarrow.
    """
    if path.suffix.lower() == ".parquet":
        from flambeau.cli.table_writer import arrow, table_writer

        with table_writer(path) as write:
            write(arrow().Table.from_pylist([*records]))
        return
    try:
        with open(path, "w", encoding="utf-8", newline="") as file:
            if path.suffix.lower() == ".csv":
                _write_csv(records, file)
            else:
                file.writelines(json.dumps(r, ensure_ascii=False) + "\n" for r in records)
    except OSError as error:
        raise StorageError(
            f"Cannot write {path}: {error.strerror}. Choose another file with --out."
        ) from error


def _write_csv(records: Sequence[Mapping[str, Any]], file: TextIO) -> None:
    writer = csv.DictWriter(file, _columns(records))
    writer.writeheader()
    for record in records:
        # A list as JSON, which other programs can read.
        is_list = {name: isinstance(value, list | tuple) for name, value in record.items()}
        writer.writerow({name: json.dumps(v) if is_list[name] else v for name, v in record.items()})


def _columns(records: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for record in records for name in record))


def _as_record(result: Any) -> dict[str, Any]:
    """Return the record of an input: its prediction or error; empty for a blank line."""
    if isinstance(result, FlambeauError):
        return {"error": _without_index(result)}
    return {} if result is None else fields_of(result)


def _print(format: Format, records: Sequence[Mapping[str, Any]]) -> None:
    if format is Format.json:
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    if format is Format.csv:
        _write_csv(records, sys.stdout)
        return
    columns = _columns(records)
    rows = [[_cell(record.get(name, "")) for name in columns] for record in records]
    typer.echo(text_table(columns, rows))


def predict_lines(predictor: Predictor, lines: Iterable[bytes], *, as_json: bool = False) -> None:
    """Print one line per input line: its prediction or, without one, an empty line (null in JSON).

    Errors are printed to standard error with the line number. If there was an error, the command
    ends with exit code 1 after the last line.
    """
    # On a terminal each line is predicted at once; a file is predicted in batches.
    size = 1 if sys.stdin.isatty() else predictor.batch_size
    n_errors = 0
    numbered = enumerate(map(_decode_line, lines), start=1)
    while chunk := list(islice(numbered, size)):
        for number, result in _predict_each(predictor, chunk):
            prediction = result
            if isinstance(result, FlambeauError):
                n_errors += 1
                prediction = None
                typer.echo(f"line {number}: {_without_index(result)}", err=True)
            if as_json:
                record = None if prediction is None else fields_of(prediction)
                typer.echo(json.dumps(record, ensure_ascii=False))
            else:
                # One line for each line: a line break would shift all that follow.
                typer.echo("" if prediction is None else " ".join(str(prediction).splitlines()))
    if n_errors:
        raise typer.Exit(1)


def _without_index(error: FlambeauError) -> str:
    """Return the error message without "Item 0", the index of an input that was encoded alone."""
    return re.sub(r"^Item 0(?: of 1)?:? ?", "", str(error))


def _decode_line(line: bytes) -> str | InputError:
    """Return the line without line break and byte-order mark, or an error if it is not UTF-8."""
    try:
        text = line.removeprefix(codecs.BOM_UTF8).decode().rstrip("\r\n")
        if "\0" not in text:
            return text
        return InputError("the line has NUL characters: probably UTF-16. Convert it to UTF-8.")
    except UnicodeDecodeError as error:
        if line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            return InputError(
                "the line begins with the UTF-16 byte-order mark. Convert it to UTF-8."
            )
        invalid = line[error.start : error.start + 20]
        return InputError(f"byte {error.start + 1} of the line is not UTF-8 ({invalid!r}).")


def _predict_each(predictor: Predictor, chunk: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Return number and prediction of each input: None for a blank line, an error if invalid."""
    results: dict[int, Any] = {n: item for n, item in chunk if isinstance(item, InputError)}
    valid = [(n, item) for n, item in chunk if n not in results and not _is_blank(item)]
    try:
        predictions: list[Any] = predictor.predict([item for _, item in valid]) if valid else []
        results |= {n: found for (n, _), found in zip(valid, predictions, strict=True)}
    except FlambeauError:
        for n, item in valid:
            try:
                [results[n]] = predictor.predict([item])
            except FlambeauError as error:
                results[n] = error
    return [(n, results.get(n)) for n, _ in chunk]


def _is_blank(item: Any) -> bool:
    return isinstance(item, str) and not item.strip()


def read_items(
    predictor: Predictor, files: Sequence[Path]
) -> tuple[list[Any], list[dict[str, Any]]]:
    """Read the raw inputs in the files.

    Returns:
        The inputs, and the source of each input: its file and, if the file has several inputs, its
        number counted from 1.

    For a file that does not exist or cannot be read, the input is an InputError. A folder gives one
    input for each file in it that the domain reads.
    """
    data_class = _data_class(predictor)
    items: list[Any] = []
    sources: list[dict[str, Any]] = []
    for file in files:
        if not file.exists():
            what = f"{file} does not exist (current folder: {Path.cwd()})."
            # The name of a file, such as "my cat.jpg", is not a text.
            if " " in str(file) and (not file.suffix or " " in file.suffix):
                what += " Texts are read from files or standard input: echo TEXT | flambeau predict"
                what += " MODEL."
            items.append(InputError(what))
            sources.append({"file": str(file)})
            continue
        try:
            found = list(data_class.inputs_from_path(file))
        except InputError as error:  # such as a folder without images
            items.append(error)
            sources.append({"file": str(file)})
            continue
        if file.is_dir():
            items += found
            sources += [{"file": str(item)} for item in found]
            continue
        several = len(found) > 1
        items += found
        sources += [
            {"file": str(file), **({"item": number} if several else {})}
            for number in range(1, len(found) + 1)
        ]
    return items, sources


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, cast("Sequence[Any]", value)))
    return str(value)
