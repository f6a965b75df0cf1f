"""Tables of ``summary`` and ``step_through``, as text and as HTML."""

from __future__ import annotations

import html
from collections.abc import Collection, Sequence

Rows = Sequence[Sequence[str]]


def text_rows(headers: Sequence[str], rows: Rows, right: Collection[str] = ()) -> list[str]:
    """Return the lines of a table with aligned columns, with a line below the headers.

    Args:
        headers: One per column.
        rows: Cells by row.
        right: Headers of the columns that are aligned right.
    """
    widths = [max(len(row[i]) for row in (headers, *rows)) for i in range(len(headers))]
    lines = [_aligned(row, widths, headers, right) for row in (headers, *rows)]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return lines


def html_table(headers: Sequence[str], rows: Rows, right: Collection[str] = ()) -> str:
    """Return the table as HTML, with escaped cells."""
    sides = ["right" if header in right else "left" for header in headers]
    head = "".join(f"<th>{html.escape(header)}</th>" for header in headers)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:{side}">{html.escape(cell)}</td>'
            for side, cell in zip(sides, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _aligned(
    row: Sequence[str], widths: Sequence[int], headers: Sequence[str], right: Collection[str]
) -> str:
    cells = (
        cell.rjust(width) if header in right else cell.ljust(width)
        for header, cell, width in zip(headers, row, widths, strict=True)
    )
    return "  ".join(cells).rstrip()
