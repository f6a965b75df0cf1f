"""Folds of a cross-validation: each row is held out once, or the folds go forward in time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from flambeau.checked_arguments import as_plain
from flambeau.data.row_codes import number_times, number_values
from flambeau.errors import ArgumentError, SplitError
from flambeau.wording import name_some

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]


def check_k(n: int, k: int) -> None:
    """Check the number of folds.

    Raises:
        ArgumentError: ``k`` is not a whole number.
        SplitError: There are fewer than two folds, or fewer rows than folds.
    """
    if type(as_plain(k)) is not int:
        raise ArgumentError(f"k is {k!r:.60}. Give the number of folds as an int, such as 5.")
    if k < 2:
        raise SplitError(f"k={k} folds are too few. Give at least 2, so that each has train rows.")
    if n < k:
        raise SplitError(f"{n} rows are too few for {k} folds. Give fewer folds or more rows.")


def check_lengths(n: int, columns: Mapping[str, Any]) -> None:
    """Raise a ``SplitError`` if a column (by its name) is given and has not one value per row."""
    for name, column in columns.items():
        if column is not None and len(column) != n:
            raise SplitError(
                f"{name} has {len(column)} values, but there are {n} rows. Give one per row."
            )


def stratified_folds(order: Rows, labels: Any, k: int) -> tuple[Rows, tuple[str, ...]]:
    """Return the fold of each row, and notes; class counts of two folds differ by at most one.

    Args:
        order: A random permutation of the rows.
        labels: The class of each row.
        k: Number of folds.
    """
    codes, names = number_values(labels, "stratify")
    # Dealing out the rows class by class keeps both the class counts and the fold sizes even.
    by_class = order[np.argsort(codes[order], kind="stable")]
    folds = np.empty(len(order), np.int64)
    folds[by_class] = np.arange(len(order)) % k
    rare = np.flatnonzero(np.bincount(codes, minlength=len(names)) < k)
    if not rare.size:
        return folds, ()
    shown = name_some((str(names[code]) for code in rare), most=10)
    return folds, (f"classes with fewer rows than folds, absent from some: {shown}",)


def group_folds(order: Rows, groups: Any, labels: Any | None, k: int) -> Rows:
    """Return the fold of each row; a group is in one fold only.

    The largest groups are assigned first, each to the fold that then deviates least from an even
    distribution of the rows, or of the rows of each class.

    Args:
        order: A random permutation of the groups' numbers, which decides between equal groups.
        groups: The group of each row.
        labels: The class of each row; None ignores classes.
        k: Number of folds.

    Raises:
        SplitError: There are fewer groups than folds.
    """
    codes, names = number_values(groups, "groups")
    if len(names) < k:
        raise SplitError(
            f"{len(names)} distinct groups are too few for {k} folds, because a group is in one "
            "fold only. Give fewer folds."
        )
    kinds = np.zeros_like(codes) if labels is None else number_values(labels, "stratify")[0]
    n_kinds = int(kinds.max()) + 1
    # (groups, classes): the rows of each class in each group
    counts = np.bincount(codes * n_kinds + kinds, minlength=len(names) * n_kinds)
    counts = counts.reshape(len(names), n_kinds).astype(np.float64)
    # The share of its class, so that a rare class counts as much as a frequent one.
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    largest_first = order[np.argsort(-counts.sum(axis=1)[order], kind="stable")]
    held, sizes = np.zeros((k, n_kinds)), np.zeros(k)
    of_group = np.empty(len(names), np.int64)
    for at, group in enumerate(largest_first):
        # The sum of squares is smallest for an even distribution.
        costs: NDArray[np.float64] = (2 * held * shares[group] + shares[group] ** 2).sum(axis=1)
        left, empty = len(names) - at, np.flatnonzero(sizes == 0)
        open_folds = empty if len(empty) >= left else np.arange(k)
        # Rounded, so that equal costs are equal; then the smallest fold is chosen.
        best = min(open_folds, key=lambda fold: (round(float(costs[fold]), 12), sizes[fold]))
        held[best] += shares[group]
        sizes[best] += counts[group].sum()
        of_group[group] = best
    return of_group[codes]


def time_folds(times: Any, k: int, embargo: Any | None) -> list[tuple[Rows, Rows, str]]:
    """Return train rows, validation rows and first validation time of each fold, forward in time.

    The rows are divided into k + 1 blocks of consecutive times, about equal in size. Fold i
    validates on block i + 1 and trains on all earlier rows, without those of the embargo.

    Raises:
        SplitError: There are fewer distinct times than blocks, or the embargo leaves no train row.
    """
    codes, distinct = number_times(times)
    if len(distinct) <= k:
        raise SplitError(
            f"{len(distinct)} distinct times are too few for {k} folds forward in time, which "
            f"need {k + 1}. Give fewer folds, or more precise times."
        )
    order = np.argsort(codes, kind="stable")
    ranks = codes[order]
    starts = _block_starts(np.bincount(codes, minlength=len(distinct)), k + 1)
    folds: list[tuple[Rows, Rows, str]] = []
    for start, end in zip(starts[1:], [*starts[2:], len(distinct)], strict=True):
        last = end_before(distinct, start, embargo)
        train = order[ranks < last]
        if not len(train):
            raise SplitError(
                f"The embargo of {embargo} leaves no train row before {distinct[start]}. Give a "
                "shorter embargo or fewer folds."
            )
        valid = order[(ranks >= start) & (ranks < end)]
        folds.append((train, valid, str(distinct[start])))
    return folds


def end_before(distinct: NDArray[Any], start: int, embargo: Any | None) -> int:
    """Return the number of times that are at least ``embargo`` earlier than time ``start``.

    Args:
        distinct: The distinct times in chronological order.
        start: Position of the first time of the later part.
        embargo: A duration: a number for times that are numbers, else a ``timedelta``, pandas'
            Timedelta or NumPy's timedelta64. None for none.

    Raises:
        ArgumentError: The embargo is negative or does not fit the times.
    """
    if embargo is None:
        return start
    try:
        span = _duration(embargo, distinct)
        earlier = _moments(distinct[: start + 1])
        kept = np.asarray(earlier[start] - earlier[:start] >= span, dtype=np.bool_)
        is_negative = bool(span < span * 0)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"embargo is {embargo!r:.60}, which is not a duration between times such as "
            f"{distinct[start]!r:.60}. Give a number for times that are numbers, else a "
            "datetime.timedelta."
        ) from error
    if is_negative:
        raise ArgumentError(f"embargo is {embargo!r:.60}, but must not be negative.")
    return int(kept.sum())


def _moments(times: NDArray[Any]) -> NDArray[Any]:
    """Return times that can be subtracted: ISO 8601 text becomes datetime64."""
    if not any(isinstance(each, str) for each in times):
        # int64, because the difference of unsigned or short integers overflows.
        return times.astype(np.int64) if times.dtype.kind in "iu" else times
    from datetime import datetime

    found = [datetime.fromisoformat(each).replace(tzinfo=None) for each in times]
    return np.array(found, dtype="datetime64[us]")


def _duration(embargo: Any, times: NDArray[Any]) -> Any:
    is_text = any(isinstance(each, str) for each in times)
    if times.dtype.kind == "M" or is_text:
        if isinstance(embargo, int | float):
            raise TypeError("a number has no unit of time")
        return np.timedelta64(embargo)
    return embargo


def _block_starts(sizes: NDArray[np.int64], blocks: int) -> list[int]:
    """Return the first time of each block; the blocks have about the same number of rows."""
    ends = np.cumsum(sizes)
    starts = [0]
    for block in range(1, blocks):
        wanted = ends[-1] * block / blocks
        near = int(np.argmin(np.abs(ends - wanted))) + 1
        # At least one time for each block before and after.
        starts.append(min(max(near, starts[-1] + 1), len(sizes) - (blocks - block)))
    return starts
