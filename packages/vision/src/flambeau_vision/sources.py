"""The sources of ``ImageData`` (folder, table, arrays, pairs), each read to its arguments."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flambeau.data.samples import Samples
from flambeau.data.split import Split
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_vision.arrays import check_same_shape, to_uint8_images
from flambeau_vision.assemble import ImageDataArguments, assemble
from flambeau_vision.csv_file import read_csv
from flambeau_vision.folder import IMAGE_EXTENSIONS, PART_NAMES, list_folder
from flambeau_vision.labels import read_labels, to_list
from flambeau_vision.options import ImageOptions
from flambeau_vision.split_request import SplitRequest, make_split, parse_part


@dataclass(frozen=True)
class TableSource:
    """A table of files and labels.

    Attributes:
        columns: Columns by name.
        file: Name of the column of paths.
        label: Name of the column of labels, or of several.
        root: The folder that relative paths start from.
    """

    columns: Mapping[str, Sequence[Any]]
    file: str
    label: str | Sequence[str]
    root: Path

    def __getitem__(self, name: str) -> list[Any]:
        if name not in self.columns:
            raise InputError(
                f"The table has no column {name!r}. {did_you_mean(name, self.columns)}"
            )
        return list(self.columns[name])


@dataclass(frozen=True)
class ArraySource:
    """Images and labels in memory, as the arguments of ``ImageData.from_arrays``."""

    images: Any
    labels: Any
    valid: float | tuple[Any, Any]
    test: float | tuple[Any, Any]
    layout: str | None


# ---------------------------------------------------------------- sources


def read_folder(
    path: str | os.PathLike[str], request: SplitRequest, options: ImageOptions
) -> ImageDataArguments:
    """Read a folder of class folders, or of train, valid and test folders with class folders."""
    listing = list_folder(path, options.classes)
    request = SplitRequest(request.valid, request.test, request.seed, request.split, listing.parts)
    options = options.updated({"classes": listing.classes})
    return assemble(listing.files, listing.labels, request, options, listing.notes)


def read_table(
    table: TableSource, request: SplitRequest, split_column: str | None, options: ImageOptions
) -> ImageDataArguments:
    """Read the files that a table names."""
    notes: tuple[str, ...] = ()
    if split_column is None and request.split is None and _has_split_column(table.columns):
        notes = ("the column 'split' is not used; split=\"split\" reads the parts from it",)
    if split_column is not None:
        notes = (f"the parts are read from the column {split_column!r}",)
        parts = [parse_part(value, row) for row, value in enumerate(table[split_column])]
        request = SplitRequest(request.valid, request.test, request.seed, None, parts)
    files: list[Path] = []
    for row, value in enumerate(table[table.file]):
        if not isinstance(value, str | os.PathLike) or not str(value):
            raise InputError(
                f"The file of row {row} is {value!r}. Give a path in every row of {table.file!r}."
            )
        files.append(table.root / value)
    if isinstance(table.label, str):
        return assemble(files, table[table.label], request, options, notes)
    names = tuple(table.label)
    rows = list(zip(*(table[name] for name in names), strict=True))
    if all(value in (0, 1) for row in rows for value in row) and options.task != "regression":
        labels = [[name for name, on in zip(names, row, strict=True) if on] for row in rows]
    else:
        labels = [[float(value) for value in row] for row in rows]
    return assemble(files, labels, request, options.updated({"classes": names}), notes)


def read_items(
    items: Sequence[tuple[Any, Any]], request: SplitRequest, options: ImageOptions
) -> ImageDataArguments:
    """Read pairs of an image and its label."""
    for row, pair in enumerate(items):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"Item {row} is a {type(pair).__name__}, not a pair (image, label).")
    return assemble([item for item, _ in items], [label for _, label in items], request, options)


def read_arrays(
    arrays: ArraySource, seed: int, split: Split | None, options: ImageOptions
) -> ImageDataArguments:
    """Read arrays or tensors of images of equal size."""
    given = {"train": (arrays.images, arrays.labels)}
    shares = {"valid": 0.2, "test": 0.0}
    for part, value in (("valid", arrays.valid), ("test", arrays.test)):
        if isinstance(value, tuple):
            given[part] = value
        else:
            shares[part] = value
    channels = 1 if options.channels in (None, 1, 3) else options.channels
    images = {
        part: to_uint8_images(pair[0], arrays.layout, channels or 1, part)
        for part, pair in given.items()
    }
    check_same_shape(images)
    labels = {part: to_list(pair[1]) for part, pair in given.items()}
    for part, tensor in images.items():
        if len(tensor) != len(labels[part]):
            raise InputError(
                f"There are {len(tensor):,} {part} images, but {len(labels[part]):,} labels. Give "
                "one label per image."
            )
    pixels = torch.cat(list(images.values())) if len(images) > 1 else images["train"]
    targets = read_labels(
        [label for part in labels.values() for label in part],
        task=options.task,
        classes=options.classes,
        sep=options.sep,
    )
    parts = [part for part, tensor in images.items() for _ in range(len(tensor))]
    request = SplitRequest(
        shares["valid"], shares["test"], seed, split, parts if len(images) > 1 else None
    )
    n, n_channels, height, width = pixels.shape
    samples = Samples(
        {
            "image": pixels,  # pyright: ignore[reportArgumentType]  (a tensor is a column too)
            "width": [width] * n,
            "height": [height] * n,
            "mode": [{1: "L", 3: "RGB"}.get(n_channels, f"{n_channels} channels")] * n,
            "format": [""] * n,
            "animated": [False] * n,
        }
    )
    return samples, targets, make_split(request, targets, np.arange(n), n), options, ()


def read_path(path: Path, options: Mapping[str, Any]) -> ImageDataArguments:
    """Read a folder or a CSV file, with the options of the command line by name."""
    if path.is_file() and path.suffix.lower() in IMAGE_EXTENSIONS:
        raise InputError(
            f"{path} is a single image. Training needs a folder with one sub-folder of images per "
            f"class, or a CSV file. To predict this image: flambeau predict MODEL {path}"
        )
    option_names = ("size", "channels", "classes", "unreadable", "sep", "task")
    split_names = ("valid", "test", "seed")
    table_names = ("file", "target", "split", "root") if path.is_file() else ()
    known = (*option_names, *split_names, *table_names)
    given = {name: value for name, value in options.items() if value is not None}
    if "image_size" in given:  # the plan's name for it
        given["size"] = given.pop("image_size")
    for name in given:
        if name not in known:
            raise ArgumentError(f"Unknown option {name!r} for {path}. {did_you_mean(name, known)}")
    image_options = ImageOptions().updated(
        {name: given[name] for name in option_names if name in given}
    )
    request = SplitRequest(**{name: given[name] for name in split_names if name in given})
    if path.is_dir():
        return read_folder(path, request, image_options)
    columns = read_csv(path)
    file, label = guess_columns(columns)
    file, label = given.get("file", file), given.get("target", label)
    if file is None or label is None:
        raise InputError(
            f"The file and label columns of {path} cannot be inferred from {', '.join(columns)}. "
            "Name them with --file and --target."
        )
    table = TableSource(columns, file, label, Path(given.get("root", path.parent)))
    split = given.get("split", "split" if _has_split_column(columns) else None)
    return read_table(table, request, split, image_options)


def _has_split_column(columns: Mapping[str, Sequence[Any]]) -> bool:
    """Return whether a column "split" has a part (train, valid, test) in every row."""
    values = columns.get("split", ())
    return bool(values) and all(str(value).strip().lower() in PART_NAMES for value in values)


def guess_columns(columns: Mapping[str, Sequence[Any]]) -> tuple[str | None, str | None]:
    """Return (file, label): the only column of image paths, and "label" or the only other one."""
    files = [
        name
        for name, column in columns.items()
        if all(Path(str(value)).suffix.lower() in IMAGE_EXTENSIONS for value in column[:20])
    ]
    if len(files) != 1:
        return None, None
    others = [name for name in columns if name not in files]
    label = "label" if "label" in others else others[0] if len(others) == 1 else None
    return files[0], label


def resolve_split(
    split: str | Split | None, valid: float, test: float, seed: int
) -> tuple[SplitRequest, str | None]:
    """Return the split request and the name of the split column, if ``split`` is one."""
    if isinstance(split, str):
        return SplitRequest(valid, test, seed), split
    return SplitRequest(valid, test, seed, split), None


# ---------------------------------------------------------------- tables


def read_columns(frame: Any) -> Mapping[str, Sequence[Any]]:
    """Return the columns of a data frame or a mapping as lists.

    Raises:
        InputError: It is neither, or the columns have different lengths.
    """
    if isinstance(frame, Mapping):
        columns = {str(name): list(column) for name, column in frame.items()}
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            seen = ", ".join(f"{name} {length:,}" for name, length in lengths.items())
            raise InputError(f"The columns have different lengths: {seen}. Give one row per image.")
        return columns
    if not hasattr(frame, "columns"):
        raise InputError(
            f"A {type(frame).__name__} is not a data frame. Give a data frame or a mapping of "
            "columns."
        )
    return {str(name): frame[name].tolist() for name in frame.columns}
