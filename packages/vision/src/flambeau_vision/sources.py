"""Functions that read a folder, table, arrays or pairs; they return ``ImageDataArguments``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flambeau.data.label_rows import list_labels
from flambeau.data.samples import Samples
from flambeau.data.split_request import (
    SplitRequest,
    consecutive_rows,
    has_part_names,
    read_part_column,
    rows_by_part,
)
from flambeau.data.tables import Table, read_csv
from flambeau.data.targets import read_labels
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau_vision.arrays import check_same_shape, to_uint8_images
from flambeau_vision.assemble import ImageDataArguments, assemble, split_images
from flambeau_vision.folder import IMAGE_EXTENSIONS, list_folder
from flambeau_vision.options import ImageOptions


@dataclass(frozen=True)
class TableSource:
    """A table of files and labels.

    Attributes:
        columns: The table.
        file: Name of the column of paths.
        label: Name of the column of labels, or of several.
        root: The folder that relative paths start from.
    """

    columns: Table
    file: str
    label: str | Sequence[str]
    root: Path

    def column(self, argument: str, name: str) -> Sequence[Any]:
        """Return a column; ``argument`` ("file", "label") is the one that names it."""
        try:
            return self.columns.column(name)
        except InputError as error:
            option = "target" if argument == "label" else argument
            raise InputError(
                f"{error} Name the column with {argument}=…, on the command line --{option}."
            ) from None


# ---------------------------------------------------------------- sources


def read_folder(
    path: str | os.PathLike[str], request: SplitRequest, options: ImageOptions
) -> ImageDataArguments:
    """Read a folder of class folders, or of train, valid and test folders with class folders."""
    listing = list_folder(path, options.classes, options.parts)
    options = options.updated({"classes": listing.classes})
    given = rows_by_part(listing.parts)
    return assemble(
        listing.files, listing.labels, request, options, listing.notes, given, listing.readings
    )


def read_table(
    table: TableSource, request: SplitRequest, options: ImageOptions
) -> ImageDataArguments:
    """Read the files that a table names."""
    columns = table.columns
    notes: tuple[str, ...] = ()
    given = None
    if request.split is None and _has_split_column(columns):
        notes = ("the column 'split' is not used; split=\"split\" reads the parts from it",)
    if (column := request.column) is not None:
        notes = (f"the parts are read from the column {column!r}",)
        given = rows_by_part(read_part_column(columns.column(column), column, columns.name))
    files: list[Path] = []
    for row, value in enumerate(table.column("file", table.file)):
        if not isinstance(value, str | os.PathLike) or not str(value):
            raise InputError(
                f"The file of row {row} is {value!r}. Give a path in every row of {table.file!r}."
            )
        files.append(table.root / value)
    if isinstance(table.label, str):
        return assemble(files, table.column("label", table.label), request, options, notes, given)
    names = tuple(table.label)
    rows = list(zip(*(table.column("label", name) for name in names), strict=True))
    for row, values in enumerate(rows):
        for name, value in zip(names, values, strict=True):
            if not isinstance(value, int | float):
                raise InputError(
                    f"The label column {name!r} has {value!r:.60} in row {row}, but several label "
                    "columns must be numbers: amounts, or 0 and 1 for each class. For classes as "
                    "text name one column."
                )
    labels = list(np.array(rows))
    return assemble(files, labels, request, options.updated({"classes": names}), notes, given)


def read_items(
    items: Sequence[tuple[Any, Any]], request: SplitRequest, options: ImageOptions
) -> ImageDataArguments:
    """Read pairs of an image and its label."""
    for row, pair in enumerate(items):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"Item {row} is a {type(pair).__name__}, not a pair (image, label).")
    return assemble([item for item, _ in items], [label for _, label in items], request, options)


def read_arrays(
    images: Any, labels: Any, request: SplitRequest, layout: str | None, options: ImageOptions
) -> ImageDataArguments:
    """Read arrays or tensors of images of equal size; see ``ImageData.from_arrays``."""
    pairs = {"train": (images, labels), **request.separate(tuple, pair="(images, labels)")}
    channels = 1 if options.channels in (None, 1, 3) else options.channels
    tensors = {
        part: to_uint8_images(pair[0], layout, channels or 1, part) for part, pair in pairs.items()
    }
    check_same_shape(tensors)
    found = {part: list_labels(pair[1]) for part, pair in pairs.items()}
    labels_of = {part: labels for part, (labels, _) in found.items()}
    columns = found["train"][1]
    for part, tensor in tensors.items():
        if len(tensor) != len(labels_of[part]):
            raise InputError(
                f"There are {len(tensor):,} {part} images, but {len(labels_of[part]):,} labels. "
                "Give one label per image."
            )
    pixels = torch.cat(list(tensors.values())) if len(tensors) > 1 else tensors["train"]
    targets = read_labels(
        [label for part in labels_of.values() for label in part],
        task=options.task,
        classes=columns if options.classes is None else options.classes,
        sep=options.sep,
    )
    rows = consecutive_rows({part: len(tensor) for part, tensor in tensors.items()})
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
    split = split_images(request, targets, n, given=rows if len(rows) > 1 else None)
    return samples, targets, split, options, (), ()


def read_path(path: Path, options: Mapping[str, Any]) -> ImageDataArguments:
    """Read a folder or a CSV file, with the options of the command line by name."""
    if path.is_file() and path.suffix.lower() in IMAGE_EXTENSIONS:
        raise InputError(
            f"{path} is a single image. Training needs a folder with one sub-folder of images per "
            f"class, or a CSV file. To predict this image: flambeau predict MODEL {path}"
        )
    option_names = ("size", "channels", "classes", "parts", "unreadable", "sep", "task")
    split_names = (
        "valid",
        "test",
        "calibration",
        "seed",
        *(("split",) if path.is_file() else ()),
    )
    table_names = ("file", "target", "root") if path.is_file() else ()
    known = (*option_names, *split_names, *table_names)
    given = {name: value for name, value in options.items() if value is not None}
    if "image_size" in given:  # the plan's name for it
        given["size"] = given.pop("image_size")
    for name in given:
        if name not in known:
            raise ArgumentError(f"Unknown option {name!r} for {path}. {did_you_mean(name, known)}")
    if isinstance(classes := given.get("classes"), str):
        given["classes"] = [name.strip() for name in classes.split(",")]
    if isinstance(parts := given.get("parts"), str):
        given["parts"] = _parse_parts(parts)
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
            f"The file and label columns of {path} cannot be inferred from "
            f"{', '.join(columns.names)}. Name them with --file and --target."
        )
    columns = columns.with_numbers(text=(file,))
    table = TableSource(columns, file, label, Path(given.get("root", path.parent)))
    if request.split is None and _has_split_column(columns):
        request = replace(request, split="split")
    return read_table(table, request, image_options)


def _parse_parts(text: str) -> dict[str, str]:
    """Return ``folder=part,folder=part`` as a mapping."""
    pairs = [pair.rpartition("=") for pair in text.split(",") if pair.strip()]
    if wrong := [part for folder, _, part in pairs if not folder]:
        raise ArgumentError(
            f"{wrong[0]!r} is not FOLDER=PART. Write --parts training=train,holdout=test; --parts "
            "'' if no folder is a part."
        )
    return {folder.strip(): part.strip() for folder, _, part in pairs}


def _has_split_column(columns: Table) -> bool:
    """Return whether a column "split" has a part (train, valid, test) in every row."""
    return "split" in columns and has_part_names(columns.column("split"))


def guess_columns(columns: Table) -> tuple[str | None, str | None]:
    """Return (file, label): the only column of image paths, and "label" or the only other one."""
    files = [
        name
        for name in columns.names
        if all(
            Path(str(value)).suffix.lower() in IMAGE_EXTENSIONS
            for value in columns.column(name)[:20]
        )
    ]
    if len(files) != 1:
        return None, None
    others = [name for name in columns.names if name not in files]
    label = "label" if "label" in others else others[0] if len(others) == 1 else None
    return files[0], label
