"""``CategoryColumn``: encode a column of categories by value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flambeau.errors import InputError
from flambeau.wording import name_some
from flambeau_tabular.columns.cells import as_categories, canonical_text, number_of, value_type
from flambeau_tabular.columns.column_check import ColumnCheck

MISSING, UNKNOWN, FIRST = 0, 1, 2
"""Codes of a missing and an unknown category, and of the first category of `values`."""

_BOOLEANS = ("False", "True")


@dataclass(frozen=True)
class CategoryColumn:
    """A column of categories as codes: 0 missing, 1 unknown, then `values` from 2 on.

    A missing cell is unknown, too, if train has no missing cells: a model has learned what to
    expect of unknown categories, but nothing of the code 0.

    A cell is compared by its text, which is the same for 1 and 1.0; else by its number, if exactly
    one category has this number: 7 is the category "007". A boolean column has the values "False"
    and "True", and takes 0, 1, "true" and "false" as such.

    Attributes:
        name: Name of the column.
        kind: "category", "ordered" or "boolean".
        values: Text of the categories: in the given order if ordered, else sorted.
        missing: Share of missing cells in train.
        rare: Share of cells in train that were too rare to have a code.
    """

    name: str
    kind: Literal["category", "ordered", "boolean"]
    values: tuple[str, ...]
    missing: float
    rare: float

    @classmethod
    def fit(
        cls,
        name: str,
        cells: pa.ChunkedArray,
        rows: NDArray[np.int64] | None,
        kind: Literal["category", "ordered", "boolean"],
        *,
        levels: Sequence[str] | None = None,
        min_count: int = 1,
        max_categories: int | None = None,
    ) -> CategoryColumn:
        """Return the column fitted on these rows.

        Args:
            name: Name of the column.
            cells: All cells.
            rows: Positions of the train rows; None for all.
            kind: "category", "ordered" or "boolean".
            levels: Text of the categories of an ordered column in their order.
            min_count: Categories with fewer train rows are unknown; not applied to ``levels``.
            max_categories: Only this many of the most frequent categories have a code.

        Raises:
            InputError: A boolean column has other cells, or an ordered column has text that is not
                in ``levels``, or text without ``levels``.
        """
        codes, texts = as_categories(cells)
        codes = codes if rows is None else codes[rows]
        counted = np.bincount(codes[codes >= 0], minlength=len(texts))
        counts: dict[str, int] = {}
        for text, count in zip(texts, counted.tolist(), strict=True):
            if text is not None and count:
                counts[text] = counts.get(text, 0) + count
        if kind == "boolean":
            values = _BOOLEANS
            _refuse(name, [each for each in counts if _boolean(each) is None], "True or False")
        elif levels is not None:
            values = tuple(dict.fromkeys(levels))
            code_of = cls(name, kind, values, 0.0, 0.0).code
            unknown = [each for each in counts if code_of(each) == UNKNOWN]
            _refuse(name, unknown, f"one of {name_some(map(repr, values), 10)}")
        else:
            if kind == "ordered":
                _refuse(name, [each for each in counts if number_of(each) is None], "a number")
            kept = _kept(counts, min_count, max_categories)
            values = tuple(sorted(_as_numbers(kept)))
            if kind == "ordered":
                values = tuple(sorted(values, key=lambda text: number_of(text) or 0.0))
        known = sum(counts.values())
        column = cls(name, kind, values, 1.0 - known / max(len(codes), 1), 0.0)
        rare = sum(count for text, count in counts.items() if column.code(text) == UNKNOWN)
        return cls(name, kind, values, column.missing, rare / max(len(codes), 1))

    @property
    def cardinality(self) -> int:
        """Number of codes, with those for missing and unknown."""
        return len(self.values) + FIRST

    def code(self, text: str | None) -> int:
        """Return the code of the text of a cell."""
        if text is None:
            return MISSING
        if self.kind == "boolean":
            text = _boolean(text) or text
        code = self._codes.get(text)
        if code is not None:
            return code
        number = _number_text(text)
        return UNKNOWN if number is None else self._codes_of_numbers.get(number, UNKNOWN)

    @cached_property
    def _codes(self) -> dict[str, int]:
        return {text: code for code, text in enumerate(self.values, start=FIRST)}

    @cached_property
    def _codes_of_numbers(self) -> dict[str, int]:
        found: dict[str, list[int]] = {}
        for text, code in self._codes.items():
            number = _number_text(text)
            if number is not None:
                found.setdefault(number, []).append(code)
        return {number: codes[0] for number, codes in found.items() if len(codes) == 1}

    def encode(self, cells: pa.ChunkedArray) -> NDArray[np.int32]:
        """Return the codes ``(n,)``."""
        codes = self._found(cells)
        return codes if self.missing else np.where(codes == MISSING, np.int32(UNKNOWN), codes)

    def _found(self, cells: pa.ChunkedArray) -> NDArray[np.int32]:
        """Return the codes ``(n,)``, 0 for all missing cells."""
        positions, texts = as_categories(cells)
        # The last one is that of the position -1.
        table = np.array([*map(self.code, texts), MISSING], dtype=np.int32)
        return table[positions]

    def check(self, cells: pa.ChunkedArray) -> ColumnCheck:
        """Return the shares of missing cells and of unknown categories."""
        codes = self._found(cells)
        return ColumnCheck.of(self.kind, codes == MISSING, unseen=codes == UNKNOWN)

    def to_json(self) -> dict[str, Any]:
        """Return the attributes as JSON values."""
        return {**asdict(self), "values": list(self.values)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> CategoryColumn:
        """Return the column of `to_json`."""
        return cls(**{**values, "values": tuple(values["values"])})


def levels_of(cells: pa.ChunkedArray) -> tuple[str, ...] | None:
    """Return the categories of an ordered categorical column in their order, else None."""
    if not (pa.types.is_dictionary(cells.type) and cells.type.ordered and cells.num_chunks):
        return None
    _, texts = as_categories(cells)
    return tuple(text for text in texts if text is not None)


def _kept(counts: dict[str, int], min_count: int, most: int | None) -> list[str]:
    frequent = [text for text, count in counts.items() if count >= min_count]
    if most is None or len(frequent) <= most:
        return frequent
    return sorted(frequent, key=lambda text: (-counts[text], text))[:most]


def _as_numbers(texts: list[str]) -> list[str]:
    """Return the texts as canonical numbers if all are numbers that stay different.

    Then "1.0" in a file is the category 1 of a frame. Texts with leading zeros stay as they are.
    """
    numbers = [_number_text(text) for text in texts]
    coded = any(text.lstrip("-+")[:1] == "0" and text.lstrip("-+")[1:2].isdigit() for text in texts)
    if coded or None in numbers or len(set(numbers)) < len(texts):
        return texts
    return [number for number in numbers if number is not None]


def _number_text(text: str) -> str | None:
    number = number_of(text)
    if number is None:
        return None
    # Integers of any length stay exact.
    return str(int(text)) if text.strip().lstrip("-+").isdecimal() else canonical_text(number)


def _boolean(text: str) -> str | None:
    lower = text.strip().lower()
    if lower in ("false", "true"):
        return lower.capitalize()
    number = number_of(text)
    return _BOOLEANS[int(number)] if number in (0.0, 1.0) else None


def _refuse(name: str, texts: Sequence[str], wanted: str) -> None:
    if texts:
        shown = name_some(map(repr, sorted(texts)))
        raise InputError(
            f"Column {name!r} has {len(texts):,} values that are not {wanted}: {shown}. Correct "
            f"the cells, or change kinds[{name!r}]: 'category', or a list of all values in order."
        )


def is_numeric(cells: pa.ChunkedArray) -> bool:
    """Return whether the cells are integers, floats or decimals."""
    kind = value_type(cells)
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
