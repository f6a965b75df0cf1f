"""Split images into parts, by shares, folders, a column or a given split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flambeau.data.split import HELD_OUT, PARTS, Split
from flambeau.errors import SplitError
from flambeau.wording import name_some
from flambeau_vision.folder import PART_NAMES
from flambeau_vision.labels import Targets


@dataclass(frozen=True)
class SplitRequest:
    """The requested split.

    Attributes:
        valid: Share of the validation part, unless ``split`` or ``parts`` names its rows.
        test: Share of test, likewise.
        seed: Seed of the random split.
        split: The split itself, with row numbers of the original input.
        parts: The part of each row, or None for rows that are to be split at random.
        calibration: Share of calibration, like ``test``.
    """

    valid: float = 0.2
    test: float = 0.0
    seed: int = 0
    split: Split | None = None
    parts: Sequence[str | None] | None = None
    calibration: float = 0.0


def parse_part(value: Any, row: int) -> str:
    """Return a split column's value as a part ("train", "valid" …); True and 1 are valid.

    Raises:
        SplitError: The value denotes no part.
    """
    if isinstance(value, bool | np.bool_):
        return "valid" if value else "train"
    name = str(value).strip().lower()
    if name in PART_NAMES:
        return PART_NAMES[name]
    if name in ("true", "1", "false", "0"):
        return "valid" if name in ("true", "1") else "train"
    raise SplitError(
        f"The split column has the unknown part {value!r} in row {row}. Use train, valid, test or "
        "calibration, or True for valid and False for train."
    )


def make_split(
    request: SplitRequest, targets: Targets, kept: NDArray[np.int64], total: int
) -> Split:
    """Return the split of the ``kept`` rows; random splits are stratified by class.

    Args:
        request: The requested split, in row numbers of all rows.
        targets: Targets of the kept rows.
        kept: Numbers of the readable rows, ascending.
        total: Number of all rows, including unreadable ones.

    Raises:
        SplitError: A part is empty, or a class has validation or test rows but no train rows.
    """
    if request.split is not None:
        request.split.check_length(total)
        split = _renumber(request.split, kept, total)
    elif request.parts is not None and any(request.parts[row] for row in kept):
        split = _split_by_parts([request.parts[row] for row in kept], request, targets)
    else:
        labels = targets.values.numpy() if targets.kind == "classification" else None
        if labels is not None and len(np.unique(labels)) == len(labels):
            raise SplitError(
                f"All {len(labels):,} images have different labels, so no class can be both in "
                "train and in validation. Give several images per class; if labels are numbers to "
                'predict, pass ImageOptions(task="regression"), on the command line --task '
                "regression."
            )
        split = _random(len(kept), request, labels)
    _check_classes(split, targets)
    return split


def _random(n: int, request: SplitRequest, labels: NDArray[Any] | None) -> Split:
    valid, test, seed = request.valid, request.test, request.seed
    return Split.random(n, valid, test, seed, labels, calibration=request.calibration)


def _renumber(split: Split, kept: NDArray[np.int64], total: int) -> Split:
    new_row = np.full(total, -1, dtype=np.int64)
    new_row[kept] = np.arange(len(kept))
    rows = {part: new_row[split.part(part)] for part in PARTS}
    return replace(split, **{part: rows[part][rows[part] >= 0] for part in PARTS})


def _split_by_parts(parts: list[str | None], request: SplitRequest, targets: Targets) -> Split:
    names = np.array([part or "" for part in parts])
    rows = {part: np.flatnonzero(names == part) for part in PARTS}
    unassigned = np.flatnonzero(names == "") if not rows["train"].size else rows["train"]
    if rows["valid"].size and not rows["train"].size:
        rows["train"] = np.flatnonzero(names == "")
        return _given_split(rows, "given; train is the rows without a part")
    if rows["valid"].size:
        return _given_split(rows, "given")
    # Only train (or class folders beside a test folder): valid is drawn from it, others are kept.
    labels = targets.values.numpy()[unassigned] if targets.kind == "classification" else None
    given = [part for part in ("test", "calibration") if rows[part].size]
    request = replace(request, **dict.fromkeys(given, 0.0))
    inner = _random(len(unassigned), request, labels)
    drawn = {part: rows[part] if part in given else unassigned[inner.part(part)] for part in PARTS}
    split = _given_split(drawn, f"valid drawn from train, {inner.method}")
    return replace(split, notes=inner.notes)


def _given_split(rows: Mapping[str, NDArray[np.int64]], method: str) -> Split:
    return Split.from_parts(rows, method)


def _check_classes(split: Split, targets: Targets) -> None:
    if targets.kind != "classification":
        return
    in_train = set(targets.values[np.array(split.train)].tolist())
    for part in HELD_OUT:
        labels = targets.values[np.array(split.part(part))].tolist()
        unseen = sorted(set(labels) - in_train)
        if unseen:
            names = name_some((targets.names[number] for number in unseen), most=10)
            raise SplitError(
                f"{len(unseen)} classes have images in {part} but none in train: {names}. The "
                "model cannot learn them. Move some of their images to train, or exclude them "
                "with classes=[…]."
            )
