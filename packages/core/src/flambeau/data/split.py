"""``Split``: which samples are train, valid and test, and the checks that no row leaks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from flambeau import random as keyed
from flambeau.errors import ArgumentError, SplitError, did_you_mean

Part: TypeAlias = Literal["train", "valid", "test"]
Rows: TypeAlias = NDArray[np.int64]

PARTS: tuple[Part, ...] = get_args(Part)
_PAIRS: tuple[tuple[Part, Part], ...] = (("train", "valid"), ("train", "test"), ("valid", "test"))


@dataclass(frozen=True, eq=False)
class Split:
    """Row numbers of each part; the parts are disjoint, train and valid are not empty.

    Build it with ``random``, ``by_group``, ``by_time`` or ``given``. A share of a part is a
    fraction of the rows (float below 1) or a number of rows (int).

    Attributes:
        train: int64 ``(n_train,)``.
        valid: int64 ``(n_valid,)``; every choice looks at these.
        test: int64 ``(n_test,)``, may be empty; looked at once, at the end.
        method: How the rows were parted, in words.
        notes: What a reader should know (classes too small to be parted, …).

    Raises:
        SplitError: A row is in two parts or twice in one, a row is negative, or train or valid
            is empty. The message names the rows.
    """

    train: Rows
    valid: Rows
    test: Rows
    method: str = "given"
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in PARTS:
            object.__setattr__(self, name, _as_rows(getattr(self, name), name))
        for name in ("train", "valid"):
            if not len(self.part(name)):
                raise SplitError(
                    f"The {name} part has no rows, and training needs both train and valid. "
                    "Give more rows or another share."
                )
        _check_disjoint({name: self.part(name) for name in PARTS})

    @staticmethod
    def random(
        n: int,
        valid: float = 0.2,
        test: float = 0.0,
        seed: int = 0,
        stratify: ArrayLike | None = None,
    ) -> Split:
        """Rows 0..n-1 drawn at random; with ``stratify`` every class keeps its share.

        Args:
            n: Number of rows.
            valid: Share of valid: a fraction, or a number of rows.
            test: Share of test; 0 for none.
            seed: The same seed gives the same split on every machine.
            stratify: One class a row. A class with a single row goes to train, and the notes
                say so; every larger class keeps at least one row in train.

        Raises:
            SplitError: Fewer rows than parts, or shares that leave no train row.
        """
        n_valid, n_test = _counts(n, valid, test)
        order = _permutation(n, seed)
        if stratify is None:
            parts = order[n_valid + n_test :], order[:n_valid], order[n_valid : n_valid + n_test]
            return Split(*map(np.sort, parts), method=f"random (seed {seed})")
        labels = np.asarray(stratify)
        if labels.shape != (n,):
            raise SplitError(
                f"stratify has shape {labels.shape}, but there are {n} rows. Give one class a row."
            )
        parts, notes = _stratified(order, labels, n_valid, n_test)
        return Split(*map(np.sort, parts), method=f"random, stratified (seed {seed})", notes=notes)

    @staticmethod
    def by_group(
        groups: ArrayLike | Sequence[Any],
        valid: float = 0.2,
        test: float = 0.0,
        seed: int = 0,
    ) -> Split:
        """Whole groups drawn at random: no group (patient, user, document) is in two parts.

        The shares are of rows and are met as nearly as whole groups allow.

        Raises:
            SplitError: Fewer groups than parts.
        """
        codes, names = _codes(groups, "groups")
        n_valid, n_test = _counts(len(codes), valid, test)
        wanted = [("test", n_test)] if n_test else []
        wanted.append(("valid", n_valid))
        if len(names) <= len(wanted):
            raise SplitError(
                f"{len(names)} distinct groups cannot fill {len(wanted) + 1} parts: no group may "
                "be in two parts. Give finer groups, or use Split.random."
            )
        sizes = np.bincount(codes, minlength=len(names))
        left = list(_permutation(len(names), seed))
        rows: dict[str, Rows] = {"test": np.empty(0, np.int64)}
        for place, (part, target) in enumerate(wanted):
            # Every later part and train still need a group each.
            most = len(left) - (len(wanted) - place)
            chosen = _fill(left, sizes, target, most)
            left = [group for group in left if group not in chosen]
            rows[part] = np.flatnonzero(np.isin(codes, list(chosen)))
        train = np.flatnonzero(np.isin(codes, left))
        method = f"by group (seed {seed}, {len(names)} groups)"
        return Split(train, rows["valid"], rows["test"], method=method)

    @staticmethod
    def by_time(times: ArrayLike | Sequence[Any], valid: float = 0.2, test: float = 0.0) -> Split:
        """The latest rows are test, those before them valid, the earliest train.

        Rows of the same time stay together, so the shares are met as nearly as ties allow. Each
        part is in the order of time.

        Raises:
            SplitError: Fewer distinct times than parts, or a time is missing (NaN, NaT).
        """
        codes, distinct = _codes(times, "times")
        n_valid, n_test = _counts(len(codes), valid, test)
        n_parts = 3 if n_test else 2
        if len(distinct) < n_parts:
            raise SplitError(
                f"{len(distinct)} distinct times cannot fill {n_parts} parts: rows of the same "
                "time stay together. Give finer times, or use Split.random."
            )
        sizes = np.bincount(codes, minlength=len(distinct))
        end = len(distinct)
        test_from = _latest(sizes[:end], n_test, keep=2) if n_test else end
        valid_from = _latest(sizes[:test_from], n_valid, keep=1)
        order = np.argsort(codes, kind="stable")
        ranks = codes[order]
        train, middle = order[ranks < valid_from], order[ranks >= valid_from]
        ranks = ranks[ranks >= valid_from]
        notes = (f"valid starts at {distinct[valid_from]}",)
        if n_test:
            notes += (f"test starts at {distinct[test_from]}",)
        return Split(train, middle[ranks < test_from], middle[ranks >= test_from], "by time", notes)

    @staticmethod
    def from_indices(train: ArrayLike, valid: ArrayLike, test: ArrayLike = ()) -> Split:
        """The row numbers as they are, in their order."""
        return Split(_as_rows(train, "train"), _as_rows(valid, "valid"), _as_rows(test, "test"))

    def part(self, name: str) -> Rows:
        """The rows of "train", "valid" or "test"."""
        if name not in PARTS:
            raise ArgumentError(f"No part {name!r}. {did_you_mean(name, PARTS)}")
        rows: Rows = getattr(self, name)
        return rows

    def describe(self) -> str:
        """One line: the method and the size of every part."""
        sizes = ", ".join(f"{len(self.part(name)):,} {name}" for name in PARTS)
        return f"{self.method}: {sizes} rows"

    def __str__(self) -> str:
        return "\n".join([self.describe(), *(f"  {note}" for note in self.notes)])

    def check_length(self, n: int) -> None:
        """Checks that every row is one of ``n``.

        Raises:
            SplitError: A row is past the end; the message names it.
        """
        for name in PARTS:
            rows = self.part(name)
            if (wrong := rows[rows >= n]).size:
                raise SplitError(
                    f"The {name} part names {_list(wrong)}, but the data have {n} rows "
                    f"(0 to {n - 1}). Make the split from the same rows."
                )

    def check_groups(self, groups: ArrayLike | Sequence[Any]) -> None:
        """Checks that no group has rows in two parts (a leak: the model may know the group).

        Raises:
            SplitError: The message names the groups and where they are.
        """
        codes, names = _codes(groups, "groups")
        self.check_length(len(codes))
        places = {name: np.unique(codes[self.part(name)]) for name in PARTS}
        for one, other in _PAIRS:
            shared = np.intersect1d(places[one], places[other])
            if shared.size:
                shown = ", ".join(repr(_plain(names[code])) for code in shared[:5])
                raise SplitError(
                    f"{shared.size} groups are in both {one} and {other}: {shown}. What is "
                    f"measured on {other} would be too good. Use Split.by_group."
                )


def _permutation(n: int, seed: int) -> Rows:
    """0..n-1 in an order that only ``seed`` decides."""
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
    # A copy, so that nobody else can write to it. Not marked read-only: torch would warn of that
    # whenever a tensor is indexed with it.
    array = array.astype(np.int64)
    if (wrong := array[array < 0]).size:
        raise SplitError(f"The {name} part names {_list(wrong)}: row numbers start at 0.")
    return array


def _check_disjoint(parts: dict[Part, Rows]) -> None:
    rows = np.concatenate(list(parts.values()))
    # Counting is 20 times quicker than sorting, where the row numbers are not far apart.
    if rows.max() < 10 * len(rows) and np.bincount(rows).max() == 1:
        return
    for name, rows in parts.items():
        distinct, counts = np.unique(rows, return_counts=True)
        if (twice := distinct[counts > 1]).size:
            raise SplitError(f"The {name} part names {_list(twice)} more than once.")
    for one, other in _PAIRS:
        if (shared := np.intersect1d(parts[one], parts[other])).size:
            raise SplitError(
                f"{one} and {other} overlap in {_list(shared)}: what is measured on {other} "
                "would be too good. Give each row to one part."
            )


def _counts(n: int, valid: float, test: float) -> tuple[int, int]:
    """Numbers of valid and test rows: at least one for a share above 0."""
    counts: list[int] = []
    for name, share in (("valid", valid), ("test", test)):
        if type(share) not in (int, float) and not isinstance(share, np.integer | np.floating):
            raise ArgumentError(
                f"{name} is {share!r:.60} of type {type(share).__name__}; give a fraction below 1 "
                "(0.2), a number of rows (int), or where that is taken the tuple "
                "(inputs, targets)."
            )
        if isinstance(share, int | np.integer):
            count = int(share)
        elif 0 <= share < 1:
            count = max(1, round(n * share)) if share > 0 else 0
        else:
            count = -1
        if count < 0 or (name == "valid" and count == 0):
            raise SplitError(
                f"{name}={share} is no share: give a fraction below 1 (0.2) or a number of rows "
                "(int)" + ("." if name == "test" else ", above 0.")
            )
        counts.append(count)
    parts = 1 + sum(count > 0 for count in counts)
    if n < parts:
        raise SplitError(
            f"{n} rows cannot make {parts} parts of at least one each. Give more rows."
        )
    if sum(counts) >= n:
        raise SplitError(
            f"valid={valid} and test={test} leave no train row of {n} rows. Give smaller shares."
        )
    return counts[0], counts[1]


def _stratified(
    order: Rows, labels: NDArray[Any], n_valid: int, n_test: int
) -> tuple[tuple[Rows, Rows, Rows], tuple[str, ...]]:
    codes, names = _codes(labels, "stratify")
    counts = np.bincount(codes, minlength=len(names))
    # One row of each class stays in train; a class of one row has nothing to give.
    room = counts - 1
    for_valid = _apportion(counts, n_valid, room)
    for_test = _apportion(counts, n_test, room - for_valid)
    by_class = order[np.argsort(codes[order], kind="stable")]
    starts = np.cumsum(counts) - counts
    place = np.arange(len(order)) - np.repeat(starts, counts)
    valid_end = np.repeat(for_valid, counts)
    test_end = valid_end + np.repeat(for_test, counts)
    valid = by_class[place < valid_end]
    test = by_class[(place >= valid_end) & (place < test_end)]
    train = by_class[place >= test_end]
    notes: list[str] = []
    if (single := np.flatnonzero(counts == 1)).size:
        notes.append(f"classes with a single row, kept in train: {_names(names, single)}")
    if (unseen := np.flatnonzero((counts > 1) & (for_valid == 0))).size:
        notes.append(f"classes too small for a valid row: {_names(names, unseen)}")
    return (train, valid, test), tuple(notes)


def _apportion(counts: Rows, total: int, room: Rows) -> Rows:
    """``total`` rows over the classes by their shares (largest remainder), within ``room``."""
    quota = counts * (total / counts.sum())
    given = np.minimum(np.floor(quota).astype(np.int64), room)
    missing = total - int(given.sum())
    # The largest remainder first; of equal ones the larger class, then the earlier.
    for code in np.lexsort((-counts, -(quota - given))):
        if missing <= 0:
            break
        if given[code] < room[code]:
            given[code] += 1
            missing -= 1
    return given


def _fill(left: Sequence[int], sizes: NDArray[Any], target: int, most: int) -> set[int]:
    """Groups, in their drawn order, whose rows come nearest to ``target``; at least one."""
    chosen: set[int] = set()
    taken = 0
    for group in left:
        # Taking it must bring the sum nearer to the target.
        if len(chosen) < most and taken + sizes[group] / 2 <= target:
            chosen.add(group)
            taken += int(sizes[group])
    return chosen or {min(left, key=lambda group: sizes[group])}


def _latest(sizes: NDArray[Any], target: int, keep: int) -> int:
    """First of the latest times whose rows come nearest to ``target``; ``keep`` times stay."""
    taken = np.cumsum(sizes[::-1])[: len(sizes) - keep]
    return len(sizes) - 1 - int(np.argmin(np.abs(taken - target)))


def _codes(values: Any, what: str) -> tuple[Rows, NDArray[Any]]:
    """Each value's rank among the distinct ones, and these in order."""
    array = np.asarray(values)
    if array.ndim != 1:
        raise SplitError(f"{what} has shape {array.shape}; give one value a row.")
    if (missing := np.flatnonzero(_missing(array))).size:
        raise SplitError(f"{what} has no value in {_list(missing)}. Fill them in or drop the rows.")
    try:
        distinct, codes = np.unique(array, return_inverse=True)
    except TypeError as error:
        raise SplitError(f"{what} mixes kinds that have no order ({error}).") from error
    return codes.reshape(-1).astype(np.int64), distinct


def _missing(array: NDArray[Any]) -> NDArray[np.bool_]:
    if array.dtype.kind in "fcmM":
        return array != array  # noqa: PLR0124  NaN and NaT differ from themselves
    if array.dtype.kind != "O":
        return np.zeros(len(array), np.bool_)
    return np.array([value is None or value != value for value in array], np.bool_)  # noqa: PLR0124


def _list(rows: Iterable[Any]) -> str:
    every = list(rows)
    shown = ", ".join(str(row) for row in every[:5])
    more = f", … ({len(every)} in all)" if len(every) > 5 else ""
    return f"row{'s' if len(every) > 1 else ''} {shown}{more}"


def _names(names: NDArray[Any], codes: Iterable[int]) -> str:
    every = [str(_plain(names[code])) for code in codes]
    return ", ".join(every[:10]) + (f", … ({len(every)} in all)" if len(every) > 10 else "")


def _plain(value: Any) -> object:
    return cast(object, value.item()) if isinstance(value, np.generic) else value
