"""``flambeau predict MODEL FILES…``: answers for new files."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from flambeau import domain as domains
from flambeau.artefact.predictor import Predictor
from flambeau.data.dataset import Data
from flambeau.errors import InputError
from flambeau.report import text_table


class Format(StrEnum):
    """How the answers are printed."""

    table = "table"
    json = "json"
    csv = "csv"


def predict(
    model: Annotated[Path, typer.Argument(help="A folder that `flambeau fit` exported.")],
    files: Annotated[list[Path], typer.Argument(help="The files to answer for.")],
    format: Annotated[Format, typer.Option(help="How the answers are printed.")] = Format.table,
) -> None:
    """Answers for new files: label and probabilities, or values."""
    predictor = Predictor.load(model)
    items, places = read_items(predictor, files)
    answers = predictor.predict(items)
    records = [{**place, **flat(answer)} for place, answer in zip(places, answers, strict=True)]
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


def read_items(
    predictor: Predictor, files: Sequence[Path]
) -> tuple[list[Any], list[dict[str, Any]]]:
    """The raw items in the files, and where each stands: its file, and its number among several.

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
            for number in range(len(found))
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
