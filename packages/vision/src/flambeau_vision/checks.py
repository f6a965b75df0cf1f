"""The doctor's checks of image data, in addition to the checks of flambeau itself."""

from __future__ import annotations

import statistics
from typing import Literal

import numpy as np
from torch import Tensor

from flambeau.data.split import HELD_OUT, PARTS, Rows
from flambeau.doctor import Check, Finding, TrainingSetup
from flambeau.doctor.leak_checks import duplicates_across_parts
from flambeau_vision.assemble import GROUP
from flambeau_vision.data import ImageData
from flambeau_vision.duplicates import MAX_COMPARED, Duplicate, bytes_to_compare, search_duplicates
from flambeau_vision.filename_groups import are_paths, declared_across_parts, groups_across_parts
from flambeau_vision.from_plan import planned_weights_record
from flambeau_vision.rules_geometry import MOST_LOST, lost_shares

_PAGE = "docs/doctor.md#"
# The most files and bytes hashed before a fit: 2,000 photographs of 100 KB take 0.3 s.
_MAX_HASHED, _MAX_HASHED_BYTES = 2_000, 200_000_000
_MIN_COPIES, _MIN_SHARE = 2, 0.01
_MIN_CROPPED_SHARE = 0.2
_MIN_GROUPED_SHARE = 0.05  # share of validation images in groups that train contains too


def check_duplicates(setup: TrainingSetup) -> list[Finding]:
    """Return a finding if train images are also in validation, as identical files or arrays."""
    data = setup.data
    if not isinstance(data, ImageData):
        return []
    items = data.samples["image"]
    if isinstance(items, Tensor):
        return duplicates_across_parts(setup)
    rows = np.concatenate([data.split.train, data.split.valid])
    seen = [items[int(row)] for row in rows]
    if len(seen) > _MAX_HASHED or bytes_to_compare(seen) > _MAX_HASHED_BYTES:
        return []  # data.report() compares all of them
    return _find_copies(data, rows, "exact", limit=0)


def check_near_duplicates(setup: TrainingSetup) -> list[Finding]:
    """Return findings on near-duplicates of train images, and on copies in test and calibration.

    Other checks do not read test and calibration images; this check runs only in the full check.
    """
    data = setup.data
    if not isinstance(data, ImageData):
        return []
    rows = np.arange(len(data.samples))
    found = _find_copies(data, rows, "near", limit=MAX_COMPARED)
    if isinstance(data.samples["image"], Tensor):
        return found
    unread = np.concatenate([data.split.train, data.split.test, data.split.calibration])
    return found + _find_copies(data, np.sort(unread), "exact", limit=0)


_CODES = {"exact": "duplicates-across-parts", "near": "near-duplicates"}
_RELATIONS = {"exact": "identical to", "near": "near-duplicates of"}


def _find_copies(
    data: ImageData, rows: Rows, kind: Literal["exact", "near"], *, limit: int
) -> list[Finding]:
    """Return a finding if held-out images among ``rows`` are copies of train images."""
    part_of, images = _part_of_rows(data), data.samples["image"]
    parts = [part_of[int(row)] for row in rows]
    labels = [data.targets.text(int(row)) for row in rows]
    # All of an array in its memory; a selection of files.
    items = images if isinstance(images, Tensor) else [images[int(row)] for row in rows]
    found = [
        pair
        for pair in search_duplicates(items, parts, labels, limit=limit).pairs
        if pair.kind == kind and pair.across_parts and all(pair.parts) and "train" in pair.parts
    ]
    n_others = sum(part in HELD_OUT for part in parts)
    if len(found) < max(_MIN_COPIES, _MIN_SHARE * n_others):
        return []
    return [
        Finding(
            _CODES[kind],
            f"{len(found):,} of {n_others:,} held-out images are {_RELATIONS[kind]} train images "
            f"(first: {found[0]}), so the metrics are too good.",
            {
                "images": len(found),
                "of": n_others,
                "with another label": _count_label_differences(found),
            },
            "Remove the copies, or keep all copies of an image in one part: "
            "split=Split.by_group(…) with one group per image.",
        )
    ]


def check_filename_groups(setup: TrainingSetup) -> Finding | None:
    """Return a finding if images of a group are in both train and validation.

    The groups are those that the user gave, else those in the file names.
    """
    data = setup.data
    if not isinstance(data, ImageData):
        return None
    items, parts = data.samples["image"], _part_of_rows(data)
    least = 1.0
    if GROUP in data.samples.columns:
        found = declared_across_parts(data.samples[GROUP], parts)
    elif are_paths(items):
        labels = [data.targets.text(row) for row in range(len(data.samples))]
        found = groups_across_parts(items, parts, labels)
        least = _MIN_GROUPED_SHARE * parts.count("valid")
    else:
        return None
    groups = [group for group in found if "train" in group.parts]
    n_valid = sum(parts[row] == "valid" for group in groups for row in group.rows)
    if not n_valid or n_valid < least:
        return None
    first = groups[0]
    return Finding(
        "groups-across-parts",
        f"{len(groups):,} groups of images are split across parts, such as {first.name!r} "
        f"({len(first.rows):,} images in {' and '.join(first.parts)}). If a group shows one "
        "person, film or location, the metrics overestimate the accuracy on new persons, films or "
        "locations.",
        {"groups": len(groups), "valid images in them": n_valid},
        "Keep each group in one part: ImageOptions(group=…), on the command line --group, with a "
        "column of the table or a regular expression for the paths in a folder.",
    )


def check_cropping(setup: TrainingSetup) -> Finding | None:
    """Return a finding if the centre crop removes much of the width or height of many images."""
    data, values = setup.data, setup.values
    if not isinstance(data, ImageData) or values.get("resize") != "crop":
        return None
    lost = lost_shares(data.facts(), values["image_size"])
    share = sum(each > MOST_LOST for each in lost) / len(lost)
    if share < _MIN_CROPPED_SHARE:
        return None
    return Finding(
        "cropped-images",
        f"The centre crop removes more than {MOST_LOST:.0%} of the width or height of {share:.0%} "
        "of the train images. The model does not see what is cut off.",
        {"share of train images": share, "median share cut off": statistics.median(lost)},
        'Keep the whole image: ImageOptions(resize="pad") or "squash", on the command line '
        "--resize pad; or pass a size with the proportions of the images: size=(height, width).",
    )


def check_normalisation(setup: TrainingSetup) -> Finding | None:
    """Return a finding if the normalisation differs from that of the pretrained weights."""
    values = setup.values
    given = values.get("normalisation")
    if values.get("weights") is None or given == "weights":
        return None
    if planned_weights_record(values) is None:
        return None
    return Finding(
        "normalisation-of-weights",
        f"The weights of {values.get('architecture')} were not trained with the normalisation "
        f"{given!r}, so the mean and scale of the inputs differ from those in that training.",
        {"weights": str(values["weights"]), "normalisation": str(given)},
        'Let the plan choose it, or pass choices={"normalisation": "weights"}.',
    )


def _part_of_rows(data: ImageData) -> list[str]:
    """Return the part of every row; "" for rows that ``subset`` excluded."""
    parts = [""] * len(data.samples)
    for part in PARTS:
        for row in data.split.part(part):
            parts[int(row)] = part
    return parts


def _count_label_differences(pairs: list[Duplicate]) -> int:
    return sum(pair.labels_differ for pair in pairs)


CHECKS: tuple[Check, ...] = (
    Check(
        "duplicates-across-parts",
        "train images in validation",
        check_duplicates,
        "data",
        "first fit",
        f"{_PAGE}duplicates-across-parts",
    ),
    Check(
        "groups-across-parts",
        "groups of images in train and valid",
        check_filename_groups,
        "data",
        "first fit",
        f"{_PAGE}groups-across-parts",
    ),
    Check(
        "near-duplicates",
        "near-duplicates of train images in held-out parts; copies of train images in test",
        check_near_duplicates,
        "data",
        "full",
        f"{_PAGE}near-duplicates",
    ),
    Check(
        "cropped-images",
        "images of which the centre crop removes much",
        check_cropping,
        "facts",
        "first fit",
        f"{_PAGE}cropped-images",
    ),
    Check(
        "normalisation-of-weights",
        "normalisation differs from that of the weights",
        check_normalisation,
        "facts",
        "first fit",
        f"{_PAGE}normalisation-of-weights",
    ),
)
"""The checks of this package; a check here replaces flambeau's check of the same code."""
