"""``fold_splits``: the splits of a cross-validation over some rows of the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from flambeau.data.row_codes import name_rows, number_values
from flambeau.data.split import Rows, Split
from flambeau.errors import ArgumentError, SplitError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def fold_splits(
    rows: Rows, k: int | Sequence[Split], arguments: Mapping[str, Any], seed: int
) -> list[Split]:
    """Return the splits of a cross-validation over some rows of the data.

    Args:
        rows: The rows to split, ascending.
        k: Number of folds; or a split for each, which is only checked.
        arguments: How the rows depend on each other: arguments of ``Split.folds``.
        seed: Seed of the folds.

    Raises:
        ArgumentError: ``k`` is neither a number nor splits.
        SplitError: The folds cannot be formed, or a group is in train and valid of a fold.
    """
    if isinstance(k, Sequence):
        return _checked_splits(rows, k)
    times, groups = arguments.get("times"), arguments.get("groups")
    more: dict[str, Any] = dict(arguments)
    if times is not None:
        more = {"times": times, "embargo": arguments.get("embargo")}
    alone = _single_rows(more.get("stratify"), groups)
    if alone.any():
        return _with_single_rows(rows, alone, k, more, seed)
    found = Split.folds(len(rows), k, seed=seed, **more)
    if times is not None and groups is not None:
        for each in found:
            each.check_groups(groups)
    return [replace(each, train=rows[each.train], valid=rows[each.valid]) for each in found]


def _single_rows(labels: Any | None, groups: Any | None) -> NDArray[np.bool_]:
    """Return which rows are the only one of their class, so that they must be in train."""
    if labels is None or groups is not None:
        return np.zeros(1, np.bool_)
    codes, names = number_values(labels, "stratify")
    return (np.bincount(codes, minlength=len(names)) == 1)[codes]


def _with_single_rows(
    rows: Rows, alone: NDArray[np.bool_], k: int, arguments: Mapping[str, Any], seed: int
) -> list[Split]:
    """Return folds of the rows that are not alone in their class; the others are always in train.

    A model cannot predict a class that it was not trained on; ``Split.random`` does the same.
    """
    others = {**arguments, "stratify": np.asarray(arguments["stratify"])[~alone]}
    note = f"rows in train of every fold, as the only ones of their class: {int(alone.sum()):,}"
    return [
        replace(
            each,
            train=np.sort(np.concatenate([rows[~alone][each.train], rows[alone]])),
            valid=rows[~alone][each.valid],
            notes=(*each.notes, note),
        )
        for each in Split.folds(int((~alone).sum()), k, seed=seed, **others)
    ]


def _checked_splits(rows: Rows, splits: Sequence[Any]) -> list[Split]:
    if isinstance(splits, str) or not splits or not all(isinstance(s, Split) for s in splits):
        raise ArgumentError(
            f"k is {splits!r:.60}. Give the number of folds, or a list with a Split for each."
        )
    checked: list[Split] = list(splits)
    times = np.zeros(int(rows.max(initial=-1)) + 1, np.int64)
    for number, split in enumerate(checked, start=1):
        if not len(split.valid):
            raise SplitError(f"Fold {number} has no validation rows. Give each fold some.")
        used = np.concatenate([split.train, split.valid])
        if (wrong := used[~np.isin(used, rows)]).size:
            raise SplitError(
                f"Fold {number} contains {name_rows(wrong)}, which are not among the "
                f"{len(rows):,} train and validation rows of the data. Rows of test and "
                "calibration are in no fold."
            )
        times[split.valid] += 1
    if (twice := np.flatnonzero(times > 1)).size:
        raise SplitError(
            f"Several folds have {name_rows(twice)} in valid, so there would be several "
            "out-of-fold predictions of a row. Put each row in valid of one fold at most."
        )
    nothing = np.empty(0, np.int64)
    return [replace(each, test=nothing, calibration=nothing) for each in checked]
