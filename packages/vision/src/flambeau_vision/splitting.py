"""Which pictures are train, valid and test, from what the user or the folders say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flambeau.data.split import Split
from flambeau.errors import SplitError
from flambeau_vision.files import PART_NAMES
from flambeau_vision.labels import Targets


@dataclass(frozen=True)
class SplitRequest:
    """What was asked for.

    Attributes:
        valid: Share of valid, where nothing else says which rows are.
        test: Share of test, likewise.
        seed: Of the draw.
        split: The split itself, in row numbers of what was passed in.
        parts: A part's name for each row, or None where the row is still to be drawn.
    """

    valid: float = 0.2
    test: float = 0.0
    seed: int = 0
    split: Split | None = None
    parts: Sequence[str | None] | None = None


def part_of(value: Any, row: int) -> str:
    """A split column's value as "train", "valid" or "test"; True and 1 are valid.

    Raises:
        SplitError: The value stands for no part.
    """
    if isinstance(value, bool | np.bool_):
        return "valid" if value else "train"
    name = str(value).strip().lower()
    if name in PART_NAMES:
        return PART_NAMES[name]
    if name in ("true", "1", "false", "0"):
        return "valid" if name in ("true", "1") else "train"
    raise SplitError(
        f"The split column has {value!r} in row {row}, which is no part. Write train, valid or "
        "test, or True for valid and False for train."
    )


def make_split(
    request: SplitRequest, targets: Targets, kept: NDArray[np.int64], total: int
) -> Split:
    """The split of the ``kept`` rows, stratified by class where rows are drawn.

    Args:
        request: What was asked for, in row numbers of all rows.
        targets: Of the kept rows.
        kept: Numbers of the rows that could be read, ascending.
        total: All rows, those that could not be read among them.

    Raises:
        SplitError: A part is empty, or a class has rows in valid or test but none in train.
    """
    if request.split is not None:
        request.split.check_length(total)
        split = _renumbered(request.split, kept, total)
    elif request.parts is not None and any(request.parts[row] for row in kept):
        split = _by_parts([request.parts[row] for row in kept], request, targets)
    else:
        labels = targets.values.numpy() if targets.kind == "classification" else None
        if labels is not None and len(np.unique(labels)) == len(labels):
            raise SplitError(
                f"Each of the {len(labels):,} pictures has a label of its own, so no class is left "
                "to validate. Give several pictures a class; if the labels are amounts to predict, "
                'say ImageOptions(task="regression"), on the command line --task regression.'
            )
        split = Split.random(len(kept), request.valid, request.test, request.seed, labels)
    _check_classes(split, targets)
    return split


def _renumbered(split: Split, kept: NDArray[np.int64], total: int) -> Split:
    place = np.full(total, -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    parts = (place[rows] for rows in (split.train, split.valid, split.test))
    train, valid, test = (rows[rows >= 0] for rows in parts)
    return replace(split, train=train, valid=valid, test=test)


def _by_parts(parts: list[str | None], request: SplitRequest, targets: Targets) -> Split:
    names = np.array([part or "" for part in parts])
    rows = {part: np.flatnonzero(names == part) for part in ("train", "valid", "test")}
    drawn_from = np.flatnonzero(names == "") if not rows["train"].size else rows["train"]
    if rows["valid"].size and not rows["train"].size:
        rows["train"] = np.flatnonzero(names == "")
        return _described(rows, "given; train is what stands in no part")
    if rows["valid"].size:
        return _described(rows, "given")
    # Only train (or class folders beside a test folder): valid is cut from it, test stays whole.
    labels = targets.values.numpy()[drawn_from] if targets.kind == "classification" else None
    share = 0.0 if rows["test"].size else request.test
    inner = Split.random(len(drawn_from), request.valid, share, request.seed, labels)
    drawn = {
        "train": drawn_from[inner.train],
        "valid": drawn_from[inner.valid],
        "test": rows["test"] if rows["test"].size else drawn_from[inner.test],
    }
    split = _described(drawn, f"valid drawn from train, {inner.method}")
    return replace(split, notes=inner.notes)


def _described(rows: dict[str, NDArray[np.int64]], method: str) -> Split:
    return replace(Split.given(rows["train"], rows["valid"], rows["test"]), method=method)


def _check_classes(split: Split, targets: Targets) -> None:
    if targets.kind != "classification":
        return
    in_train = set(targets.values[np.array(split.train)].tolist())
    for part in ("valid", "test"):
        labels = targets.values[np.array(split.part(part))].tolist()
        unseen = sorted(set(labels) - in_train)
        if unseen:
            names = ", ".join(targets.names[number] for number in unseen[:10])
            raise SplitError(
                f"Classes with pictures in {part} but none in train: {names} ({len(unseen)} in "
                "all). A model cannot learn them. Move some to train, or leave them out with "
                "classes=[…]."
            )
