"""Functions that read a folder, table, arrays or pairs; they return ``ImageDataArguments``."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.data.label_columns import label_rows_of_columns
from flambeau.data.label_rows import list_labels
from flambeau.data.part_columns import (
    doubt_about_part_columns,
    find_part_column,
    read_part_column,
)
from flambeau.data.reading import Reading
from flambeau.data.samples import Samples
from flambeau.data.split_request import SplitRequest, consecutive_rows, rows_by_part
from flambeau.data.tables import to_list
from flambeau.data.targets import read_labels
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.tensors.columns import as_sample_weights, weights_of_column
from flambeau_vision.arrays import (
    bits_of_rows,
    check_same_range,
    check_same_shape,
    check_train_range,
    largest_of_rows,
    layout_of,
    to_uint8_images,
    white_of_parts,
)
from flambeau_vision.assemble import (
    BITS,
    GROUP,
    WEIGHT,
    ImageDataArguments,
    as_column,
    assemble,
    group_column,
    split_images,
    white_columns,
)
from flambeau_vision.file_name_labels import labels_are_in_names, list_by_name
from flambeau_vision.filename_groups import groups_of_paths
from flambeau_vision.float_scale import White
from flambeau_vision.folder import list_folder
from flambeau_vision.foreign_files import describe_foreign_file
from flambeau_vision.image_files import IMAGE_EXTENSIONS
from flambeau_vision.options import ImageOptions
from flambeau_vision.table_columns import (
    TableSource,
    column_of,
    csv_source,
    find_columns,
    is_image_path,
    name_columns,
    unused_columns,
)

# ---------------------------------------------------------------- sources


def read_folder(
    path: str | os.PathLike[str], request: SplitRequest, options: ImageOptions
) -> ImageDataArguments:
    """Read a folder of class folders, or of train, valid and test folders with class folders."""
    _refuse_weight(
        options,
        "Use from_df or from_csv and a table with such a column, or omit weight (--weight).",
    )
    if os.path.isfile(path) and (cause := describe_foreign_file(Path(path))) is not None:
        raise InputError(f"{path} is not a folder. {cause}")
    if options.pattern is None and (pattern := options.of_like.get("pattern")) is not None:
        options = options.updated({"pattern": pattern if labels_are_in_names(path) else None})
    for_training = request.for_training
    some = for_training and options.like is not None
    classes, parts = options.classes, options.parts
    if options.pattern is not None:
        listing = list_by_name(
            path, options.pattern, classes, parts, some=some, for_training=for_training
        )
    else:
        listing = list_folder(path, classes, parts, some=some, for_training=for_training)
        if options.task == "regression":
            # The names of the folders are values, and ``classes`` has only selected folders.
            options = replace(options, classes=None)
    given = rows_by_part(listing.parts)
    groups = None
    if options.group is not None:
        groups = groups_of_paths(listing.files, Path(path), options.group)
    return assemble(
        listing.files,
        listing.labels,
        request,
        options,
        listing.notes,
        given,
        listing.readings,
        groups=groups,
    )


def read_table(
    table: TableSource, request: SplitRequest, options: ImageOptions
) -> ImageDataArguments:
    """Read the files that a table names."""
    table, options = name_columns(table, options)
    columns = table.columns
    given, column = None, request.column
    readings: tuple[Reading, ...] = ()
    wanted = [table.file, *([table.label] if isinstance(table.label, str) else table.label or ())]
    if request.split is None:
        known = [name for name in (*wanted, "file", "label") if name is not None]
        if (match := find_part_column(columns, known)) is not None:
            column, readings = match[0], (match[1],)
            request = replace(request, split=column)
        else:
            readings = doubt_about_part_columns(columns, known)
    if column is not None:
        given = rows_by_part(read_part_column(columns.column(column), column, columns.name))
    roles = [name for name in (column, options.weight, options.group) if name is not None]
    found = find_columns(table, without=roles)
    cells = column_of(columns, "file", found.file)
    files = [
        _image_of(value, row, found.file, table.root, options) for row, value in enumerate(cells)
    ]
    used = (*found.names, *roles)
    is_drawn = request.for_training and request.split is None and bool(request.to_draw())
    readings += (*found.readings, *unused_columns(columns, used, is_drawn=is_drawn))
    options = options.updated({"file": found.file, "label": found.label})
    weights = None if options.weight is None else weights_of_column(columns, options.weight)
    groups = None if options.group is None else column_of(columns, "group", options.group)
    if isinstance(found.label, str):
        labels = column_of(columns, "label", found.label)
        order = table.orders.get(found.label)
        has_one = options.task in (None, "classification") and options.sep is None
        if order is not None and options.classes is None and has_one:
            options = options.updated({"classes": order})
    else:
        labels = label_rows_of_columns(columns, found.label)
        options = options.updated({"classes": found.label})
    return assemble(files, labels, request, options, (), given, readings, weights, groups)


def _image_of(value: Any, row: int, column: str, root: Path, options: ImageOptions) -> Any:
    """Return the path in a cell, or the image itself; ``options.suffix`` is appended to ids."""
    if isinstance(value, Mapping):  # an image in a Parquet file of Hugging Face
        cell = cast("Mapping[str, Any]", value)
        value = cell.get("bytes") or cell.get("path")
    if isinstance(value, bytes) or hasattr(value, "getbands"):
        return value
    is_number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if is_number and options.suffix:
        value = str(value)
    if not isinstance(value, str | os.PathLike) or not str(value):
        hint = " If these are ids, pass suffix='.jpg', on the command line --suffix .jpg."
        raise InputError(
            f"The file of row {row} is {value!r:.60}. Give a path in every row of {column!r}."
            + hint * is_number
        )
    suffix = options.suffix or ""
    is_complete = str(value).endswith(suffix) or is_image_path(value)
    return root / (value if is_complete else f"{value}{suffix}")


def read_items(
    items: Sequence[tuple[Any, Any]],
    request: SplitRequest,
    options: ImageOptions,
    group: Any = None,
) -> ImageDataArguments:
    """Read pairs of an image and its label; see ``ImageData.from_items``."""
    _refuse_weight(options, "Use from_df with such a column, or omit weight.")
    refuse_group(options, "Pass the group of each item: group=….")
    for row, pair in enumerate(items):
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(f"Item {row} is a {type(pair).__name__}, not a pair (image, label).")
    images = [item for item, _ in items]
    if images and all(len(getattr(image, "shape", ())) == 2 for image in images):
        options = options.updated({"layout": "HW"})
    groups = groups_of_images(group, {"train": len(images)})
    return assemble(images, [label for _, label in items], request, options, groups=groups)


def _pixels_of_parts(
    images: Mapping[str, Any], layout: str | None, channels: int, given: White | None
) -> dict[str, Tensor]:
    """Return the pixels of each part; floats are scaled as those of train."""
    white = white_of_parts(images, given)
    if given is None:
        check_same_range(images)
    tensors = {
        # None for train raises if its range is not clear.
        part: to_uint8_images(
            each, layout, channels, part, white=given if part == "train" else white
        )
        for part, each in images.items()
    }
    check_same_shape(tensors)
    return tensors


def _check_lengths(tensors: Mapping[str, Tensor], labels: Mapping[str, Sequence[Any]]) -> None:
    for part, tensor in tensors.items():
        if len(tensor) != len(labels[part]):
            raise InputError(
                f"There are {len(tensor):,} {part} images, but {len(labels[part]):,} labels. "
                "Give one label per image."
            )


def _weight_column(given: Any, sizes: Mapping[str, int]) -> dict[str, Sequence[Any]]:
    """Return the column of weights: ``given`` for train, and 1 for the images of other parts."""
    if given is None:
        return {}
    weights = as_sample_weights(given)
    if len(weights) != sizes["train"]:
        raise InputError(
            f"There are {sizes['train']:,} train images, but {len(weights):,} weights in "
            "sample_weight. Give one weight per image."
        )
    ones = weights.new_ones(sum(sizes.values()) - len(weights))
    return {WEIGHT: as_column(torch.cat([weights, ones]))}


def groups_of_images(given: Any, sizes: Mapping[str, int]) -> Sequence[Any] | None:
    """Return the group of each train image; None without groups.

    Args:
        given: The groups that the user passed.
        sizes: Part → number of images, of the parts that are given.

    Raises:
        InputError: There is not one group for each train image, or another part is given.
    """
    if given is None:
        return None
    groups = to_list(given)
    if len(groups) != sizes["train"]:
        raise InputError(
            f"There are {sizes['train']:,} train images, but {len(groups):,} groups in group. Give "
            "one group per image."
        )
    if len(sizes) > 1:
        raise InputError(
            f"group has the groups of the train images, but {', '.join([*sizes][1:])} is given "
            "too. Give all images together and the size of each part (valid=0.2)."
        )
    return groups


def refuse_group(options: ImageOptions, instead: str) -> None:
    """Raise an ArgumentError if the options name a column of groups, but there is no table."""
    if options.group is not None:
        raise ArgumentError(
            f"group={options.group!r} is a column of a table, or a regular expression for the "
            f"paths in a folder. {instead}"
        )


def _refuse_weight(options: ImageOptions, instead: str) -> None:
    if options.weight is not None:
        raise InputError(
            f"weight={options.weight!r} names a column, but these images do not come from a table. "
            f"{instead}"
        )


def read_arrays(
    images: Any,
    labels: Any,
    request: SplitRequest,
    layout: str | None,
    options: ImageOptions,
    sample_weight: Any = None,
    group: Any = None,
) -> ImageDataArguments:
    """Read arrays or tensors of images of equal size; see ``ImageData.from_arrays``."""
    _refuse_weight(options, "Pass the weights: sample_weight=….")
    refuse_group(options, "Pass the group of each image: group=….")
    pairs = {"train": (images, labels), **request.separate(tuple, pair="(images, labels)")}
    channels = 1 if options.channels in (None, 1, 3) else options.channels
    layout = options.layout if layout is None else layout
    images_of = {part: pair[0] for part, pair in pairs.items()}
    tensors = _pixels_of_parts(images_of, layout, channels or 1, options.white)
    white = white_of_parts(images_of, options.white)
    options = options.updated({"layout": layout_of(images, tensors["train"])})
    found = {part: list_labels(pair[1]) for part, pair in pairs.items()}
    labels_of = {part: labels for part, (labels, _) in found.items()}
    columns = found["train"][1]
    _check_lengths(tensors, labels_of)
    pixels = torch.cat(list(tensors.values())) if len(tensors) > 1 else tensors["train"]
    targets = read_labels(
        [label for part in labels_of.values() for label in part],
        task=options.task,
        classes=columns if options.classes is None else options.classes,
        sep=options.sep,
    )
    rows = consecutive_rows({part: len(tensor) for part, tensor in tensors.items()})
    n = len(pixels)
    given = groups_of_images(group, {part: len(each) for part, each in tensors.items()})
    groups = group_column(given)
    split = split_images(
        request,
        targets,
        n,
        given=rows if len(rows) > 1 else None,
        groups=groups.get(GROUP),
    )
    floats = largest_of_rows(images_of)
    if options.white is None and white is not None:
        check_train_range(floats, split.train, white)
    used = bits_of_rows(images, split.train)
    bits = None if used is None else options.bits or used
    if bits not in (None, 16):  # the range is that of train, which is known now
        each = [
            to_uint8_images(p[0], layout, channels or 1, part, bits) for part, p in pairs.items()
        ]
        pixels = torch.cat(each)
    columns = {
        **({} if bits is None else {BITS: [bits] * n}),
        **white_columns(floats, n, white),
        **_weight_column(sample_weight, {part: len(each) for part, each in tensors.items()}),
        **groups,
    }
    return _samples_of_arrays(pixels, columns), targets, split, options, (), ()


def _samples_of_arrays(pixels: Tensor, columns: Mapping[str, Sequence[Any]]) -> Samples:
    """Return the samples of images ``(n, channels, height, width)`` with further columns."""
    n, n_channels, height, width = pixels.shape
    return Samples(
        {
            "image": as_column(pixels),
            "width": [width] * n,
            "height": [height] * n,
            "mode": [{1: "L", 3: "RGB"}.get(n_channels, f"{n_channels} channels")] * n,
            "format": [""] * n,
            "animated": [False] * n,
            **columns,
        }
    )


def read_path(path: Path, options: Mapping[str, Any]) -> ImageDataArguments:
    """Read a folder or a CSV file with the given command-line options, by name."""
    if path.is_file() and path.suffix.lower() in IMAGE_EXTENSIONS:
        raise InputError(
            f"{path} is a single image. Training needs a folder with one sub-folder of images per "
            f"class, or a CSV file. To predict this image: flambeau predict MODEL {path}"
        )
    option_names = (
        *("size", "channels", "resize", "classes", "parts", "pattern", "suffix"),
        *("bits", "unreadable", "verify", "sep", "task", "unknown", "weight", "group", "like"),
    )
    split_names = (
        "valid",
        "test",
        "calibration",
        "seed",
        *(("split",) if path.is_file() else ()),
    )
    table_names = ("file", "target", "root") if path.is_file() else ()
    known = (*option_names, *split_names, *table_names, "evaluate")
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
    request = SplitRequest(
        **{name: given[name] for name in split_names if name in given},
        scored=given.get("evaluate"),
    )
    if path.is_dir():
        return read_folder(path, request, image_options)
    target = given.get("target")
    root = Path(given.get("root", path.parent))
    table = csv_source(path, root, given.get("file"), target, image_options)
    if request.split == "none" and "none" not in table.columns:
        request = replace(request, split=False)
    return read_table(table, request, image_options)


def _parse_parts(text: str) -> dict[str, str]:
    """Return the text ``folder=part,folder=part`` as a mapping."""
    pairs = [pair.rpartition("=") for pair in text.split(",") if pair.strip()]
    if wrong := [part for folder, _, part in pairs if not folder]:
        raise ArgumentError(
            f"{wrong[0]!r} is not FOLDER=PART. Write --parts training=train,holdout=test; --parts "
            "'' if no folder is a part."
        )
    return {folder.strip(): part.strip() for folder, _, part in pairs}
