"""``flambeau predict MODEL FILES…``: answers for new files."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, is_dataclass
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from flambeau import domain as domains
from flambeau.artefact.predictor import Predictor
from flambeau.data.data import Data
from flambeau.errors import ArgumentError, FlambeauError, InputError
from flambeau.report import text_table


class Format(StrEnum):
    """How the answers are printed."""

    table = "table"
    json = "json"
    csv = "csv"


def predict(
    model: Annotated[Path, typer.Argument(help="A folder that `flambeau fit` exported.")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="The files to answer for; none, or -, reads items from lines."),
    ] = None,
    format: Annotated[Format, typer.Option(help="How the answers are printed.")] = Format.table,
) -> None:
    """Answers for new files: label and probabilities, or values.

    Of several items, one that cannot be answered has an error in the place of its answer, and the
    command ends with 1.

    Without files (or with -) each line of the standard input is an item, and its answer one line of
    the standard output: flambeau predict MODEL < sentences.txt
    """
    predictor = Predictor.load(model)
    if not files or files == [Path("-")]:
        if format is Format.csv:
            raise ArgumentError("--format csv is for files; lines are answered as text or json.")
        answer_lines(predictor, sys.stdin.buffer, as_json=format is Format.json)
        return
    items, places = read_items(predictor, files)
    numbered = list(enumerate(items))
    found = [
        answer
        for begin in range(0, len(items), predictor.batch_size)
        for _, answer in _answers(predictor, numbered[begin : begin + predictor.batch_size])
    ]
    errors = [answer for answer in found if isinstance(answer, FlambeauError)]
    if errors and len(found) == 1:
        raise errors[0]
    records = [place | _told(answer) for place, answer in zip(places, found, strict=True)]
    _print(records, format)
    if errors:
        raise typer.Exit(1)


def _told(answer: Any) -> dict[str, Any]:
    """An answer by name, or the error that stands in its place; nothing for a blank line."""
    if isinstance(answer, FlambeauError):
        return {"error": _without_number(answer)}
    return {} if answer is None else flat(answer)


def _print(records: Sequence[Mapping[str, Any]], format: Format) -> None:
    if format is Format.json:
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
        return
    columns = list(dict.fromkeys(name for record in records for name in record))
    if format is Format.csv:
        writer = csv.DictWriter(sys.stdout, columns)
        writer.writeheader()
        writer.writerows(records)
        return
    rows = [[_shown(record.get(name, "")) for name in columns] for record in records]
    typer.echo(text_table(columns, rows))


def answer_lines(predictor: Predictor, lines: Iterable[bytes], *, as_json: bool = False) -> None:
    """Prints the answer to each line in its place; where there is none an empty line, or null.

    What cannot be answered is told on the standard error, with its line, and ends the command with
    code 1 after the last line.
    """
    # A person waits for each answer, a file does not.
    size = 1 if sys.stdin.isatty() else predictor.batch_size
    wrong = 0
    numbered = enumerate(map(_text, lines), start=1)
    while chunk := list(islice(numbered, size)):
        for number, found in _answers(predictor, chunk):
            failed = isinstance(found, FlambeauError)
            if failed:
                wrong += 1
                typer.echo(f"line {number}: {_without_number(found)}", err=True)
            answer = None if failed else found
            if as_json:
                line = json.dumps(None if answer is None else flat(answer), ensure_ascii=False)
            else:
                line = "" if answer is None else str(answer)
            typer.echo(line)
    if wrong:
        raise typer.Exit(1)


def _without_number(error: FlambeauError) -> str:
    """What is wrong with an item that was tried alone, and so was number 0."""
    return re.sub(r"^Item 0(?: of 1)?:? ?", "", str(error))


def _text(line: bytes) -> str | InputError:
    """The line without its end, or what is wrong with it."""
    try:
        return line.decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        wrong = line[error.start : error.start + 20]
        return InputError(f"byte {error.start + 1} of the line is no UTF-8 ({wrong!r}).")


def _answers(predictor: Predictor, chunk: Sequence[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Number and answer of each item: None for a blank line, an error where there is no answer."""
    found: dict[int, Any] = {number: item for number, item in chunk if isinstance(item, InputError)}
    said = [(number, item) for number, item in chunk if number not in found and not _blank(item)]
    try:
        answers: list[Any] = predictor.predict([item for _, item in said]) if said else []
        found |= {number: answer for (number, _), answer in zip(said, answers, strict=True)}
    except FlambeauError:
        for number, item in said:
            try:
                [found[number]] = predictor.predict([item])
            except FlambeauError as error:
                found[number] = error
    return [(number, found.get(number)) for number, _ in chunk]


def _blank(item: Any) -> bool:
    return isinstance(item, str) and not item.strip()


def read_items(
    predictor: Predictor, files: Sequence[Path]
) -> tuple[list[Any], list[dict[str, Any]]]:
    """The raw items in the files, and where each stands: its file, and its number from 1.

    Raises:
        InputError: A file does not exist.
    """
    record = predictor.record
    data_class = next(iter(domains.get(record.domain).data_classes.values())) if record else Data
    items: list[Any] = []
    places: list[dict[str, Any]] = []
    for file in files:
        if not file.exists():
            raise InputError(f"There is nothing at {file} (looked from {Path.cwd()}).")
        found = list(data_class.items_from_path(file))
        several = len(found) > 1
        items += found
        places += [
            {"file": str(file), **({"item": number} if several else {})}
            for number in range(1, len(found) + 1)
        ]
    return items, places


def flat(answer: Any) -> dict[str, Any]:
    """One level of names: a nested mapping's entries stand beside the others."""
    if is_dataclass(answer) and not isinstance(answer, type):
        fields = asdict(answer)
    elif isinstance(answer, Mapping):
        fields = dict(cast("Mapping[str, Any]", answer))
    else:
        return {"value": answer}
    result: dict[str, Any] = {}
    for name, value in fields.items():
        nested = isinstance(value, Mapping)
        result.update(cast("Mapping[str, Any]", value) if nested else {name: value})
    return result


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, cast("Sequence[Any]", value)))
    return str(value)
