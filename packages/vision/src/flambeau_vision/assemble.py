"""Assemble samples, targets and split from files and labels, with all checks before training."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np
from torch import Tensor

from flambeau.data.label_scalars import class_name, is_missing, to_python
from flambeau.data.match_classes import match_classes
from flambeau.data.reading import Reading
from flambeau.data.samples import Problem, Samples
from flambeau.data.split import PARTS, Rows, Split
from flambeau.data.split_request import SplitRequest
from flambeau.data.targets import Targets, read_labels
from flambeau.errors import InputError, SplitError
from flambeau_vision.decode import in_levels
from flambeau_vision.float_scale import White, white_of
from flambeau_vision.headers import ImageHeader, is_fast_to_verify, read_headers
from flambeau_vision.open_image import item_name, name_items
from flambeau_vision.options import ImageOptions

ImageDataArguments: TypeAlias = tuple[
    Samples, Targets, Split, ImageOptions, tuple[str, ...], tuple[Reading, ...]
]
"""The arguments of ``ImageData``."""

WEIGHT = "sample_weight"
"""The column of ``Samples`` with the weights of the images, if they have weights."""

GROUP = "group"
"""The column of ``Samples`` with the group of each image, if groups are given."""

BITS = "bits"
"""The column of ``Samples`` with the bits of each 16-bit image, if there are any."""

WHITE = "white"
"""The column of ``Samples`` with the value of white of each image of floats, if there are any."""

LARGEST = "largest"
"""The column of ``Samples`` with the largest value of each image of floats, if there are any."""

# Reasons listed in a message; further ones are only counted.
_MAX_REASONS = 5


def assemble(
    items: Sequence[Any],
    labels: Sequence[Any],
    request: SplitRequest,
    options: ImageOptions,
    notes: tuple[str, ...] = (),
    given: Mapping[str, Rows] | None = None,
    readings: tuple[Reading, ...] = (),
    weights: Tensor | None = None,
    groups: Sequence[Any] | None = None,
) -> ImageDataArguments:
    """Return the arguments of ``ImageData`` for images of any size; reads every header.

    Args:
        items: Whatever `flambeau_vision.decode.decode` accepts.
        labels: One label per image.
        request: The requested split.
        options: Options for reading images, and for handling unreadable images.
        notes: Notes for the report; this function appends further notes.
        given: Rows of each part, if folders or a column define the parts.
        readings: How folders and columns were interpreted.
        weights: Weight of each image in loss and metrics, ``(n,)``.
        groups: Group of each image; drawn parts keep each group in one part.

    Raises:
        InputError: There are no images, an image cannot be read (unless ``unreadable="skip"``), no
            image of a class can be read, the range of images of floats is not clear, or rows with
            the same file differ in part or label.
        SplitError: The parts cannot be formed.
    """
    if not items:
        raise InputError("There are no images: the list is empty.")
    if not request.for_training and (match := match_classes(labels, options)) is not None:
        items, labels = [items[row] for row in match.rows], match.labels
        groups = None if groups is None else [groups[row] for row in match.rows]
        given = {part: _positions(rows, match.rows) for part, rows in (given or {}).items()}
        readings += match.readings
    verify = is_fast_to_verify(items) if options.verify is None else options.verify
    found = read_headers(items, verify=verify)
    problems = tuple(entry for entry in found if isinstance(entry, Problem))
    headers = [entry for entry in found if isinstance(entry, ImageHeader)]
    _check_readable(problems, len(items), options)
    kept = [row for row, entry in enumerate(found) if isinstance(entry, ImageHeader)]

    def targets_of(rows: Sequence[int]) -> Targets:
        return read_labels(
            [labels[row] for row in rows],
            task=options.task,
            classes=options.classes,
            sep=options.sep,
            sources=[item_name(items[row]) for row in rows],
        )

    if problems and request.for_training:
        _check_classes_readable(found, labels, targets_of(range(len(items))))
    targets = targets_of(kept)
    samples = Samples(
        {
            "image": [items[row] for row in kept],
            "width": [header.width for header in headers],
            "height": [header.height for header in headers],
            "mode": [header.mode for header in headers],
            "format": [header.format for header in headers],
            "animated": [header.animated for header in headers],
            **_bits_column(headers),
            **({} if weights is None else {WEIGHT: as_column(weights[kept])}),
            **group_column(groups, kept),
        },
        problems,
    )
    of_kept = samples[GROUP] if groups is not None else None
    split = split_images(request, targets, len(items), np.array(kept), given, of_kept)
    is_random = request.for_training and request.split is None and not given
    notes += _check_repeated_files(samples["image"], targets, split, is_random)
    samples = _scale_floats(samples, headers, split, options)
    return samples, targets, split, options, (*notes, *_file_notes(samples, verify)), readings


def _bits_column(headers: Sequence[ImageHeader]) -> dict[str, Sequence[Any]]:
    """Return the column `BITS`: None for images of 8 bits; no column if all are of 8 bits."""
    bits = [header.bits for header in headers]
    return {} if all(each is None for each in bits) else {BITS: bits}


def _scale_floats(
    samples: Samples, headers: Sequence[ImageHeader], split: Split, options: ImageOptions
) -> Samples:
    """Return the samples with arrays of floats as uint8, all scaled by the value of white in train.

    Raises:
        InputError: The value of white is not clear, or an image contradicts it.
    """
    floats = {row: header.floats for row, header in enumerate(headers) if header.floats}
    if not floats:
        return samples
    items = list(samples["image"])
    train = split.train if len(split.train) else np.arange(len(items))  # data that are only scored
    names = [f"Image {row} ({item_name(item)})" for row, item in enumerate(items)]
    white = white_of(floats, train, options.white, names)
    for row in floats:
        items[row] = in_levels(items[row], white)
    columns = dict(samples.columns)
    largest = {row: found.largest for row, found in floats.items()}
    columns |= {"image": items, **white_columns(largest, len(items), white)}
    return Samples(columns, samples.problems)


def white_columns(
    largest: Mapping[int, float], n: int, white: White | None
) -> dict[str, Sequence[Any]]:
    """Return the columns `WHITE` and `LARGEST` of ``n`` images; none without images of floats.

    Args:
        largest: Row → largest value of the images of floats.
        n: Number of images.
        white: The value of white.
    """
    if not largest:
        return {}
    values = [largest.get(row) for row in range(n)]
    return {WHITE: [None if each is None else white for each in values], LARGEST: values}


def as_column(values: Tensor) -> Sequence[Any]:
    """Return a tensor as a column of ``Samples``."""
    return cast("Sequence[Any]", values)


def group_column(
    groups: Sequence[Any] | None, kept: Sequence[int] | None = None
) -> dict[str, Sequence[str]]:
    """Return the column `GROUP` of the kept images as text; no column without groups.

    Raises:
        InputError: An image has no group; the message gives its row.
    """
    if groups is None:
        return {}
    found: list[str] = []
    for row in range(len(groups)) if kept is None else kept:
        if is_missing(group := to_python(groups[row])):
            raise InputError(
                f"The group of row {row} is missing ({group!r}). Give every image a group; an "
                "image that belongs to no other has a group of its own."
            )
        found.append(class_name(group))
    return {GROUP: found}


def split_images(
    request: SplitRequest,
    targets: Targets,
    n: int,
    kept: Rows | None = None,
    given: Mapping[str, Rows] | None = None,
    groups: Sequence[str] | None = None,
) -> Split:
    """Return the split of images; randomly drawn parts are stratified by class.

    Args:
        request: The requested split.
        targets: Targets of the kept images.
        n: Number of images, including unreadable ones.
        kept: Row numbers of the readable images, ascending; by default all.
        given: Rows of each part, if the parts are already known.
        groups: Group of each kept image, for drawn parts.

    Raises:
        SplitError: The parts cannot be formed, or a class has validation or test images but no
            train images.
    """
    labels = targets.values.numpy() if targets.kind == "classification" else None
    is_random = request.for_training and request.split is None and not given
    if is_random and labels is not None and len(np.unique(labels)) == len(labels):
        raise SplitError(
            f"All {len(labels):,} images have different labels, so no class can be both in train "
            "and in validation. Give several images per class; if the labels are numbers to "
            'predict, pass ImageOptions(task="regression"), on the command line --task regression.'
        )
    split = request.resolve(
        n,
        kept=kept,
        given=given,
        classes=labels,
        class_names=targets.names,
        groups=None if groups is None else np.array(groups),
    )
    if request.for_training:
        targets.check_split(split, "images")
    return split


def _positions(rows: Rows, kept: Sequence[int]) -> Rows:
    """Return the positions in ``kept`` at which its row number is one of ``rows``."""
    return np.flatnonzero(np.isin(kept, rows))


def _check_readable(problems: Sequence[Problem], total: int, options: ImageOptions) -> None:
    if not problems:
        return
    reasons = "\n".join(f"  {problem.reason}" for problem in problems[:_MAX_REASONS])
    n_more = len(problems) - _MAX_REASONS
    more = f"\n  … and {n_more:,} more" if n_more > 0 else ""
    if len(problems) == total:
        raise InputError(f"None of {total:,} images can be read:\n{reasons}{more}")
    if options.unreadable == "raise":
        raise InputError(
            f"{len(problems):,} of {total:,} images cannot be read:\n{reasons}{more}\n"
            'ImageOptions(unreadable="skip") skips such files and reports them; on the command '
            "line: --unreadable skip"
        )


def _check_classes_readable(
    found: Sequence[ImageHeader | Problem], labels: Sequence[Any], targets: Targets
) -> None:
    """Raise if all images of a class were skipped: its output would never be trained."""
    if targets.kind != "classification":
        return
    entries = list(zip(found, labels, strict=True))
    readable = {str(label) for entry, label in entries if isinstance(entry, ImageHeader)}
    for entry, label in entries:
        if isinstance(entry, Problem) and str(label) not in readable:
            count = sum(str(other) == str(label) for other in labels)
            raise InputError(
                f"None of the {count:,} images of class {str(label)!r} can be read. The first: "
                f"{entry.reason} Fix the files, or exclude the class."
            )


def _check_repeated_files(
    items: Sequence[Any], targets: Targets, split: Split, is_random: bool
) -> tuple[str, ...]:
    """Raise if rows with the same file differ in part or label; else return a note on such rows."""
    rows_of: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        if isinstance(item, str | os.PathLike):
            rows_of.setdefault(os.path.normpath(item), []).append(row)
    repeated = {name: rows for name, rows in rows_of.items() if len(rows) > 1}
    if not repeated:
        return ()
    part_of = {int(row): part for part in PARTS for row in split.part(part)}
    for name, rows in repeated.items():
        texts = sorted({targets.text(row) for row in rows})
        parts = sorted({part_of[row] for row in rows if row in part_of})
        if len(texts) > 1:
            raise InputError(
                f"{name} is in {len(rows)} rows with different labels: {', '.join(texts)}. "
                "Use one row per image; write several labels of one image into one row with a "
                'separator, ImageOptions(sep=";").'
            )
        if is_random or len(parts) > 1:
            raise InputError(
                f"{name} is in {len(rows)} rows"
                + (f", in {' and '.join(parts)}" if len(parts) > 1 else "")
                + f" ({len(repeated):,} such files). An image in train and validation makes the "
                "validation metrics too good: remove the duplicates, or pass a split that has all "
                "rows of a file in one part."
            )
    extra = sum(len(rows) - 1 for rows in repeated.values())
    return (f"{len(repeated):,} files are in several rows of one part ({extra:,} duplicates)",)


def _file_notes(samples: Samples, verify: bool) -> tuple[str, ...]:
    from PIL import Image

    notes: list[str] = []
    if not any(samples["format"]):  # arrays
        return ()
    if verify:
        notes.append("all files were decoded once and are complete")
    else:
        notes.append(
            "headers and ends of the files were checked, but not all files were decoded; "
            "ImageOptions(verify=True), on the command line --verify, decodes them"
        )
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None:
        large = [
            item
            for item, width, height in zip(
                samples["image"], samples["width"], samples["height"], strict=True
            )
            if width * height > limit
        ]
        if large:
            notes.append(
                f"{len(large):,} have more than {limit / 1e6:.0f} million pixels, the limit above "
                f"which Pillow warns: {name_items(large)}"
            )
    return tuple(notes)
