"""Tables of a plan: aligned text, and HTML for notebooks."""

from __future__ import annotations

import json
import shutil
import textwrap
from collections.abc import Sequence
from typing import Any

from flambeau.plan.choice import Choice

LOW_CONFIDENCE = 0.5
"""Choices with lower confidence are marked, and a strict plan raises an error for them."""

_UNSURE_NOTE = "? marks a choice with low confidence: check it first."

_GAP = "  "
# Overrides the notebook default of right-aligned, vertically centred cells.
_CELL = "text-align: left; vertical-align: top; padding: 2px 8px"
_UNSURE = ' style="background: rgba(255, 190, 0, 0.2)"'
_NARROWEST = 60
# Most overrides start with the same text; the table shows it once, below.
_USUAL, _SHORT = "Learner(data, choices={", "choices={"


def value_text(value: Any) -> str:
    """Return a value as short text: strings without quotes, numbers in their shortest form."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)


def text(choices: Sequence[Choice], width: int | None = None) -> str:
    """Return a text table: key, value, source, and the reason with how to change the value."""
    width = max(_NARROWEST, width or shutil.get_terminal_size().columns)
    rows = [(choice.key, value_text(choice.value), _source(choice)) for choice in choices]
    # The value takes at most a fifth of the line, the reason most of it; both wrap.
    limits = (24, max(12, width // 5), 9)
    heads = ("key", "value", "source")
    columns = [
        min(limit, max(len(head), *(len(row[i]) for row in rows), 0))
        for i, (head, limit) in enumerate(zip(heads, limits, strict=True))
    ]
    columns.append(width - sum(columns) - len(_GAP) * len(columns))
    head = [[name] for name in heads] + [_wrap("reason → how to change", columns[-1])]
    lines = [*_row(head, columns), "─" * width]
    for choice, row in zip(choices, rows, strict=True):
        cells = [_wrap(cell, size) for cell, size in zip(row, columns, strict=False)]
        cells.append(_reason_lines(choice, columns[-1]))
        lines += _row(cells, columns)
    lines.append("─" * width)
    if any(choice.confidence < LOW_CONFIDENCE for choice in choices):
        lines += _wrap(_UNSURE_NOTE, width)
    if any(choice.override.startswith(_USUAL) for choice in choices):
        lines += _wrap(f"{_SHORT}...}} is an argument: {_USUAL}...}}).", width)
    return "\n".join(lines)


def html(choices: Sequence[Choice]) -> str:
    """Return the table as HTML for a notebook."""
    from html import escape

    heads = ("key", "value", "source", "reason", "how to change it")
    rows = [
        f"<tr{_UNSURE if choice.confidence < LOW_CONFIDENCE else ''}>"
        + "".join(
            f'<td style="{_CELL}">{escape(cell)}</td>'
            for cell in (
                choice.key,
                value_text(choice.value),
                _source(choice),
                _reason(choice),
                choice.override,
            )
        )
        + "</tr>"
        for choice in choices
    ]
    head = "".join(f'<th style="{_CELL}">{name}</th>' for name in heads)
    page = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    if any(choice.confidence < LOW_CONFIDENCE for choice in choices):
        page += f"<p>{_UNSURE_NOTE}</p>"
    return page


def _source(choice: Choice) -> str:
    return choice.source + (" ?" if choice.confidence < LOW_CONFIDENCE else "")


def _reason(choice: Choice) -> str:
    if choice.confidence < LOW_CONFIDENCE:
        return f"{choice.reason} (confidence {choice.confidence:.2f})"
    return choice.reason


def _reason_lines(choice: Choice, width: int) -> list[str]:
    """Return the reason and how to change the value, on one line if both fit, else on two."""
    change = choice.override
    if change.startswith(_USUAL):
        change = _SHORT + change.removeprefix(_USUAL).removesuffix(")")
    change = f"→ {change}"
    line = f"{_reason(choice)} {change}"
    if len(line) <= width:
        return [line]
    return _wrap(_reason(choice), width) + _wrap(change, width)


def _wrap(cell: str, width: int) -> list[str]:
    return textwrap.wrap(cell, width, break_on_hyphens=False) or [""]


def _row(cells: Sequence[Sequence[str]], columns: Sequence[int]) -> list[str]:
    """Return the lines of a row from the lines of each cell."""
    height = max(map(len, cells))
    return [
        _line([cell[i] if i < len(cell) else "" for cell in cells], columns) for i in range(height)
    ]


def _line(cells: Sequence[str], columns: Sequence[int]) -> str:
    padded = [cell.ljust(size) for cell, size in zip(cells, columns, strict=True)]
    return _GAP.join(padded).rstrip()
