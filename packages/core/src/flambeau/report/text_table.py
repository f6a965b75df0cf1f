"""``text_table``: aligned tables for the terminal."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Sequence

from flambeau.errors import InputError

_GAP = "  "
_NARROWEST = 8  # minimum width of a column in characters


def text_table(
    headers: Sequence[str], rows: Sequence[Sequence[object]], *, width: int | None = None
) -> str:
    """Return a table with aligned columns: numbers right, text left, a line below the headers.

    Args:
        headers: One per column.
        rows: Cells by row. Floats have four significant digits, None is an empty cell; everything
            else is printed with ``str``.
        width: Maximum line length in characters; the widest columns are wrapped to fit, down to 8
            characters each. None does not wrap.

    Raises:
        InputError: A row and the headers differ in length.

    Example:
        >>> print(text_table(["model", "accuracy"], [["majority", 0.1], ["ours", 0.98765]]))
        model     accuracy
        ────────  ────────
        majority       0.1
        ours        0.9877
    """
    for number, row in enumerate(rows):
        if len(row) != len(headers):
            raise InputError(
                f"Row {number} of the table has {len(row)} cells for {len(headers)} headers "
                f"({', '.join(headers)}). Use None for an empty cell."
            )
    if not headers:
        return ""
    texts = [[_text(cell) for cell in row] for row in rows]
    widths = _column_widths([list(headers), *texts], width)
    right = [_is_numeric([row[i] for row in rows]) for i in range(len(headers))]
    lines = _lines(headers, widths, right)
    lines.append(_GAP.join("─" * size for size in widths))
    for row in texts:
        lines += _lines(row, widths, right)
    return "\n".join(lines)


def _text(cell: object) -> str:
    if cell is None:
        return ""
    if isinstance(cell, float):
        return f"{cell:.4g}"
    return str(cell).expandtabs(4)


def _is_numeric(cells: Sequence[object]) -> bool:
    numbers = [isinstance(cell, int | float) and not isinstance(cell, bool) for cell in cells]
    empty = [cell is None for cell in cells]
    return any(numbers) and all(n or e for n, e in zip(numbers, empty, strict=True))


def _width_of(text: str) -> int:
    """Return the terminal columns of ``text``: wide characters take two, combining marks none."""
    if text.isascii():
        return len(text)
    wide = sum(unicodedata.east_asian_width(character) in "WF" for character in text)
    return len(text) + wide - sum(unicodedata.combining(character) > 0 for character in text)


def _column_widths(rows: Sequence[Sequence[str]], width: int | None) -> list[int]:
    """Return the width of each column, with the widest ones reduced until a line fits."""
    widths = [
        max((_width_of(line) for row in rows for line in row[i].splitlines()), default=0)
        for i in range(len(rows[0]))
    ]
    if width is None:
        return widths
    excess = sum(widths) + len(_GAP) * (len(widths) - 1) - width
    while excess > 0 and max(widths) > _NARROWEST:
        widths[widths.index(max(widths))] -= 1
        excess -= 1
    return widths


def _lines(row: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> list[str]:
    """Return the printed lines of one row."""
    cells = [_wrapped(text, width) for text, width in zip(row, widths, strict=True)]
    lines: list[str] = []
    for number in range(max(map(len, cells))):
        parts: list[str] = []
        for cell, width, to_right in zip(cells, widths, right, strict=True):
            text = cell[number] if number < len(cell) else ""
            space = " " * (width - _width_of(text))
            parts.append(space + text if to_right else text + space)
        lines.append(_GAP.join(parts).rstrip())
    return lines


def _wrapped(text: str, width: int) -> list[str]:
    lines: list[str] = []
    for line in text.splitlines():
        if _width_of(line) <= width:
            lines.append(line)
        elif _width_of(line) == len(line):
            lines += textwrap.wrap(line, width, break_on_hyphens=False)
        else:
            lines += _wrapped_by_width_of(line, width)
    return lines or [""]


def _wrapped_by_width_of(line: str, width: int) -> list[str]:
    """Break between any two characters, because text in wide characters has no spaces."""
    lines = [""]
    for character in line:
        if _width_of(lines[-1] + character) > width:
            lines.append("")
        lines[-1] += character
    return lines


def as_count(value: float) -> float:
    """Return a number of samples, or a sum of their weights: an int if it is a whole number."""
    return int(value) if value == int(value) else value


def count_text(value: float) -> str:
    """Return a number of samples, or a sum of their weights, as text."""
    value = as_count(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"
