"""Numbers in text files: decimal commas, separators of thousands, exponents, leading zeros."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pyarrow as pa

from flambeau.data.reading import Reading
from flambeau_tabular.columns.cells import pc
from flambeau_tabular.csv_options import Decimal

_DOUBTFUL = 0.4
_SAMPLE = 200
_WHOLE = r"(?:0|[1-9][0-9]*)"  # 007 is a code
_EXPONENT = r"(?:[eE][-+]?[0-9]{1,3})?"
_GROUPS = r"[1-9][0-9]{0,2}"
_PLAIN = rf"[-+]?(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+){_EXPONENT}|[-+]?(?i:inf|infinity)"
_INTEGER = r"[-+]?(?:0|[1-9][0-9]{0,17})"  # fits 64 bits
_LONG_INTEGER = rf"[-+]?{_WHOLE}"
_CODE = rf"{_WHOLE}(?:[eE][0-9]+)?"  # programs write a float as 1e+05, not as 1e5
_EXCEL = r"[-+]?[0-9](?:[.,][0-9]+)?E\+[0-9]{2,}"
# 1,5 or 1.234,5 — and what only a decimal comma can be.
_COMMA = rf"[-+]?(?:{_WHOLE}|{_GROUPS}(?:\.[0-9]{{3}})+)(?:,[0-9]+)?{_EXPONENT}"
_SURE_COMMA = (
    rf"[-+]?(?:{_WHOLE},(?:[0-9]{{1,2}}|[0-9]{{4,}})|(?:0|[1-9][0-9]{{3,}}),[0-9]+"
    rf"|{_GROUPS}(?:\.[0-9]{{3}})+,[0-9]+|{_WHOLE},[0-9]+[eE].*)"
)
# 1,234 or 1,234.5 — and what only a separator of thousands can be.
_POINT = rf"[-+]?(?:{_WHOLE}|{_GROUPS}(?:,[0-9]{{3}})+)(?:\.[0-9]+)?"
_SURE_POINT = rf"[-+]?{_GROUPS}(?:(?:,[0-9]{{3}}){{2,}}|(?:,[0-9]{{3}})+\.[0-9]+|\.[0-9]+)"
_DOTS = rf"[-+]?(?:0|{_GROUPS}(?:\.[0-9]{{3}})*)"
_SURE_DOTS = r".*\..*\..*"
# 1 234,5 or 1'234.5
GROUPING = " '\u2019\u00a0\u202f"
"""Spaces and apostrophes that separate thousands."""
_SPACES = f"[{GROUPING}]"
_SPACED = rf"[-+]?(?:{_WHOLE}|{_GROUPS}(?:{_SPACES}[0-9]{{3}})+)(?:[.,][0-9]+)?"
_CANDIDATE = rf"[-+]?(?:[0-9.,]|{_SPACES})*[0-9]\.?{_EXPONENT}|[-+]?(?i:inf|infinity)"

# $1.50, 12 %, 3,50 EUR, (4.00): what is around the digits of an amount, and the whole of it.
_UNIT = r"^\s*[-+\x{2212}(]?\s*(?:\p{Sc}|[A-Z]{3}\b)?\s*|\s*(?:%|\p{Sc}|[A-Z]{3})?\)?-?\s*$"
_AMOUNT = (
    r"\s*[-+\x{2212}(]?\s*(?:\p{Sc}|[A-Z]{3}\b)?\s*[-+]?[0-9](?:[0-9.,]|"
    + _SPACES
    + r")*\s*(?:%|\p{Sc}|[A-Z]{3})?\)?-?\s*"
)
_CLOCK = r"\s*(?:[01]?[0-9]|2[0-4]):[0-5][0-9](?::[0-5][0-9](?:\.[0-9]+)?)?\s*(?i:am|pm)?\s*"


@dataclass(frozen=True)
class NumberStyle:
    """How the numbers of a column are written.

    Attributes:
        decimal: The decimal separator.
        thousands: The separators of thousands, which are removed; "" for none.
    """

    decimal: Decimal = "."
    thousands: str = ""


@dataclass(frozen=True)
class FoundStyle:
    """The style of a column, and whether other styles are possible.

    Attributes:
        style: The style; None if it depends on the decimal separator of the file.
        sure: Whether only this style reads all cells.
    """

    style: NumberStyle | None
    sure: bool = True


def find_number_style(cells: pa.ChunkedArray) -> FoundStyle | None:
    """Return how the numbers of a column are written; None if not all cells are numbers.

    Args:
        cells: Trimmed text without missing cells.
    """
    if len(cells) == 0 or not matches(cells[:_SAMPLE], _CANDIDATE):
        return None
    if matches(cells, _PLAIN):
        return _plain_style(cells)
    comma, point = matches(cells, _COMMA), matches(cells, _POINT)
    if comma and point:
        return FoundStyle(None, False)
    if comma:
        sure = contains(cells, _SURE_COMMA) or contains(cells, _SURE_DOTS)
        return FoundStyle(NumberStyle(",", "."), sure)
    if point:
        return FoundStyle(NumberStyle(".", ","), contains(cells, _SURE_POINT))
    if matches(cells, _SPACED):
        has_comma, has_point = contains(cells, ".*,.*"), contains(cells, r".*\..*")
        if not (has_comma and has_point):
            return FoundStyle(NumberStyle("," if has_comma else ".", GROUPING))
    return None


def given_style(cells: pa.ChunkedArray, style: NumberStyle) -> FoundStyle | None:
    """Return the style if it reads all cells as numbers; else None.

    Args:
        cells: Trimmed text without missing cells.
        style: The separators that the user gave; thousands may be "".
    """
    if len(cells) == 0:
        return None
    group, decimal = (re.escape(each) for each in (style.thousands, style.decimal))
    whole = rf"(?:{_WHOLE}|{_GROUPS}(?:{group}[0-9]{{3}})+)" if group else _WHOLE
    number = rf"[-+]?(?:{whole}(?:{decimal}[0-9]*)?|{decimal}[0-9]+){_EXPONENT}"
    if not matches(cells, rf"{number}|[-+]?(?i:inf|infinity)"):
        return None
    if matches(cells, _LONG_INTEGER) and not matches(cells, _INTEGER):
        return None  # more digits than a number holds: an ID
    return FoundStyle(style)


def _plain_style(cells: pa.ChunkedArray) -> FoundStyle | None:
    """Return the style of numbers without separators of thousands; None if they are codes."""
    is_whole = matches(cells, _LONG_INTEGER)
    if not is_whole and matches(cells, _CODE):
        return None  # 12, 1e5: codes
    if is_whole and not matches(cells, _INTEGER):
        return None  # more digits than a number holds: an ID
    dots_could_group = not is_whole and matches(cells, _DOTS)
    return FoundStyle(NumberStyle(), not dots_could_group)


def unread_style(cells: pa.ChunkedArray) -> str | None:
    """Return what texts are that a person reads as numbers; None if they are something else.

    Args:
        cells: Text without missing cells.
    """
    sample = cells[:_SAMPLE]
    if matches(sample, _CLOCK):
        return "times of day" if matches(cells, _CLOCK) else None
    if not matches(sample, _AMOUNT):
        return None
    bare = pc.replace_substring_regex(cells, _UNIT, "")
    if find_number_style(pc.utf8_trim_whitespace(bare)) is None:
        return None
    return "numbers with a unit, a sign or separators of their own"


def to_numbers(cells: pa.ChunkedArray, style: NumberStyle) -> pa.ChunkedArray:
    """Return the cells as int64 if all are whole, else as float64; missing cells stay missing."""
    for separator in style.thousands:
        cells = pc.replace_substring(cells, separator, "")
    if style.decimal == ",":
        cells = pc.replace_substring(cells, ",", ".")
    if matches(cells.drop_null(), _INTEGER):
        return pc.replace_substring_regex(cells, r"^\+", "").cast(pa.int64())
    return cells.cast(pa.float64())


def excel_reading(cells: pa.ChunkedArray, name: str) -> Reading | None:
    """Return a doubt if numbers are written as Excel writes long ones, which loses digits."""
    if not matches(cells, rf"{_EXCEL}|{_LONG_INTEGER}") or not contains(cells, _EXCEL):
        return None
    shown = next(text for text in cells.to_pylist() if "E" in text)
    return Reading(
        "columns",
        f"Column {name!r} has numbers such as {shown}, as Excel writes whole numbers of many "
        "digits: digits may be lost, and IDs may be equal that were different.",
        {"example": shown},
        confidence=_DOUBTFUL,
        override="Format the column as a number without exponent in Excel, and save it again.",
    )


def matches(cells: pa.ChunkedArray, pattern: str) -> bool:
    """Return whether all cells match the pattern as a whole."""
    found = pc.all(pc.match_substring_regex(cells, f"^(?:{pattern})$"), min_count=0)
    return bool(found.as_py())


def contains(cells: pa.ChunkedArray, pattern: str) -> bool:
    """Return whether a cell matches the pattern as a whole."""
    found = pc.any(pc.match_substring_regex(cells, f"^(?:{pattern})$"), min_count=0)
    return bool(found.as_py())
