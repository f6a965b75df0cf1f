"""``Split``: the row numbers of train, valid, test and calibration, and checks against leaks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import torch

from flambeau import random as keyed
from flambeau.data.row_codes import name_rows, number_times, number_values
from flambeau.errors import ArgumentError, SplitError
from flambeau.wording import name_some

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

Part: TypeAlias = Literal["train", "valid", "test", "calibration"]
Rows: TypeAlias = "NDArray[np.int64]"

PARTS: tuple[Part, ...] = get_args(Part)
HELD_OUT: tuple[Part, ...] = PARTS[1:]
"""The parts that a model is never trained on."""


def _no_rows() -> Rows:
    return np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class Split:
    """The row numbers of the disjoint parts train, valid, test and calibration.

    Test and calibration may be empty.

    Create it with ``random``, ``by_group``, ``by_time`` or ``from_indices``. The size of a part is
    a fraction of the rows (float below 1) or a number of rows (int).

    Attributes:
        train: int64 ``(n_train,)``.
        valid: int64 ``(n_valid,)``; used for model selection.
        test: int64 ``(n_test,)``, may be empty; for the final evaluation only.
        calibration: int64 ``(n_calibration,)``, may be empty; only ``learner.calibrate`` uses it,
            after training.
        method: How the rows were split, as text.
        notes: Remarks for the user (classes too small to be split, …).
        for_training: Whether train and valid must have rows; False for data that are only
            evaluated.

    Raises:
        SplitError: A row is in two parts or twice in one, a row number is negative, or train is
            empty although the data are for training. The message names the rows.
    """

    train: Rows
    valid: Rows
    test: Rows
    calibration: Rows = field(default_factory=_no_rows)
    method: str = "given"
    notes: tuple[str, ...] = ()
    for_training: bool = True

    def __post_init__(self) -> None:
        for name in PARTS:
            object.__setattr__(self, name, _as_rows(getattr(self, name), name))
        if self.for_training and not len(self.train):
            raise SplitError(
                "The train part has no rows. Give more rows, or smaller sizes of the other parts."
            )
        _check_disjoint({name: self.part(name) for name in PARTS})

    @staticmethod
    def random(
        n: int,
        valid: float = 0.2,
        test: float = 0.0,
        seed: int = 0,
        stratify: ArrayLike | None = None,
        *,
        calibration: float = 0.0,
        class_names: Sequence[str] | None = None,
    ) -> Split:
        """Split rows 0..n-1 at random; ``stratify`` keeps the class proportions in every part.

        Args:
            n: Number of rows.
            valid: Size of valid: a fraction or a number of rows; 0 for none.
            test: Size of test, likewise.
            seed: The same seed gives the same split on every machine.
            stratify: The class of each row. A class with a single row is put in train and listed
                in ``notes``; every larger class has at least one row in train.
            calibration: Size of calibration, like ``test``. Its rows are taken from train: valid
                and test are the same with and without it.
            class_names: Names for ``notes`` if ``stratify`` has class numbers.

        Raises:
            SplitError: There are fewer rows than parts, or no row is left for train.
        """
        counts = _counts(n, valid, test, calibration)
        order = _permutation(n, seed)
        if stratify is None:
            *held_out, train = np.split(order, np.cumsum(counts))
            parts = map(np.sort, (train, *held_out))
            return Split(*parts, method=f"random (seed {seed})")
        labels = np.asarray(stratify)
        if labels.shape != (n,):
            raise SplitError(
                f"stratify has shape {labels.shape}, but there are {n} rows. Give one class per "
                "row."
            )
        stratified, notes = _stratified(order, labels, counts, class_names)
        parts = map(np.sort, stratified)
        return Split(*parts, method=f"random, stratified (seed {seed})", notes=notes)

    @staticmethod
    def by_group(
        groups: ArrayLike | Sequence[Any],
        valid: float = 0.2,
        test: float = 0.0,
        seed: int = 0,
        *,
        calibration: float = 0.0,
    ) -> Split:
        """Split whole groups at random: no group (patient, user, document) is in two parts.

        The sizes count rows and are approximated, because groups stay whole.

        Raises:
            SplitError: There are fewer groups than parts.
        """
        codes, names = number_values(groups, "groups")
        n_valid, n_test, n_calibration = _counts(len(codes), valid, test, calibration)
        wanted: list[tuple[Part, int]] = [("test", n_test)] if n_test else []
        wanted.append(("valid", n_valid))
        if n_calibration:
            wanted.append(("calibration", n_calibration))
        if len(names) <= len(wanted):
            raise SplitError(
                f"{len(names)} distinct groups are too few for {len(wanted) + 1} parts, because a "
                "group cannot be in two parts. Give smaller groups, or use Split.random."
            )
        sizes = np.bincount(codes, minlength=len(names))
        left = list(_permutation(len(names), seed))
        rows: dict[str, Rows] = {}
        for index, (part, target) in enumerate(wanted):
            # Every later part and train need at least one group each.
            most = len(left) - (len(wanted) - index)
            chosen = _choose_groups(left, sizes, target, most)
            left = [group for group in left if group not in chosen]
            rows[part] = np.flatnonzero(np.isin(codes, list(chosen)))
        rows["train"] = np.flatnonzero(np.isin(codes, left))
        method = f"by group (seed {seed}, {len(names)} groups)"
        return Split.from_parts(rows, method)

    @staticmethod
    def by_time(
        times: ArrayLike | Sequence[Any],
        valid: float = 0.2,
        test: float = 0.0,
        *,
        calibration: float = 0.0,
    ) -> Split:
        """Split by time: the earliest rows are train, then validation, calibration and test.

        The sizes are approximated, because rows with the same time stay in one part. Each part is
        in chronological order.

        Raises:
            SplitError: There are fewer distinct times than parts, or a time is missing (NaN, NaT).
        """
        codes, distinct = number_times(times)
        n_valid, n_test, n_calibration = _counts(len(codes), valid, test, calibration)
        # Latest first; every earlier part needs at least one time.
        targets = {"test": n_test, "calibration": n_calibration, "valid": n_valid}
        wanted = {name: count for name, count in targets.items() if count}
        if len(distinct) <= len(wanted):
            raise SplitError(
                f"{len(distinct)} distinct times are too few for {len(wanted) + 1} parts, because "
                "rows with the same time stay in one part. Give more precise times, or use "
                "Split.random."
            )
        sizes = np.bincount(codes, minlength=len(distinct))
        order = np.argsort(codes, kind="stable")
        ranks = codes[order]
        rows: dict[str, Rows] = {}
        notes: list[str] = []
        end = len(distinct)
        for earlier, (part, count) in zip(range(len(wanted), 0, -1), wanted.items(), strict=True):
            start = _latest(sizes[:end], count, keep=earlier)
            rows[part] = order[(ranks >= start) & (ranks < end)]
            word = "validation" if part == "valid" else part
            notes.insert(0, f"{word} starts at {distinct[start]}")
            end = start
        rows["train"] = order[ranks < end]
        return replace(Split.from_parts(rows, "by time"), notes=tuple(notes))

    @staticmethod
    def from_indices(
        train: ArrayLike,
        valid: ArrayLike | None = None,
        test: ArrayLike = (),
        calibration: ArrayLike = (),
    ) -> Split:
        """Return a split with these row numbers, in the given order; None for no valid part.

        Raises:
            SplitError: ``train`` is empty, or ``valid`` is, which may be a mistake.
        """
        if valid is not None and not len(np.atleast_1d(valid)):
            raise SplitError(
                "The valid part has no rows. Give some, or valid=None to train without validation."
            )
        rows = (train, () if valid is None else valid, test, calibration)
        return Split.from_parts(dict(zip(PARTS, rows, strict=True)))

    @staticmethod
    def from_parts(rows: Mapping[str, ArrayLike], method: str = "given") -> Split:
        """Return a split with row numbers by the names of the parts; parts not named are empty.

        Raises:
            ArgumentError: A name is not that of a part.
        """
        for name in rows:
            if name not in PARTS:
                raise ArgumentError(f"No part {name!r}. The parts are {', '.join(PARTS)}.")
        return Split(*(_as_rows(rows.get(name, ()), name) for name in PARTS), method=method)

    def part(self, name: str) -> Rows:
        """Return the row numbers of "train", "valid", "test" or "calibration"."""
        if name not in PARTS:
            if not isinstance(cast(object, name), str):
                raise ArgumentError(
                    f"A part is given by its name, not by a {type(name).__name__}. The parts are "
                    f"{', '.join(PARTS)}. Samples of your own are a part if the data are built "
                    "with them: test=(inputs, targets)."
                )
            raise ArgumentError(f"No part {name!r}. The parts are {', '.join(PARTS)}.")
        rows: Rows = getattr(self, name)
        return rows

    def sizes(self) -> str:
        """Return the size of every part as text, without calibration if it is empty."""
        shown = PARTS if len(self.calibration) else PARTS[:-1]
        return ", ".join(f"{len(self.part(name)):,} {name}" for name in shown)

    def describe(self) -> str:
        """Return the method and the size of every part in one line."""
        return f"{self.method}: {self.sizes()} rows"

    def __str__(self) -> str:
        return "\n".join([self.describe(), *(f"  {note}" for note in self.notes)])

    def check_length(self, n: int) -> None:
        """Check that all row numbers are below ``n``.

        Raises:
            SplitError: A row number is too large; the message gives the rows.
        """
        for name in PARTS:
            rows = self.part(name)
            if (wrong := rows[rows >= n]).size:
                raise SplitError(
                    f"The {name} part contains {name_rows(wrong)}, but the data have {n} rows "
                    f"(0 to {n - 1}). Create the split for these data."
                )

    def check_groups(self, groups: ArrayLike | Sequence[Any]) -> None:
        """Check that no group has rows in two parts, which would be a leak.

        Raises:
            SplitError: A group is in two parts; the message names the groups and the parts.
        """
        codes, names = number_values(groups, "groups")
        self.check_length(len(codes))
        groups_of = {name: np.unique(codes[self.part(name)]) for name in PARTS}
        for one, other in combinations(PARTS, 2):
            shared = np.intersect1d(groups_of[one], groups_of[other])
            if shared.size:
                shown = name_some(repr(_to_python(names[code])) for code in shared)
                raise SplitError(
                    f"{shared.size} groups are in both {one} and {other}: {shown}. The {other} "
                    "scores would be too optimistic. Use Split.by_group."
                )


def _permutation(n: int, seed: int) -> Rows:
    """Return a random permutation of 0..n-1 that depends only on ``seed``."""
    order: Rows = torch.randperm(n, generator=keyed.generator(seed, "split")).numpy()
    return order


def _as_rows(rows: Any, name: str) -> Rows:
    array = np.asarray(rows)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        hint = " Use np.flatnonzero(mask)." if array.dtype == np.bool_ else ""
        raise SplitError(
            f"The {name} part must be a list of row numbers, not an array of {array.dtype} with "
            f"shape {array.shape}.{hint}"
        )
    # A copy, so that the caller cannot change it. Not marked read-only: torch would warn whenever
    # a tensor is indexed with it.
    array = array.astype(np.int64)
    if (wrong := array[array < 0]).size:
        raise SplitError(
            f"The {name} part contains {name_rows(wrong)}, but row numbers start at 0."
        )
    return array


def _check_disjoint(parts: dict[Part, Rows]) -> None:
    rows = np.concatenate(list(parts.values()))
    # If the row numbers are dense, counting is 20 times faster than sorting.
    if rows.max() < 10 * len(rows) and np.bincount(rows).max() == 1:
        return
    for name, rows in parts.items():
        distinct, counts = np.unique(rows, return_counts=True)
        if (twice := distinct[counts > 1]).size:
            raise SplitError(
                f"The {name} part contains {name_rows(twice)} more than once. Give each row once."
            )
    for one, other in combinations(PARTS, 2):
        if (shared := np.intersect1d(parts[one], parts[other])).size:
            raise SplitError(
                f"{one} and {other} both contain {name_rows(shared)}, so the {other} scores would "
                "be too optimistic. Put each row in one part only."
            )


def _counts(n: int, valid: float, test: float, calibration: float) -> tuple[int, int, int]:
    """Return the numbers of rows of valid, test and calibration; at least 1 for a size above 0."""
    sizes = {"valid": valid, "test": test, "calibration": calibration}
    counts = [_count(n, name, size) for name, size in sizes.items()]
    parts = 1 + sum(count > 0 for count in counts)
    if n < parts:
        raise SplitError(
            f"{n} rows are too few for {parts} parts of at least one row each. Give more rows."
        )
    if sum(counts) >= n:
        *others, last = (
            f"{name}={size}" for name, size in sizes.items() if name != "calibration" or size
        )
        raise SplitError(
            f"{', '.join(others)} and {last} leave none of the {n} rows for train. Give smaller "
            "sizes."
        )
    return counts[0], counts[1], counts[2]


def _count(n: int, name: str, size: float) -> int:
    """Return the number of rows for the size of a part: a fraction or a number of rows."""
    if type(size) not in (int, float) and not isinstance(size, np.integer | np.floating):
        raise ArgumentError(
            f"{name} is {size!r:.60} of type {type(size).__name__}. Give a fraction below 1 "
            "(0.2) or a number of rows (int); TensorData.from_tensors also takes a tuple "
            "(inputs, targets)."
        )
    if isinstance(size, int | np.integer):
        count = int(size)
    elif 0 <= size < 1:
        count = max(1, round(n * size)) if size > 0 else 0
    else:
        count = -1
    if count < 0:
        raise SplitError(
            f"{name}={size} is invalid. Give a fraction below 1 (0.2), a number of rows (int), or "
            "0 for none."
        )
    return count


def _stratified(
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
    # One row of each class stays in train.
    available = counts - 1
    by_class = order[np.argsort(codes[order], kind="stable")]
    starts = np.cumsum(counts) - counts
    position = np.arange(len(order)) - np.repeat(starts, counts)
    taken = np.zeros_like(counts)
    held_out: list[Rows] = []
    for total in wanted:
        until = taken + _apportion(counts, total, available - taken)
        is_here = (position >= np.repeat(taken, counts)) & (position < np.repeat(until, counts))
        held_out.append(by_class[is_here])
        taken = until
    train = by_class[position >= np.repeat(taken, counts)]
    notes: list[str] = []
    if (single := np.flatnonzero(counts == 1)).size:
        notes.append(f"classes with a single row, kept in train: {_names(names, single)}")
    has_valid = np.isin(np.arange(len(names)), codes[held_out[0]])
    if (unseen := np.flatnonzero((counts > 1) & ~has_valid)).size:
        notes.append(f"classes too small for a validation row: {_names(names, unseen)}")
    return [train, *held_out], tuple(notes)


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


def _choose_groups(left: Sequence[int], sizes: NDArray[Any], target: int, most: int) -> set[int]:
    """Return groups, in random order, whose rows add up to about ``target``; at least one."""
    chosen: set[int] = set()
    taken = 0
    for group in left:
        # Add the group only if the sum gets closer to the target.
        if len(chosen) < most and taken + sizes[group] / 2 <= target:
            chosen.add(group)
            taken += int(sizes[group])
    return chosen or {min(left, key=lambda group: sizes[group])}


def _latest(sizes: NDArray[Any], target: int, keep: int) -> int:
    """Return the time from which on the rows to the end add up to about ``target``.

    The ``keep`` earliest times are never returned.
    """
    taken = np.cumsum(sizes[::-1])[: len(sizes) - keep]
    return len(sizes) - 1 - int(np.argmin(np.abs(taken - target)))


def _names(names: NDArray[Any], codes: Iterable[int]) -> str:
    return name_some((_to_python(names[code]) for code in codes), most=10)


def _to_python(value: Any) -> object:
    return cast(object, value.item()) if isinstance(value, np.generic) else value
