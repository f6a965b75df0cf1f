"""How the rows of a split are drawn: by class, by group and by time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flambeau.data.row_codes import number_values
from flambeau.wording import name_some

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]


def stratified_rows(
    order: Rows,
    labels: NDArray[Any],
    wanted: Sequence[int],
    class_names: Sequence[str] | None = None,
) -> tuple[list[Rows], tuple[str, ...]]:
    """Return the rows of train and of the ``wanted`` held-out parts, and notes for the user."""
    codes, names = number_values(labels, "stratify")
    if class_names is not None:
        names = np.array([class_names[int(number)] for number in names], dtype=np.str_)
    counts = np.bincount(codes, minlength=len(names))
    # Small codes are sorted several times faster, and in less memory.
    small = codes.astype(np.min_scalar_type(len(names)))
    by_class = order[np.argsort(small[order], kind="stable")]
    ends = np.cumsum(counts)
    taken = ends - counts
    held_out: list[Rows] = []
    for total in wanted:
        until = taken + _apportion(counts, total, ends - taken - 1)
        held_out.append(_ranges(by_class, taken, until))
        taken = until
    train = _ranges(by_class, taken, ends)
    notes: list[str] = []
    if (single := np.flatnonzero(counts == 1)).size:
        notes.append(f"classes with a single row, kept in train: {_names(names, single)}")
    has_valid = np.isin(np.arange(len(names)), codes[held_out[0]])
    if (unseen := np.flatnonzero((counts > 1) & ~has_valid)).size:
        notes.append(f"classes too small for a validation row: {_names(names, unseen)}")
    return [train, *held_out], tuple(notes)


def _ranges(rows: Rows, starts: Rows, ends: Rows) -> Rows:
    """Return ``rows[start:end]`` for all starts and ends, one after another."""
    parts = [rows[start:end] for start, end in zip(starts.tolist(), ends.tolist(), strict=True)]
    return np.concatenate(parts)


def _apportion(counts: Rows, total: int, available: Rows) -> Rows:
    """Divide ``total`` rows among the classes in proportion to ``counts`` (largest remainder).

    No class gets more rows than are ``available``.
    """
    quota = counts * (total / counts.sum())
    assigned = np.minimum(np.floor(quota).astype(np.int64), available)
    missing = total - int(assigned.sum())
    # Largest remainder first; ties go to the larger class, then to the first one.
    for code in np.lexsort((-counts, -(quota - assigned))):
        if missing <= 0:
            break
        if assigned[code] < available[code]:
            assigned[code] += 1
            missing -= 1
    return assigned


def choose_groups(left: Sequence[int], sizes: NDArray[Any], target: int, most: int) -> set[int]:
    """Return groups, in random order, whose rows add up to about ``target``; at least one."""
    chosen: set[int] = set()
    taken = 0
    for group in left:
        # Add the group only if the sum gets closer to the target.
        if len(chosen) < most and taken + sizes[group] / 2 <= target:
            chosen.add(group)
            taken += int(sizes[group])
    return chosen or {min(left, key=lambda group: sizes[group])}


def latest_start(sizes: NDArray[Any], target: int, keep: int) -> int:
    """Return the time from which on the rows to the end add up to about ``target``.

    The ``keep`` earliest times are never returned.
    """
    taken = np.cumsum(sizes[::-1])[: len(sizes) - keep]
    return len(sizes) - 1 - int(np.argmin(np.abs(taken - target)))


def _names(names: NDArray[Any], codes: Iterable[int]) -> str:
    return name_some((to_python(names[code]) for code in codes), most=10)


def to_python(value: Any) -> object:
    """Return a NumPy scalar as a Python value; other values unchanged."""
    return cast(object, value.item()) if isinstance(value, np.generic) else value
