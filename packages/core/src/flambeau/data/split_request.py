"""``SplitRequest``: the split arguments of a ``from_*`` constructor, and the split they give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flambeau.checked_arguments import as_plain
from flambeau.data.split import PARTS, Rows, Split
from flambeau.errors import ArgumentError, SplitError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DRAWN = PARTS[1:]  # the parts that may be drawn from train
_NUMBERS = (bool, int, float, np.number, np.bool_)


@dataclass(frozen=True)
class SplitRequest:
    """The arguments of a ``from_*`` constructor that request a split.

    Attributes:
        valid: Size of the validation part: a fraction of the rows (float below 1) or a number of
            rows (int); or separate samples, if the constructor takes them.
        test: The same for the test part; 0 for none.
        split: A `Split` with the row numbers of the input, or the name of a column with the part
            of each row; False ignores such columns, None searches for one.
        seed: Seed of the random split.
        stratify: Whether a random split keeps the class proportions; "auto" leaves it to the
            constructor.
        calibration: As ``test``, for the part on which predictions are calibrated.
        scored: The part on which a trained model is evaluated; None if the data are for training.
            With "auto" or "all" no part is drawn at random: rows that are in no part become test.
        default_valid: The size of valid that the constructor has by default.
    """

    valid: Any = 0.2
    test: Any = 0.0
    split: Any = None
    seed: int = 0
    stratify: bool | str = "auto"
    calibration: Any = 0.0
    scored: str | None = None
    default_valid: float = 0.2

    def __post_init__(self) -> None:
        for part in _DRAWN:
            object.__setattr__(self, part, as_plain(self._size(part)))

    @property
    def for_training(self) -> bool:
        """Whether the data are trained on."""
        return self.scored is None

    @property
    def column(self) -> str | None:
        """Name of the split column; None if ``split`` is not a name."""
        return self.split if isinstance(self.split, str) else None

    def separate(self, *kinds: type, pair: str = "") -> dict[str, Any]:
        """Return the parts for which separate samples are given instead of a size, by name.

        Args:
            kinds: Types of separate samples; values of other types are sizes. Numbers are always
                sizes.
            pair: The two elements that the samples of a part must have, for the message:
                "(inputs, targets)"; by default their number is not checked.

        Raises:
            ArgumentError: The samples of a part are not a pair.
            SplitError: ``split`` is given too.
        """
        found = {
            part: value
            for part in _DRAWN
            if isinstance(value := self._size(part), kinds)
            and value is not None
            and not isinstance(value, _NUMBERS)
        }
        if found and self.split is not None and self.split is not False:
            names = " and ".join(found)
            raise SplitError(
                f"Separate samples for {names} cannot be combined with split=…, which assigns the "
                f"rows of one set to the parts. Give the size of {names}, or omit split."
            )
        for part, value in found.items():
            if pair and len(value) != 2:
                raise ArgumentError(
                    f"{part} is a {type(value).__name__} of {len(value)}. Give two elements: "
                    f"{part}={pair}; or a size: a fraction below 1 (0.2) or a number of rows."
                )
        return found

    def to_draw(self, given: Mapping[str, Any] | None = None) -> list[str]:
        """Return the parts to draw at random: those not in ``given``, with a size above 0.

        Args:
            given: Rows or samples of the known parts.
        """
        if isinstance(self.split, Split):
            return []
        known = given or {}
        return [part for part in _DRAWN if part not in known and not _is_zero(self._size(part))]

    def resolve(
        self,
        n: int,
        *,
        kept: Rows | None = None,
        given: Mapping[str, Rows] | None = None,
        classes: NDArray[Any] | None = None,
        class_names: Sequence[str] | None = None,
        groups: NDArray[Any] | None = None,
        times: Any | None = None,
        embargo: Any | None = None,
    ) -> Split:
        """Return the split of ``n`` rows, in row numbers of the kept rows.

        A ``Split`` in the request is used unchanged. Otherwise the ``given`` parts are used, and
        missing parts are drawn at random from the train rows.

        Args:
            n: Number of rows of the input, including unusable ones.
            kept: Ascending numbers of the usable rows, which are numbered anew from 0; by default
                all.
            given: Rows of the parts that are known from folders, a column or separate samples, in
                row numbers of the input. If train is missing, it is the rows in no part.
            classes: The class of each kept row, for a stratified draw; None for one that is not.
            class_names: Names of class numbers in ``classes``, for the notes of the split.
            groups: The group of each kept row; a draw keeps each group in one part. None draws
                single rows.
            times: The time of each kept row; the drawn parts are then the latest of the train rows
                instead of random ones, see ``Split.by_time``. Classes and groups are not used.
            embargo: The embargo between parts in time, see ``Split.by_time``.

        Raises:
            ArgumentError: ``split`` or a size has a wrong type.
            SplitError: The parts cannot be formed, or no row of a part is usable.
        """
        if isinstance(self.split, Split):
            self.split.check_length(n)
            parts = {part: self.split.part(part) for part in PARTS}
            self.refuse_unused_sizes({part: len(rows) for part, rows in parts.items()})
            return replace(self.split, **cast("dict[str, Any]", _renumber(parts, kept, n)))
        self._check_type(given)
        rows = _renumber(given or {}, kept, n)
        if self.scored in ("auto", "all"):
            return _without_draw(rows, n if kept is None else len(kept))
        if "valid" in rows and not len(rows["valid"]):
            raise SplitError(
                "The valid part has no rows. Give some, or valid=0 to train without validation."
            )
        self.refuse_unused_sizes({part: len(each) for part, each in rows.items()})
        method, notes = "given" if rows else "", ()
        is_whole = not rows  # rows that are drawn need no second numbering
        if not len(rows.get("train", ())):
            assigned = np.zeros(n if kept is None else len(kept), np.bool_)
            for each in rows.values():
                assigned[each] = True
            rows["train"] = np.flatnonzero(~assigned)
            method = method and "given; train is the rows without a part"
        if missing := self.to_draw(rows):
            drawn_as = list(missing)
            train = rows["train"]
            if times is not None:
                drawn = self._draw_latest(train, missing, times, embargo)
            else:
                # Split.random always draws valid: if it is given, another part is drawn as valid.
                if "valid" not in missing:
                    drawn_as = list(_DRAWN[: len(missing)])
                classes, groups = (
                    each if each is None or is_whole else each[train] for each in (classes, groups)
                )
                drawn = self._draw(len(train), missing, drawn_as, classes, class_names, groups)
            for part, name in zip(("train", *missing), ("train", *drawn_as), strict=True):
                rows[part] = drawn.part(name) if is_whole else train[drawn.part(name)]
            names = " and ".join(missing)
            method = f"{names} drawn from train, {drawn.method}" if method else drawn.method
            notes = drawn.notes
        parts = {part: rows.get(part, np.empty(0, np.int64)) for part in PARTS}
        method = method or "all rows in train"
        return Split(**cast("dict[str, Any]", parts), method=method, notes=notes)

    def refuse_unused_sizes(self, known: Mapping[str, int | None]) -> None:
        """Check that no size is given for a part whose rows are known.

        Args:
            known: Number of rows of each known part; None if it has not been counted.

        Raises:
            SplitError: A size is neither the default nor the number of these rows.
        """
        defaults = {**dict.fromkeys(_DRAWN, 0), "valid": self.default_valid}
        for part in _DRAWN:
            size = self._size(part)
            if part not in known or not (size is None or isinstance(size, _NUMBERS)):
                continue
            if (size or 0) not in (defaults[part], known[part]):
                raise SplitError(
                    f"{part}={size} would have no effect, because the data already have the part "
                    f"{part}: from folders, files, a column, or split=…. Omit {part} (--{part}). "
                    "To draw the parts at random instead, pass split=False for a column (--split "
                    "none), or ImageOptions(parts=…) for folders (--parts train=train,val=train)."
                )

    def _size(self, part: str) -> Any:
        return getattr(self, part)

    def _check_type(self, given: Mapping[str, Rows] | None) -> None:
        if self.split in (None, False) or (self.column is not None and given is not None):
            return
        raise ArgumentError(
            f"split is a {type(self.split).__name__}, not a Split. For row numbers pass "
            "Split.from_indices(train, valid); the name of a column is allowed only for a table."
        )

    def _draw_latest(
        self, train: Rows, missing: Sequence[str], times: Any, embargo: Any | None
    ) -> Split:
        """Take the missing parts from the latest rows of ``train``."""
        sizes = {"valid": 0, **{part: self._size(part) for part in missing}}
        # One index per row, because a list of dates would lose its type in an array.
        each: Any = times
        chosen = each[train] if isinstance(times, np.ndarray) else [each[at] for at in train]
        return Split.by_time(chosen, **sizes, embargo=embargo)

    def _draw(
        self,
        n: int,
        missing: Sequence[str],
        drawn_as: Sequence[str],
        classes: NDArray[Any] | None,
        class_names: Sequence[str] | None,
        groups: NDArray[Any] | None,
    ) -> Split:
        """Draw the missing parts from ``n`` train rows; ``missing[i]`` is named ``drawn_as[i]``.

        Raises:
            ArgumentError: A size is not a number.
            SplitError: A size is invalid. The message names the missing part.
        """
        sizes = {name: self._size(part) for name, part in zip(drawn_as, missing, strict=True)}
        few = ""
        try:
            if groups is not None:
                n_groups = len(np.unique(groups))
                if len(sizes) + 1 < n_groups < n:
                    return Split.by_group(groups, **sizes, seed=self.seed)
                if n_groups < n:
                    few = f"only {n_groups} distinct groups: a group may be in several parts"
            found = Split.random(
                n, **sizes, seed=self.seed, stratify=classes, class_names=class_names
            )
            return replace(found, notes=(*found.notes, few)) if few else found
        except (ArgumentError, SplitError) as error:
            if list(drawn_as) == list(missing):
                raise
            shown = ", ".join(f"{part}={self._size(part)!r:.60}" for part in missing)
            raise type(error)(
                f"{shown} cannot be drawn from the {n:,} train rows. Give a fraction "
                "below 1 (0.2), or a number of rows (int) that leaves rows for train."
            ) from error


def _without_draw(parts: dict[str, Rows], n: int) -> Split:
    """Return a split of the given parts; rows that are in no part are added to test."""
    free = np.ones(n, np.bool_)
    for rows in parts.values():
        free[rows] = False
    test = np.concatenate([parts.get("test", np.empty(0, np.int64)), np.flatnonzero(free)])
    rows = {part: np.sort(test) if part == "test" else parts.get(part, ()) for part in PARTS}
    method = "given" if parts else "all rows"
    return Split(**cast("dict[str, Any]", rows), method=method, for_training=False)


def parse_part_size(text: str) -> int | float:
    """Return the size of a part: digits alone are a number of rows, other numbers a fraction.

    Raises:
        ValueError: The text is no number.

    Example:
        >>> parse_part_size("10"), parse_part_size("0.2")
        (10, 0.2)
    """
    return int(text) if text.strip().isdecimal() else float(text)


def rows_by_part(parts: Sequence[str | None]) -> dict[str, Rows]:
    """Return the rows of each part, given the part of each row; None denotes no part."""
    names = np.array([part or "" for part in parts], dtype=np.str_)
    return {part: np.flatnonzero(names == part) for part in PARTS if part in parts}


def consecutive_rows(sizes: Mapping[str, int]) -> dict[str, Rows]:
    """Return consecutive row numbers for sets of these sizes, one after the other.

    Example:
        >>> {part: rows.tolist() for part, rows in consecutive_rows({"a": 2, "b": 1}).items()}
        {'a': [0, 1], 'b': [2]}
    """
    rows: dict[str, Rows] = {}
    start = 0
    for name, size in sizes.items():
        rows[name] = np.arange(start, start + size)
        start += size
    return rows


def _renumber(parts: Mapping[str, Rows], kept: Rows | None, n: int) -> dict[str, Rows]:
    """Return the rows of each part in row numbers of the kept rows."""
    if kept is None:
        return dict(parts)
    new_row = np.full(n, -1, dtype=np.int64)
    new_row[kept] = np.arange(len(kept))
    found: dict[str, Rows] = {}
    for part, rows in parts.items():
        left = new_row[rows]
        found[part] = left[left >= 0]
        if len(rows) and not len(found[part]):
            raise SplitError(
                f"All {len(rows):,} rows of the {part} part are unusable. Fix them, or give other "
                f"rows for {part}."
            )
    return found


def _is_zero(size: object) -> bool:
    return size is None or (isinstance(size, _NUMBERS) and not isinstance(size, bool) and size == 0)
