"""The doctor's checks of image data, in addition to core's."""

from __future__ import annotations

import statistics
from typing import Literal

import numpy as np
from torch import Tensor

from flambeau.data.split import HELD_OUT, PARTS, Rows
from flambeau.doctor import Check, Finding, TrainingSetup
from flambeau.doctor.leak_checks import duplicates_across_parts
from flambeau_vision.data import ImageData
from flambeau_vision.duplicates import MAX_COMPARED, Duplicate, bytes_to_compare, search_duplicates
from flambeau_vision.filename_groups import are_paths, groups_across_parts
from flambeau_vision.from_plan import planned_weights_record
from flambeau_vision.rules_geometry import MOST_LOST, lost_shares

_PAGE = "docs/doctor.md#"
# The most files and bytes hashed before a fit: 2,000 photographs of 100 KB take 0.3 s.
_MAX_HASHED, _MAX_HASHED_BYTES = 2_000, 200_000_000
_MIN_COPIES, _MIN_SHARE = 2, 0.01
_MIN_CROPPED_SHARE = 0.2
_MIN_GROUPED_SHARE = 0.05  # share of validation images in groups that train contains too


def check_duplicates(setup: TrainingSetup) -> list[Finding]:
    """Return a finding if train files (by bytes) or arrays are also in validation."""
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
    """Return a finding if held-out images are near-duplicates of train images, or test copies.

    Test and calibration images are read here, because the full check was asked for.
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
    """Compare the images of ``rows`` and return a finding if held-out ones are like train ones."""
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
            f"{len(found):,} of {n_others:,} held-out images are {_RELATIONS[kind]} train "
            f"images ({found[0]}), so the metrics are too good.",
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
    """Return a finding if groups of images, by file name, are in both train and validation."""
    data = setup.data
    if not isinstance(data, ImageData) or not are_paths(items := data.samples["image"]):
        return None
    parts = _part_of_rows(data)
    labels = [data.targets.text(row) for row in range(len(data.samples))]
    groups = [
        group for group in groups_across_parts(items, parts, labels) if "train" in group.parts
    ]
    n_valid = sum(parts[row] == "valid" for group in groups for row in group.rows)
    if not n_valid or n_valid < _MIN_GROUPED_SHARE * parts.count("valid"):
        return None
    first = groups[0]
    return Finding(
        "groups-across-parts",
        f"{len(groups):,} groups of images are split across parts, such as {first.name!r} "
        f"({len(first.rows):,} images in {' and '.join(first.parts)}). If a group shows one "
        "person, film or location, the metrics overestimate the accuracy on new ones.",
        {"groups": len(groups), "valid images in them": n_valid},
        "Keep each group in one part: split=Split.by_group(…) with its name as the group.",
    )


def check_cropping(setup: TrainingSetup) -> Finding | None:
    """Return a finding if many train images lose much of their length to the centre crop."""
    data, values = setup.data, setup.values
    if not isinstance(data, ImageData) or values.get("resize") != "crop":
        return None
    lost = lost_shares(data.facts(), values["image_size"])
    share = sum(each > MOST_LOST for each in lost) / len(lost)
    if share < _MIN_CROPPED_SHARE:
        return None
    return Finding(
        "cropped-images",
        f"The centre crop cuts more than {MOST_LOST:.0%} off the length of {share:.0%} of the "
        "train images. What stands at their sides is not seen.",
        {"share of train images": share, "median share cut off": statistics.median(lost)},
        'Keep the whole image: ImageOptions(resize="pad") or "squash", on the command line '
        "--resize pad; or give the size the images' proportions: size=(height, width).",
    )


def check_normalisation(setup: TrainingSetup) -> Finding | None:
    """Return a finding if images are normalised differently than for the pretrained weights."""
    values = setup.values
    given = values.get("normalisation")
    if values.get("weights") is None or given == "weights":
        return None
    if planned_weights_record(values) is None:
        return None
    return Finding(
        "normalisation-of-weights",
        f"The weights of {values.get('architecture')} were trained with another normalisation than "
        f"{given!r}, so the first layer receives inputs of another mean and scale.",
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
        "near-duplicates of train images in held-out parts, copies in test",
        check_near_duplicates,
        "data",
        "full",
        f"{_PAGE}near-duplicates",
    ),
    Check(
        "cropped-images",
        "images that lose much to the centre crop",
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
"""The checks of this package; they replace core's checks with the same code."""
