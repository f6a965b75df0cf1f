"""Write the text report of a data set, to be read before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau.data.targets import Targets
from flambeau.wording import format_bytes
from flambeau_vision.assemble import GROUP
from flambeau_vision.duplicates import (
    MAX_COMPARED,
    Duplicates,
    bytes_to_compare,
    search_duplicates,
)
from flambeau_vision.filename_groups import declared_across_parts, groups_across_parts

_MAX_CLASSES = 30
_MAX_PROBLEMS = 10
# From this ratio of the largest to the smallest class on, accuracy alone is misleading.
_IMBALANCED_FROM = 3.0
# Data sets up to these sizes are compared by perceptual hash by default: about a second.
_FILES_COMPARED, _ARRAYS_COMPARED = 500, 5_000
# Files of equal size are read to compare them; 200 MB take about a second from a fast disk.
_BYTES_COMPARED = 200_000_000
_MAX_PAIRS = 5


def report(
    samples: Samples,
    targets: Targets,
    split: Split,
    notes: Iterable[str],
    duplicates: bool | None = None,
) -> str:
    """Return counts, classes, sizes, formats, modes, split, duplicates and unreadable files.

    Args:
        samples: The images.
        targets: The targets.
        split: The parts.
        notes: Notes, one line each.
        duplicates: Whether to search for duplicate images. None compares the bytes of all images if
            at most 200 MB of files of equal size have to be read for it, and the perceptual hashes
            of up to 500 files or 5,000 arrays (about a second). True compares the bytes of all
            images and the perceptual hashes of up to 20,000, a random selection if there are more.
            False skips the search.
    """
    lines = [f"{len(samples):,} images, {targets.kind}: {targets.reason}"]
    lines += [f"  {line}" for line in _image_lines(samples)]
    lines.append(f"split: {split.describe()}")
    lines += [f"  {note}" for note in split.notes]
    if targets.kind == "regression":
        lines += _value_lines(targets, split)
    else:
        lines += _class_lines(targets, split)
    lines += [f"note: {note}" for note in notes]
    if duplicates is not False:
        lines += _duplicate_lines(samples, targets, split, thorough=duplicates is True)
    if samples.problems:
        lines.append(f"{len(samples.problems):,} could not be read and were skipped:")
        lines += [f"  {problem.reason}" for problem in samples.problems[:_MAX_PROBLEMS]]
        if len(samples.problems) > _MAX_PROBLEMS:
            lines.append(f"  … and {len(samples.problems) - _MAX_PROBLEMS:,} more")
    return "\n".join(lines)


def _image_lines(samples: Samples) -> list[str]:
    widths, heights = np.asarray(samples["width"]), np.asarray(samples["height"])
    sizes = len(np.unique(np.stack([widths, heights]), axis=1).T)
    if sizes == 1:
        lines = [f"size: all {widths[0]}×{heights[0]} pixels (width×height)"]
    else:
        lines = [
            f"size: {sizes:,} different, width {_range(widths)}, height {_range(heights)} pixels"
        ]
    lines.append(f"colour mode: {_counts(samples['mode'])}")
    formats = [name for name in samples["format"] if name]
    lines.append(f"format: {_counts(formats)}" if formats else "format: arrays in memory")
    animated = int(np.asarray(samples["animated"]).sum())
    if animated:
        lines.append(f"{animated:,} are animated: only their first frame is used")
    return lines


def _duplicate_lines(
    samples: Samples, targets: Targets, split: Split, *, thorough: bool
) -> list[str]:
    """Return the lines on duplicates and on groups of file names that are in several parts."""
    items, n = samples["image"], len(samples)
    parts = [""] * n  # "" for rows that `subset` excluded
    for part in PARTS:
        for row in split.part(part):
            parts[int(row)] = part
    labels = [targets.text(row) for row in range(n)]
    to_read = 0 if isinstance(items, Tensor) else bytes_to_compare(items)
    if to_read > _BYTES_COMPARED and not thorough:
        return [
            f"duplicates: not searched, because {format_bytes(to_read)} of files would be read; "
            "data.report(duplicates=True) compares them",
            *_group_lines(samples, parts, labels),
        ]
    by_default = _ARRAYS_COMPARED if isinstance(items, Tensor) else _FILES_COMPARED
    limit = MAX_COMPARED if thorough else by_default if n <= by_default else 0
    found = search_duplicates(items, parts, labels, limit=limit, title="searching for duplicates")
    found = replace(found, pairs=tuple(pair for pair in found.pairs if all(pair.parts)))
    return [*_pair_lines(found), *_group_lines(samples, parts, labels)]


def _group_lines(samples: Samples, parts: list[str], labels: list[str]) -> list[str]:
    """Return the lines on groups: their number, and those that are in several parts."""
    lines: list[str] = []
    if GROUP in samples.columns:
        given: Sequence[str] = samples[GROUP]
        groups = declared_across_parts(given, parts)
        lines.append(f"groups: {len(set(given)):,}")
    else:
        groups = groups_across_parts(samples["image"], parts, labels)
    if not groups:
        return lines
    first = groups[0]
    where = "groups" if lines else "file names"
    return [
        *lines,
        f"{where}: {len(groups):,} groups of images are in more than one part, such as "
        f"{first.name!r} ({len(first.rows):,} images in {' and '.join(first.parts)}); if a "
        "group shows one film, person or location, keep it in one part: ImageOptions(group=…)",
    ]


def _pair_lines(found: Duplicates) -> list[str]:
    how = "by bytes"
    if found.compared == found.total:
        how += " and perceptual hash"
    elif found.compared:
        how += f", {found.compared:,} of them by perceptual hash"
    else:
        how += "; data.report(duplicates=True) also compares perceptual hashes"
    n_across = sum(pair.across_parts for pair in found.pairs)
    n_labels_differ = sum(pair.labels_differ for pair in found.pairs)
    count = len(found.pairs)
    result = "none" if not count else "1 pair" if count == 1 else f"{count:,} pairs"
    if n_across:
        result += f", {n_across:,} across parts, which makes metrics too good"
    if n_labels_differ:
        result += f", {n_labels_differ:,} with different labels"
    lines = [f"duplicates: {result} ({found.total:,} images compared {how})"]
    lines += [f"  {pair}" for pair in found.pairs[:_MAX_PAIRS]]
    if count > _MAX_PAIRS:
        lines.append(f"  … and {count - _MAX_PAIRS:,} more")
    if found.uniform:
        lines.append(f"  {found.uniform:,} have a uniform colour and are not compared")
    return lines


def _range(values: np.ndarray) -> str:
    return f"{values.min()} to {values.max()} (median {np.median(values):.0f})"


def _counts(values: Sequence[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in Counter(values).most_common())


def _class_lines(targets: Targets, split: Split) -> list[str]:
    counts = {part: targets.select(split.part(part)).counts() for part in PARTS}
    shown = [part for part in PARTS if len(split.part(part))]
    names = list(targets.names)
    width = max(len("class"), *(len(name) for name in names[:_MAX_CLASSES]))
    lines = [f"  {'class':<{width}}" + "".join(f"{part:>9}" for part in shown)]
    for name in names[:_MAX_CLASSES]:
        lines.append(f"  {name:<{width}}" + "".join(f"{counts[part][name]:>9,}" for part in shown))
    if len(names) > _MAX_CLASSES:
        lines.append(f"  … and {len(names) - _MAX_CLASSES:,} more classes")
    part = (shown or PARTS)[0]  # train, unless the data are only evaluated
    of_part = counts[part]
    low, high = min(of_part, key=of_part.__getitem__), max(of_part, key=of_part.__getitem__)
    ratio = of_part[high] / max(of_part[low], 1)
    if of_part[high] == of_part[low]:
        return [*lines, f"  class balance in {part}: {of_part[low]:,} of each"]
    verdict = "balanced" if ratio < _IMBALANCED_FROM else "imbalanced"
    if verdict == "imbalanced" and targets.kind == "classification":
        verdict += ": use balanced accuracy in addition to accuracy"
    lines.append(
        f"  class balance in {part}: {high} has {of_part[high]:,}, {low} has {of_part[low]:,} "
        f"({ratio:.1f} times as many): {verdict}"
    )
    return lines


def _value_lines(targets: Targets, split: Split) -> list[str]:
    # Data that are only evaluated may have no train rows.
    part = next((part for part in PARTS if len(split.part(part))), None)
    if part is None:
        return []
    rows = split.part(part)
    values = targets.select(rows).values.reshape(len(rows), -1)
    return [
        f"  {name} in {part}: {column.min():g} to {column.max():g}, mean {column.mean():g}"
        for name, column in zip(targets.names, values.T, strict=True)
    ]
