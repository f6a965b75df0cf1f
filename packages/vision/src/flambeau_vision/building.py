"""Files and their labels to samples, targets and split: what is checked before training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from flambeau.data.samples import Problem, Samples
from flambeau.data.split import PARTS, Split
from flambeau.errors import InputError
from flambeau_vision.labels import Targets, read_labels
from flambeau_vision.opening import describe, some_names
from flambeau_vision.options import ImageOptions
from flambeau_vision.scanning import Header, is_quickly_verified, scan
from flambeau_vision.splitting import SplitRequest, make_split

Parts: TypeAlias = tuple[Samples, Targets, Split, ImageOptions, tuple[str, ...]]
"""The arguments of ``ImageData``."""

# Reasons that a message gives before it only counts.
_SHOWN = 5


def build(
    items: Sequence[Any],
    labels: Sequence[Any],
    request: SplitRequest,
    options: ImageOptions,
    notes: tuple[str, ...] = (),
) -> Parts:
    """The arguments of ``ImageData`` for pictures of any size, each looked at once.

    Args:
        items: What `flambeau_vision.decode.decode` takes.
        labels: One a picture.
        request: The split that was asked for.
        options: How pictures are read, and what happens where one cannot be.
        notes: What the report shall say beside what is found here.

    Raises:
        InputError: There is no picture, one cannot be read (unless ``unreadable="skip"``), none of
            a class can, or a file stands in several rows.
        SplitError: The parts cannot be formed.
    """
    if not items:
        raise InputError("There are no pictures: the list is empty.")
    verify = is_quickly_verified(items) if options.verify is None else options.verify
    found = scan(items, verify=verify)
    problems = tuple(entry for entry in found if isinstance(entry, Problem))
    headers = [entry for entry in found if isinstance(entry, Header)]
    _check_readable(problems, len(items), options)
    kept = [row for row, entry in enumerate(found) if isinstance(entry, Header)]
    targets = read_labels(
        [labels[row] for row in kept],
        task=options.task,
        classes=options.classes,
        sep=options.sep,
        sources=[describe(items[row]) for row in kept],
    )
    _check_classes_left(found, labels, targets)
    samples = Samples(
        {
            "item": [items[row] for row in kept],
            "width": [header.width for header in headers],
            "height": [header.height for header in headers],
            "mode": [header.mode for header in headers],
            "format": [header.format for header in headers],
            "animated": [header.animated for header in headers],
        },
        problems,
    )
    split = make_split(request, targets, np.array(kept), len(items))
    drawn = request.split is None and request.parts is None
    notes += _check_named_once(samples["item"], targets, split, drawn)
    return samples, targets, split, options, (*notes, *_size_notes(samples, verify))


def _check_readable(problems: Sequence[Problem], total: int, options: ImageOptions) -> None:
    if not problems:
        return
    reasons = "\n".join(f"  {problem.reason}" for problem in problems[:_SHOWN])
    more = f"\n  … and {len(problems) - _SHOWN:,} more" if len(problems) > _SHOWN else ""
    if len(problems) == total:
        raise InputError(f"None of {total:,} pictures can be read:\n{reasons}{more}")
    if options.unreadable == "raise":
        raise InputError(
            f"{len(problems):,} of {total:,} pictures cannot be read:\n{reasons}{more}\n"
            'ImageOptions(unreadable="skip") leaves such files out and reports them; on the '
            "command line: --unreadable skip"
        )


def _check_classes_left(
    found: Sequence[Header | Problem], labels: Sequence[Any], targets: Targets
) -> None:
    """A class all of whose pictures were skipped would be an output that is never trained."""
    if targets.kind != "classification" or not any(isinstance(one, Problem) for one in found):
        return
    entries = list(zip(found, labels, strict=True))
    left = {str(label) for entry, label in entries if isinstance(entry, Header)}
    for entry, label in entries:
        if isinstance(entry, Problem) and str(label) not in left:
            count = sum(str(other) == str(label) for other in labels)
            raise InputError(
                f"None of the {count:,} pictures of class {str(label)!r} can be read. The first: "
                f"{entry.reason} Mend them, or leave the class out."
            )


def _check_named_once(
    items: Sequence[Any], targets: Targets, split: Split, drawn: bool
) -> tuple[str, ...]:
    """Refuse a file in several rows, unless all are in one part and agree; a note where they do."""
    rows_of: dict[str, list[int]] = {}
    for row, item in enumerate(items):
        if isinstance(item, str | os.PathLike):
            rows_of.setdefault(os.path.normpath(item), []).append(row)
    twice = {name: rows for name, rows in rows_of.items() if len(rows) > 1}
    if not twice:
        return ()
    part_of = {int(row): part for part in PARTS for row in split.part(part)}
    for name, rows in twice.items():
        texts = sorted({targets.text(row) for row in rows})
        parts = sorted({part_of[row] for row in rows if row in part_of})
        if len(texts) > 1:
            raise InputError(
                f"{name} stands in {len(rows)} rows with different labels: {', '.join(texts)}. "
                "Give each picture one row; several labels for one picture go into one row with a "
                'separator, ImageOptions(sep=";").'
            )
        if drawn or len(parts) > 1:
            raise InputError(
                f"{name} stands in {len(rows)} rows"
                + (f", in {' and '.join(parts)}" if len(parts) > 1 else "")
                + f" ({len(twice):,} such files). A picture in train and valid makes valid look "
                "better than it is: drop the doubles, or give the split yourself with all rows of "
                "a file in one part."
            )
    extra = sum(len(rows) - 1 for rows in twice.values())
    return (f"{len(twice):,} files stand in several rows of one part ({extra:,} doubles)",)


def _size_notes(samples: Samples, verify: bool) -> tuple[str, ...]:
    from PIL import Image

    notes: list[str] = []
    if not any(samples["format"]):  # arrays
        return ()
    if verify:
        notes.append("all files were decoded once and are whole")
    else:
        notes.append(
            "headers and ends of the files were looked at, but not all were decoded; "
            "ImageOptions(verify=True) does so"
        )
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None:
        large = [
            item
            for item, width, height in zip(
                samples["item"], samples["width"], samples["height"], strict=True
            )
            if width * height > limit
        ]
        if large:
            notes.append(
                f"{len(large):,} have more than {limit / 1e6:.0f} million pixels, Pillow's limit "
                f"for a warning: {some_names(large)}"
            )
    return tuple(notes)
