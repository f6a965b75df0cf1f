"""What was found, in words a person reads before training."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from flambeau.data.samples import Samples
from flambeau.data.split import PARTS, Split
from flambeau_vision.duplicates import MOST_COMPARED, Duplicates, search
from flambeau_vision.labels import Targets
from flambeau_vision.series import split_series

_SHOWN_CLASSES = 30
_SHOWN_PROBLEMS = 10
# From this ratio of the largest to the smallest class on, accuracy alone misleads.
_IMBALANCED_FROM = 3.0


# So many are compared without being asked: about a second.
_FILES_COMPARED, _ARRAYS_COMPARED = 500, 5_000
_SHOWN_PAIRS = 5


def report(
    samples: Samples,
    targets: Targets,
    split: Split,
    notes: Iterable[str],
    duplicates: bool | None = None,
) -> str:
    """Counts, classes, sizes, formats, modes, the split, doubles, and what could not be read.

    Args:
        samples: What was found.
        targets: The labels.
        split: The parts.
        notes: Printed as they are.
        duplicates: Whether to look for pictures that are there twice. None compares the bytes of
            all, and the look of up to 500 files or 5,000 arrays (about a second); True the look of
            up to 20,000, drawn where there are more; False nothing.
    """
    lines = [f"{len(samples):,} pictures, {targets.kind}: {targets.reason}"]
    lines += [f"  {line}" for line in _pictures(samples)]
    lines.append(f"split: {split.describe()}")
    lines += [f"  {note}" for note in split.notes]
    lines += _classes(targets, split) if targets.kind != "regression" else _values(targets, split)
    lines += [f"note: {note}" for note in notes]
    if duplicates is not False:
        lines += _doubles(samples, targets, split, thorough=duplicates is True)
    if samples.problems:
        lines.append(f"{len(samples.problems):,} could not be read and were left out:")
        lines += [f"  {problem.reason}" for problem in samples.problems[:_SHOWN_PROBLEMS]]
        if len(samples.problems) > _SHOWN_PROBLEMS:
            lines.append(f"  … and {len(samples.problems) - _SHOWN_PROBLEMS:,} more")
    return "\n".join(lines)


def _pictures(samples: Samples) -> list[str]:
    widths, heights = np.asarray(samples["width"]), np.asarray(samples["height"])
    sizes = len(np.unique(np.stack([widths, heights]), axis=1).T)
    if sizes == 1:
        lines = [f"size: all {widths[0]}×{heights[0]} pixels (width×height)"]
    else:
        lines = [
            f"size: {sizes:,} different, width {_spread(widths)}, height {_spread(heights)} pixels"
        ]
    lines.append(f"colour: {_counted(samples['mode'])}")
    formats = [name for name in samples["format"] if name]
    lines.append(f"format: {_counted(formats)}" if formats else "format: arrays in memory")
    animated = int(np.asarray(samples["animated"]).sum())
    if animated:
        lines.append(f"{animated:,} are animated: their first frame is used")
    return lines


def _doubles(samples: Samples, targets: Targets, split: Split, *, thorough: bool) -> list[str]:
    """What `flambeau_vision.duplicates` and `flambeau_vision.series` find in the parts."""
    items, n = samples["item"], len(samples)
    parts = [""] * n  # "" stays where `subset` left a row out
    for part in PARTS:
        for row in split.part(part):
            parts[int(row)] = part
    labels = [targets.text(row) for row in range(n)]
    cheap = _ARRAYS_COMPARED if isinstance(items, Tensor) else _FILES_COMPARED
    limit = MOST_COMPARED if thorough else cheap if n <= cheap else 0
    found = search(items, parts, labels, limit=limit, title="looking for doubles")
    found = replace(found, pairs=tuple(pair for pair in found.pairs if all(pair.parts)))
    lines = _pairs(found)
    series = split_series(items, parts, labels)
    if series:
        first = series[0]
        lines.append(
            f"names: {len(series):,} series of pictures are in more than one part, such as "
            f"{first.name!r} ({len(first.rows):,} pictures in {' and '.join(first.parts)}); if "
            "they show one film, person or place, give each series to one part (split=)"
        )
    return lines


def _pairs(found: Duplicates) -> list[str]:
    how = "by their bytes"
    if found.compared == found.total:
        how += " and their look"
    elif found.compared:
        how += f", {found.compared:,} of them by their look"
    else:
        how += "; data.report(duplicates=True) compares their look as well"
    crossing = sum(pair.crosses for pair in found.pairs)
    disagreeing = sum(pair.disagrees for pair in found.pairs)
    count = len(found.pairs)
    verdict = "none" if not count else "1 pair" if count == 1 else f"{count:,} pairs"
    if crossing:
        verdict += f", {crossing:,} across parts, which makes scores too good"
    if disagreeing:
        verdict += f", {disagreeing:,} with different labels"
    lines = [f"doubles: {verdict} ({found.total:,} pictures compared {how})"]
    lines += [f"  {pair}" for pair in found.pairs[:_SHOWN_PAIRS]]
    if count > _SHOWN_PAIRS:
        lines.append(f"  … and {count - _SHOWN_PAIRS:,} more")
    if found.flat:
        lines.append(f"  {found.flat:,} are of one colour and in none of the pairs")
    return lines


def _spread(values: np.ndarray) -> str:
    return f"{values.min()} to {values.max()} (median {np.median(values):.0f})"


def _counted(values: Sequence[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in Counter(values).most_common())


def _classes(targets: Targets, split: Split) -> list[str]:
    counts = {part: targets.select(split.part(part)).counts() for part in PARTS}
    shown = [part for part in PARTS if len(split.part(part))]
    names = list(targets.names)
    width = max(len("class"), *(len(name) for name in names[:_SHOWN_CLASSES]))
    lines = [f"  {'class':<{width}}" + "".join(f"{part:>9}" for part in shown)]
    for name in names[:_SHOWN_CLASSES]:
        lines.append(f"  {name:<{width}}" + "".join(f"{counts[part][name]:>9,}" for part in shown))
    if len(names) > _SHOWN_CLASSES:
        lines.append(f"  … and {len(names) - _SHOWN_CLASSES:,} more classes")
    train = counts["train"]
    low, high = min(train, key=train.__getitem__), max(train, key=train.__getitem__)
    ratio = train[high] / max(train[low], 1)
    if train[high] == train[low]:
        return [*lines, f"  balance in train: {train[low]:,} of each"]
    verdict = (
        "uneven: read balanced accuracy beside accuracy" if ratio >= _IMBALANCED_FROM else "even"
    )
    lines.append(
        f"  balance in train: {high} has {train[high]:,}, {low} has {train[low]:,} "
        f"({ratio:.1f} times as many): {verdict}"
    )
    return lines


def _values(targets: Targets, split: Split) -> list[str]:
    values = targets.select(split.train).values.reshape(len(split.train), -1)
    return [
        f"  {name} in train: {column.min():g} to {column.max():g}, mean {column.mean():g}"
        for name, column in zip(targets.names, values.T, strict=True)
    ]
