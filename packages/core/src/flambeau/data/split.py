"""``Split``: the row numbers of train, valid, test and calibration, and checks against leaks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import torch

from flambeau import random as keyed
from flambeau.checked_arguments import as_plain
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
        from flambeau.data.split_draws import stratified_rows

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
        stratified, notes = stratified_rows(order, labels, counts, class_names)
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
        from flambeau.data.split_draws import choose_groups

        codes, names = number_values(groups, "groups")
        n_valid, n_test, n_calibration = _counts(len(codes), valid, test, calibration)
        targets: dict[Part, int] = {"test": n_test, "valid": n_valid, "calibration": n_calibration}
        wanted = [(part, count) for part, count in targets.items() if count]
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
            chosen = choose_groups(left, sizes, target, most)
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
        embargo: Any | None = None,
    ) -> Split:
        """Split by time: the earliest rows are train, then validation, calibration and test.

        The sizes are approximated, because rows with the same time stay in one part. Each part is
        in chronological order.

        Args:
            times: The time of each row: dates, numbers, or text in ISO 8601.
            valid: Size of valid: a fraction or a number of rows; 0 for none.
            test: Size of test, likewise.
            calibration: Size of calibration, likewise.
            embargo: A duration. Rows less than this before the start of the next part are in no
                part, since their targets may overlap with it in time. A number for times that are
                numbers, else a ``timedelta``.

        Raises:
            ArgumentError: The embargo does not fit the times.
            SplitError: There are fewer distinct times than parts, or a time is missing (NaN, NaT).
        """
        from flambeau.data.folds import end_before
        from flambeau.data.split_draws import latest_start

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
            if end <= earlier:
                raise SplitError(
                    f"The embargo of {embargo} leaves no rows for the parts before {part}. Give a "
                    "shorter embargo or smaller parts."
                )
            start = latest_start(sizes[:end], count, keep=earlier)
            rows[part] = order[(ranks >= start) & (ranks < end)]
            word = "validation" if part == "valid" else part
            notes.insert(0, f"{word} starts at {distinct[start]}")
            end = end_before(distinct, start, embargo)
        rows["train"] = order[ranks < end]
        if not end:
            raise SplitError(
                f"The embargo of {embargo} leaves no train rows. Give a shorter embargo."
            )
        return replace(Split.from_parts(rows, "by time"), notes=(*notes, *_left_out(rows, codes)))

    @staticmethod
    def folds(
        n: int,
        k: int = 5,
        *,
        stratify: ArrayLike | None = None,
        groups: ArrayLike | Sequence[Any] | None = None,
        times: ArrayLike | Sequence[Any] | None = None,
        embargo: Any | None = None,
        seed: int = 0,
    ) -> list[Split]:
        """Return the k splits of a cross-validation; each has only train and valid rows.

        Every row is in valid once. With ``times``, the folds go forward in time instead: each
        validates on the rows that follow its train rows, and the earliest rows are never in valid.

        Args:
            n: Number of rows.
            k: Number of folds.
            stratify: The class of each row, whose proportions are kept in every fold.
            groups: The group of each row; a group is in one fold only.
            times: The time of each row, as for ``by_time``.
            embargo: As for ``by_time``; only with ``times``.
            seed: The same seed gives the same folds on every machine.

        Raises:
            ArgumentError: ``times`` is combined with groups or classes, or ``embargo`` is given
                without times.
            SplitError: There are too few rows, groups or times.
        """
        from flambeau.data.folds import (
            check_k,
            check_lengths,
            group_folds,
            stratified_folds,
            time_folds,
        )

        check_k(n, k)
        check_lengths(n, {"stratify": stratify, "groups": groups, "times": times})
        if times is None and embargo is not None:
            raise ArgumentError("embargo needs times=…, from which its duration is measured.")
        if times is not None:
            if groups is not None or stratify is not None:
                raise ArgumentError(
                    "times cannot be combined with groups or stratify, because the time alone "
                    "decides in which fold a row is. Omit one of them."
                )
            return [
                Split(
                    train,
                    valid,
                    _no_rows(),
                    method=f"fold {at} of {k} forward in time",
                    notes=(f"validation starts at {first}",),
                )
                for at, (train, valid, first) in enumerate(time_folds(times, k, embargo), start=1)
            ]
        notes: tuple[str, ...] = ()
        if groups is not None:
            codes, names = number_values(groups, "groups")
            fold_of = group_folds(_permutation(len(names), seed), codes, stratify, k)
            method = f"by group (seed {seed})"
        elif stratify is not None:
            fold_of, notes = stratified_folds(_permutation(n, seed), stratify, k)
            method = f"stratified (seed {seed})"
        else:
            fold_of = np.empty(n, np.int64)
            fold_of[_permutation(n, seed)] = np.arange(n) % k
            method = f"random (seed {seed})"
        return [
            Split(
                np.flatnonzero(fold_of != fold),
                np.flatnonzero(fold_of == fold),
                _no_rows(),
                method=f"fold {fold + 1} of {k}, {method}",
                notes=notes,
            )
            for fold in range(k)
        ]

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
        if not isinstance(cast(object, name), str):
            raise ArgumentError(
                f"A part is given by its name, not by a {type(name).__name__}. The parts are "
                f"{', '.join(PARTS)}. Samples of your own are a part if the data are built "
                "with them: test=(inputs, targets)."
            )
        if name not in PARTS:
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
        from flambeau.data.split_draws import to_python

        codes, names = number_values(groups, "groups")
        self.check_length(len(codes))
        groups_of = {name: np.unique(codes[self.part(name)]) for name in PARTS}
        for one, other in combinations(PARTS, 2):
            shared = np.intersect1d(groups_of[one], groups_of[other])
            if shared.size:
                shown = name_some(repr(to_python(names[code])) for code in shared)
                raise SplitError(
                    f"{shared.size} groups are in both {one} and {other}: {shown}. The {other} "
                    "scores would be too optimistic. Use Split.by_group."
                )


def _left_out(parts: Mapping[str, Rows], rows: Rows) -> tuple[str, ...]:
    """Return a note with the number of rows that an embargo left out."""
    left_out = len(rows) - sum(map(len, parts.values()))
    return (f"{left_out:,} rows left out by the embargo",) if left_out else ()


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
    n = sum(map(len, parts.values()))
    highest = max(int(rows.max(initial=0)) for rows in parts.values())
    # If the row numbers are dense, marking them is 20 times faster than sorting them.
    if highest < 10 * n:
        marked = np.zeros(highest + 1, np.bool_)
        for rows in parts.values():
            marked[rows] = True
        if np.count_nonzero(marked) == n:
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
    size = as_plain(size)
    if type(size) not in (int, float):
        raise ArgumentError(
            f"{name} is {size!r:.60} of type {type(size).__name__}. Give a fraction below 1 "
            "(0.2) or a number of rows (int); TensorData.from_tensors also takes a tuple "
            "(inputs, targets)."
        )
    if isinstance(size, int):
        count = size
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
