"""The rules that infer the kind of one column from its cells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from flambeau.wording import name_some
from flambeau_tabular.column_kind import ColumnKind, Kind
from flambeau_tabular.columns.category_column import levels_of
from flambeau_tabular.columns.cells import (
    LARGEST,
    as_categories,
    as_numbers,
    dictionary_codes,
    is_text,
    moment_text,
    number_of,
    pc,
    value_type,
)
from flambeau_tabular.columns.csv_numbers import unread_style
from flambeau_tabular.columns.moments import as_moments, describe_styles, find_style

_DOUBTFUL, _LIKELY = 0.4, 0.8
# All cells of at least this many rows have to be distinct for an ID.
_FEWEST_IDS = 20
# Whole numbers with at most this many values could be codes of categories.
_FEW_VALUES = 10
# Free text has this many words on average, and this share of the rows, at least, is distinct.
_WORDS, _DISTINCT = 5.0, 0.2
_KEY_NAME = re.compile(r"(^|[^A-Za-z])(?i:id|uuid|guid|key)$|[a-z]I[Dd]$")
_NUMBERED_NAME = re.compile(r"(^|[^a-z])(index|idx|row|nr|no)$", re.IGNORECASE)
_CODE_NAME = re.compile(
    r"(^|[^a-z])(zip|zip ?code|postal|post ?code|plz|area ?code|phone|code)($|[^a-z])",
    re.IGNORECASE,
)
_YEARS = (1800, 2200)
_SAMPLE = 100
# Numbers beside a few other texts, such as "unknown".
_MOSTLY_NUMBERS, _FEWEST_NUMBERS, _FEW_OTHERS = 0.8, 3, 3
_UNREAD = 0.3
_MANY_DIGITS = 40  # longer texts are not examined as numbers or dates


@dataclass(frozen=True)
class _Measured:
    """A column, with what every rule needs.

    Attributes:
        name: Name of the column.
        cells: The train cells.
        rows: Number of cells.
        missing: Number of cells that are missing.
    """

    name: str
    cells: pa.ChunkedArray
    rows: int
    missing: int

    @property
    def known(self) -> int:
        return self.rows - self.missing

    def kind(
        self,
        kind: Kind,
        reason: str,
        found: Mapping[str, Any],
        confidence: float = 1.0,
        style: str = "iso",
    ) -> ColumnKind:
        """Return the kind with its reason and the numbers of the column."""
        if self.missing:
            reason += f"; {self.missing / self.rows:.1%} of the cells are missing"
        evidence = {"rows": self.rows, "missing": self.missing, **found}
        return ColumnKind(kind, reason, evidence, confidence, style=style)

    def constant(self, value: object) -> ColumnKind:
        """Return the kind of a column with one distinct value."""
        if self.missing:  # whether the cell is missing is information
            return self.kind("category", f"the only value is {value}", {"distinct": 1})
        reason = f"all {self.rows:,} rows have the value {value}"
        return self.kind("constant", reason, {"distinct": 1})


def infer_kind(name: str, cells: pa.ChunkedArray) -> ColumnKind:
    """Return the kind of a column, given its train cells (at least one)."""
    kind = value_type(cells)
    rows = len(cells)
    if is_text(kind):
        return _text_kind(name, cells)
    if pa.types.is_dictionary(cells.type):
        return _categorical_kind(name, cells)
    column = _Measured(name, cells, rows, cells.null_count)
    if pa.types.is_null(kind) or column.known == 0:
        return _empty(rows)
    if pa.types.is_boolean(kind):
        distinct = pc.count_distinct(cells).as_py()
        if distinct == 1:
            return column.constant(cells.drop_null()[0].as_py())
        return column.kind("boolean", "True and False", {"distinct": distinct})
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return _date_kind(column, "iso")
    return _number_kind(name, cells)


def _empty(rows: int) -> ColumnKind:
    return ColumnKind("empty", f"all {rows:,} rows are missing", {"rows": rows, "missing": rows})


# ---------------------------------------------------------------- numbers


def _number_kind(name: str, cells: pa.ChunkedArray) -> ColumnKind:
    numbers = as_numbers(cells, name)
    known = numbers[np.abs(numbers) <= LARGEST]  # False for NaN
    column = _Measured(name, cells, len(numbers), len(numbers) - len(known))
    if column.known == 0:
        return _empty(column.rows)
    low, high = float(known.min()), float(known.max())
    if low == high:
        ends = pc.min_max(cells.filter(pc.invert(cells.is_null()))) if abs(low) >= 2**53 else None
        if ends is None or ends["min"] == ends["max"]:
            return column.constant(f"{low:.15g}")
        return _digits_beyond_floats(column, pc.count_distinct(cells).as_py())
    kind, found = cells.type, {"low": low, "high": high}
    if pa.types.is_duration(kind) or pa.types.is_time(kind):
        what = "durations" if pa.types.is_duration(kind) else "times of day"
        return column.kind("number", f"{what}, in seconds", found)
    if not pa.types.is_integer(kind) and not _are_whole(known):
        return column.kind("number", f"numbers from {low:.6g} to {high:.6g}", found)
    if pa.types.is_integer(kind) and max(-low, high) >= 2**53:
        distinct = pc.count_distinct(cells).as_py()  # exact beyond the precision of floats
    else:
        distinct = pc.count_distinct(pa.array(known)).as_py()
    stored = "" if pa.types.is_integer(kind) else f" (stored as {kind})"
    return _whole_kind(column, stored, distinct, int(low), int(high))


def _digits_beyond_floats(column: _Measured, distinct: int) -> ColumnKind:
    reason = (
        f"{distinct:,} distinct whole numbers that differ only in digits that floats do not have"
    )
    kind = "id" if distinct == column.known >= _FEWEST_IDS else "category"
    return column.kind(kind, reason, {"distinct": distinct}, _DOUBTFUL)


_INDEX_NAMES = ("", "Unnamed: 0")
"""Names of the column with the index in a file that pandas wrote, and read again."""


def _are_whole(numbers: np.ndarray) -> bool:
    first = numbers[:1000]  # decides for most columns
    return bool((first == np.floor(first)).all() and (numbers == np.floor(numbers)).all())


def _whole_kind(column: _Measured, stored: str, distinct: int, low: int, high: int) -> ColumnKind:
    name, known = column.name, column.known
    found = {"distinct": distinct, "low": low, "high": high}
    if (low, high) == (0, 1):
        return column.kind("boolean", f"only 0 and 1{stored}", found, _LIKELY)
    span = f"{distinct:,} distinct whole numbers from {low:,} to {high:,} in {known:,} rows{stored}"
    if distinct == known and known >= _FEWEST_IDS:
        if high - low + 1 == known:
            return column.kind("id", f"{span}: they number the rows", found, _LIKELY)
        if name in _INDEX_NAMES:
            reason = f"{span}, each in one row: the index that pandas writes"
            return column.kind("id", reason, found, _LIKELY)
        if _KEY_NAME.search(name) or _NUMBERED_NAME.search(name):
            return column.kind("id", f"{span}, each in one row, and the name", found, _LIKELY)
    if _KEY_NAME.search(name) or _CODE_NAME.search(name):
        reason = f"{span}; by its name they are codes, not amounts. {_otherwise(name, 'number')}"
        return column.kind("category", reason, found, _DOUBTFUL)
    if _YEARS[0] <= low and high <= _YEARS[1] and "year" in name.lower():
        return column.kind("number", f"years from {low} to {high}", found)
    if distinct <= _FEW_VALUES:
        reason = f"{span}; they could be codes. {_otherwise(name, 'category')}"
        return column.kind("number", reason, found, 0.6)
    return column.kind("number", span, found)


def _otherwise(name: str, kind: str) -> str:
    what = {"number": "amounts", "category": "codes", "text": "free text"}[kind]
    return f"For {what} set kinds={{{name!r}: {kind!r}}}"


# ---------------------------------------------------------------- categories and text


def _categorical_kind(name: str, cells: pa.ChunkedArray) -> ColumnKind:
    """Return the kind of a column that is declared as categorical and is not text."""
    codes, texts = as_categories(cells)
    known = np.array([text is not None for text in [*texts, None]])[codes]
    column = _Measured(name, cells, len(cells), int((~known).sum()))
    distinct = len({texts[code] for code in np.unique(codes[known])})
    if distinct == 0:
        return _empty(len(cells))
    if distinct == 1:
        return column.constant(texts[codes[known][0]])
    levels = levels_of(cells)
    kind = "category" if levels is None else "ordered"
    found = column.kind(kind, f"declared as {kind}: {distinct:,} values", {"distinct": distinct})
    return replace(found, levels=levels)


def _text_kind(name: str, cells: pa.ChunkedArray) -> ColumnKind:
    if levels_of(cells) is not None:
        return _categorical_kind(name, cells)
    codes, values = dictionary_codes(cells)
    used = np.flatnonzero(np.bincount(codes[codes >= 0], minlength=len(values)))
    texts = values.take(pa.array(used)).cast(pa.large_string()).unique()
    column = _Measured(name, cells, len(cells), int((codes < 0).sum()))
    if len(texts) == 0:
        return _empty(len(cells))
    if len(texts) == 1:
        return column.constant(repr(texts[0].as_py()))
    return (
        _boolean_text(column, texts)
        or _number_text(column, texts)
        or _date_text(column, texts)
        or _unread_text(column, texts)
        or _words(column, texts)
    )


def _boolean_text(column: _Measured, texts: pa.Array) -> ColumnKind | None:
    shown = sorted(texts[:_SAMPLE].to_pylist())
    if {text.strip().lower() for text in shown} == {"false", "true"}:
        return column.kind("boolean", f"the texts {name_some(shown)}", {"distinct": len(texts)})
    return None


def _number_text(column: _Measured, texts: pa.Array) -> ColumnKind | None:
    """Return the kind of text that is numbers; blank cells are ignored."""
    for part in (texts[:_SAMPLE], texts):  # the sample decides for most columns
        listed = part.to_pylist()
        numbers = [number_of(text) if len(text) <= _MANY_DIGITS else None for text in listed]
        if None in numbers:
            return None
    known = [text.strip() for text in listed if text.strip()]
    if all(number != number for number in numbers):  # noqa: PLR0124
        return None
    seen = f"text in which all {len(texts):,} distinct cells are numbers ({name_some(known, 3)})"
    found = {"distinct": len(texts)}
    if all(text.lstrip("-+").isdecimal() for text in known):
        if len(texts) == column.known >= _FEWEST_IDS:
            return column.kind("id", f"{seen}, each in one row", found, _DOUBTFUL)
        reason = f"{seen}; text with digits only are codes. {_otherwise(column.name, 'number')}"
        return column.kind("category", reason, found, _DOUBTFUL)
    reason = f"{seen}, with decimals. {_otherwise(column.name, 'category')}"
    return column.kind("number", reason, found, _DOUBTFUL)


def _date_text(column: _Measured, texts: pa.Array) -> ColumnKind | None:
    styles = find_style(text[:_MANY_DIGITS] for text in texts[:_SAMPLE].to_pylist())
    styles = styles and find_style(texts.to_pylist())
    if len(styles) == 1:
        return _date_kind(column, styles[0])
    if not styles:
        return None
    reason = (
        f"{len(texts):,} distinct texts that are dates in several forms; choose one: "
        f"{describe_styles(column.name, styles)}"
    )
    return column.kind("category", reason, {"distinct": len(texts)}, 0.2)


def _date_kind(column: _Measured, style: str) -> ColumnKind:
    moments = as_moments(column.cells, column.name, style)
    known = moments.microseconds[~moments.missing]
    low, high = map(moment_text, (known.min(), known.max()))
    if low == high:
        return column.constant(low)
    read = "" if style == "iso" else f", read as {style}"
    zone = ""
    if moments.zoned:
        zone = ", with time zone, converted to UTC"
    reason = f"dates from {low} to {high}{read}{zone}"
    return column.kind("date", reason, {"low": low, "high": high}, style=style)


def _unread_text(column: _Measured, texts: pa.Array) -> ColumnKind | None:
    """Return a doubtful kind if the texts are numbers or times that have to be converted."""
    sample = [text for text in texts[:_SAMPLE].to_pylist() if text.strip()]
    numbers = [number_of(text) if len(text) <= _MANY_DIGITS else None for text in sample]
    if len(sample) - numbers.count(None) >= max(_MOSTLY_NUMBERS * len(sample), _FEWEST_NUMBERS):
        others = [text for text in texts.to_pylist() if number_of(text) is None]
        if len(others) > _FEW_OTHERS:
            return None
        why = (
            f"all but {name_some(map(repr, others))} are numbers: leave these cells empty, and the "
            "column is one of numbers"
        )
    elif (what := unread_style(pa.chunked_array([texts]))) is not None:
        why = (
            f"they are {what} ({name_some(sample[:3])}, …), whose size the model does not know: "
            "convert the column to numbers before"
        )
    else:
        return None
    found = _words(column, texts)
    return replace(found, reason=f"{found.reason}; {why}", confidence=_UNREAD)


def _words(column: _Measured, texts: pa.Array) -> ColumnKind:
    distinct, known = len(texts), column.known
    words = pc.mean(pc.count_substring_regex(texts, r"\S+")).as_py()
    found = {"distinct": distinct, "words": round(words, 1)}
    seen = f"{distinct:,} distinct texts in {known:,} rows"
    if words >= _WORDS and distinct >= max(_FEW_VALUES, _DISTINCT * known):
        return column.kind("text", f"{seen} of {words:.1f} words on average", found)
    if distinct == known >= _FEWEST_IDS:
        return column.kind("id", f"{seen}: each names one row", found, _LIKELY)
    return column.kind("category", seen, found)
