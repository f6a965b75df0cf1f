"""The ways into ``ImageData``: folder, table, arrays, pairs; each to samples, targets, split."""

from __future__ import annotations

import csv
import itertools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flambeau.data.samples import Samples
from flambeau.data.split import Split
from flambeau.errors import ArgumentError, InputError, nearest
from flambeau_vision.arrays import check_alike, uint8_pictures
from flambeau_vision.building import Parts, build
from flambeau_vision.files import ENDINGS, PART_NAMES, list_folder
from flambeau_vision.labels import plain_list, read_labels
from flambeau_vision.options import ImageOptions
from flambeau_vision.splitting import SplitRequest, make_split, part_of


@dataclass(frozen=True)
class Table:
    """Columns by name, and which of them are what."""

    columns: Mapping[str, Sequence[Any]]
    file: str
    label: str | Sequence[str]
    root: Path

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self.columns:
            raise InputError(f"The table has no column {name!r}. {nearest(name, self.columns)}")
        return list(self.columns[name])


@dataclass(frozen=True)
class Arrays:
    """Pictures in memory and what goes with them, as ``from_arrays`` takes them."""

    images: Any
    labels: Any
    valid: float | tuple[Any, Any]
    test: float | tuple[Any, Any]
    layout: str | None


# ---------------------------------------------------------------- the ways in


def of_folder(path: str | os.PathLike[str], request: SplitRequest, options: ImageOptions) -> Parts:
    """A folder of class folders, or of train, valid and test folders of such."""
    listing = list_folder(path, options.classes)
    request = SplitRequest(request.valid, request.test, request.seed, request.split, listing.parts)
    options = options.with_given({"classes": listing.classes})
    return build(listing.files, listing.labels, request, options, listing.notes)


def of_table(
    table: Table, request: SplitRequest, split_column: str | None, options: ImageOptions
) -> Parts:
    """The files that a table names."""
    notes: tuple[str, ...] = ()
    if split_column is None and request.split is None and _says_parts(table.columns):
        notes = ("the column 'split' is not used: split=\"split\" takes the parts from it",)
    if split_column is not None:
        notes = (f"the column {split_column!r} says which part a picture is in",)
        parts = [part_of(value, row) for row, value in enumerate(table[split_column])]
        request = SplitRequest(request.valid, request.test, request.seed, None, parts)
    files: list[Path] = []
    for row, value in enumerate(table[table.file]):
        if not isinstance(value, str | os.PathLike) or not str(value):
            raise InputError(
                f"The file of row {row} is {value!r}. Give a path in every row of {table.file!r}."
            )
        files.append(table.root / value)
    if isinstance(table.label, str):
        return build(files, table[table.label], request, options, notes)
    names = tuple(table.label)
    rows = list(zip(*(table[name] for name in names), strict=True))
    if all(value in (0, 1) for row in rows for value in row) and options.task != "regression":
        labels = [[name for name, on in zip(names, row, strict=True) if on] for row in rows]
    else:
        labels = [[float(value) for value in row] for row in rows]
    return build(files, labels, request, options.with_given({"classes": names}), notes)


def of_items(
    items: Sequence[tuple[Any, Any]], request: SplitRequest, options: ImageOptions
) -> Parts:
    """Pairs of a picture and its label."""
    for row, pair in enumerate(items):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"Item {row} is a {type(pair).__name__}, not a pair (picture, label).")
    return build([item for item, _ in items], [label for _, label in items], request, options)


def of_arrays(arrays: Arrays, seed: int, split: Split | None, options: ImageOptions) -> Parts:
    """Arrays or tensors of pictures of one size."""
    given = {"train": (arrays.images, arrays.labels)}
    shares = {"valid": 0.2, "test": 0.0}
    for part, value in (("valid", arrays.valid), ("test", arrays.test)):
        if isinstance(value, tuple):
            given[part] = value
        else:
            shares[part] = value
    known = 1 if options.channels in (None, 1, 3) else options.channels
    images = {
        part: uint8_pictures(pair[0], arrays.layout, known or 1, part)
        for part, pair in given.items()
    }
    check_alike(images)
    labels = {part: plain_list(pair[1]) for part, pair in given.items()}
    for part, pictures in images.items():
        if len(pictures) != len(labels[part]):
            raise InputError(
                f"{len(pictures):,} {part} pictures, but {len(labels[part]):,} labels. Give one "
                "label a picture."
            )
    pixels = torch.cat(list(images.values())) if len(images) > 1 else images["train"]
    targets = read_labels(
        [label for part in labels.values() for label in part],
        task=options.task,
        classes=options.classes,
        sep=options.sep,
    )
    parts = [part for part, pictures in images.items() for _ in range(len(pictures))]
    request = SplitRequest(
        shares["valid"], shares["test"], seed, split, parts if len(images) > 1 else None
    )
    n, channels, height, width = pixels.shape
    samples = Samples(
        {
            "item": pixels,  # pyright: ignore[reportArgumentType]  (a tensor is a column too)
            "width": [width] * n,
            "height": [height] * n,
            "mode": [{1: "L", 3: "RGB"}.get(channels, f"{channels} channels")] * n,
            "format": [""] * n,
            "animated": [False] * n,
        }
    )
    return samples, targets, make_split(request, targets, np.arange(n), n), options, ()


def of_path(path: Path, options: Mapping[str, Any]) -> Parts:
    """A folder or a CSV file, with options by name as the command line has them."""
    if path.is_file() and path.suffix.lower() in ENDINGS:
        raise InputError(
            f"{path} is one picture. Training takes a folder with a folder of pictures a class, or "
            f"a CSV file; for an answer to it: flambeau predict MODEL {path}"
        )
    own = ("size", "channels", "classes", "unreadable", "sep", "task")
    drawn = ("valid", "test", "seed")
    table = ("file", "label", "split", "root") if path.is_file() else ()
    given = {name: value for name, value in options.items() if value is not None}
    if "image_size" in given:  # the plan's word for it
        given["size"] = given.pop("image_size")
    for name in given:
        if name not in (*own, *drawn, *table):
            raise ArgumentError(
                f"{path} is read with no option {name!r}. {nearest(name, (*own, *drawn, *table))}"
            )
    choices = ImageOptions().with_given({name: given[name] for name in own if name in given})
    draw = {name: given[name] for name in drawn if name in given}
    if path.is_dir():
        return of_folder(path, SplitRequest(**draw), choices)
    columns = read_csv(path)
    file, label = guess_columns(columns)
    file, label = given.get("file", file), given.get("label", label)
    if file is None or label is None:
        raise InputError(
            f"Which columns of {path} name the picture and the label? It has "
            f"{', '.join(columns)}. Say --file and --label."
        )
    found = Table(columns, file, label, Path(given.get("root", path.parent)))
    split = given.get("split", "split" if _says_parts(columns) else None)
    return of_table(found, SplitRequest(**draw), split, choices)


def _says_parts(columns: Mapping[str, Sequence[Any]]) -> bool:
    """Whether there is a column "split" that says train, valid or test in every row."""
    values = columns.get("split", ())
    return bool(values) and all(str(value).strip().lower() in PART_NAMES for value in values)


def guess_columns(columns: Mapping[str, Sequence[Any]]) -> tuple[str | None, str | None]:
    """(file, label): the only column of picture names, and "label" or the only other column."""
    files = [
        name
        for name, column in columns.items()
        if all(Path(str(value)).suffix.lower() in ENDINGS for value in column[:20])
    ]
    if len(files) != 1:
        return None, None
    others = [name for name in columns if name not in files]
    label = "label" if "label" in others else others[0] if len(others) == 1 else None
    return files[0], label


def split_of(
    split: str | Split | None, valid: float, test: float, seed: int
) -> tuple[SplitRequest, str | None]:
    """The request, and the column that says the part."""
    if isinstance(split, str):
        return SplitRequest(valid, test, seed), split
    return SplitRequest(valid, test, seed, split), None


# ---------------------------------------------------------------- tables


def columns_of(frame: Any) -> Mapping[str, Sequence[Any]]:
    """The columns of a data frame, or of a mapping, as lists."""
    if isinstance(frame, Mapping):
        columns = {str(name): list(column) for name, column in frame.items()}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            seen = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise InputError(f"The columns have different lengths: {seen}. Give one row a picture.")
        return columns
    if not hasattr(frame, "columns"):
        raise InputError(
            f"A {type(frame).__name__} is no data frame. Give one, or a mapping of columns."
        )
    return {str(name): frame[name].tolist() for name in frame.columns}


def read_csv(
    path: str | os.PathLike[str], *, rows: int | None = None
) -> Mapping[str, Sequence[Any]]:
    """The columns of a CSV file with a header; numbers where a whole column is numbers.

    Args:
        path: The file, UTF-8; commas, semicolons or tabs between columns, whichever the header has.
        rows: Only the first so many.

    Raises:
        InputError: There is no such file, it is empty, or a row has another length.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist. Give a CSV file with a header.")
    with path.open(newline="", encoding="utf-8-sig") as file:
        header_line = file.readline()
        file.seek(0)
        between = max(",;\t", key=header_line.count)
        lines = itertools.islice(
            csv.reader(file, delimiter=between), None if rows is None else rows + 1
        )
        table = [row for row in lines if row]
    if len(table) < 2:
        raise InputError(f"{path} has no rows below its header.")
    header, body = table[0], table[1:]
    for number, row in enumerate(body):
        if len(row) != len(header):
            raise InputError(
                f"Row {number} of {path} has {len(row)} fields, the header {len(header)}: {row[:4]}"
            )
    columns = zip(*body, strict=True)
    return {name: _typed(column) for name, column in zip(header, columns, strict=True)}


def _typed(column: Sequence[str]) -> list[Any]:
    for kind in (int, float):
        try:
            return [kind(text) for text in column]
        except ValueError:
            continue
    return list(column)
