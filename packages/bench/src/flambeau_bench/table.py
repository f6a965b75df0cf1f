"""Verdicts as rows of text, for a terminal and for a page."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flambeau.report import text_table
from flambeau_bench.case import FORMS
from flambeau_bench.interval import LEAST_PAIRS

COLUMNS = ("case", "variant", "median", "95% interval", "noise floor", "unit", "bar", "verdict")

Row = tuple[str, ...]


def rows(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """A row for every verdict and every case that was skipped, in the order of ``records``."""
    found: list[Row] = []
    for record in records:
        if record["kind"] == "skipped":
            found.append((record["case"], "", "", "", "", "", "", f"skipped: {record['why']}"))
        elif record["kind"] == "result":
            found.append(_row(record))
    return found


def table(records: Iterable[Mapping[str, Any]]) -> str:
    """The rows for a terminal."""
    return text_table(list(COLUMNS), [list(row) for row in rows(records)])


def markdown(records: Iterable[Mapping[str, Any]]) -> str:
    """The rows as a table of Markdown."""
    return markdown_table(COLUMNS, rows(records))


def markdown_table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Any table of Markdown; bars in the cells are escaped."""
    cells = [list(columns), ["---"] * len(columns), *map(list, lines)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in cells
    )


def number(value: float) -> str:
    """Three digits that count, or whole numbers as they are: 231, 23.1, 0.231."""
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 1_000 else f"{value:,.0f}"


def span(interval: Mapping[str, float] | None) -> str:
    """An interval as "low to high"; a dash where there is none."""
    if interval is None:
        return "–"
    text = f"{number(interval['low'])} to {number(interval['high'])}"
    # Below that many pairs it is their range, which says less.
    pairs = interval["pairs"]
    if pairs >= LEAST_PAIRS:
        return text
    return f"{text} ({pairs} pair{'s' * (pairs > 1)})"


def question_of(record: Mapping[str, Any]) -> str:
    """What the figure of a verdict is, in words."""
    return f"{record['question']['figure']}, {FORMS[record['question']['form']]}"


def _row(record: Mapping[str, Any]) -> Row:
    interval, question = record["interval"], record["question"]
    return (
        record["case"],
        record["variant"],
        "–" if interval is None else number(interval["median"]),
        span(interval),
        span(record["noise_floor"]),
        question["unit"],
        _bar(question),
        _verdict(record),
    )


def _bar(question: Mapping[str, Any]) -> str:
    if question["within_floor"]:
        return "noise"
    if question["limit"] is None:
        return "–"
    return f"{'≤' if question['at_most'] else '≥'} {number(question['limit'])}"


def _verdict(record: Mapping[str, Any]) -> str:
    text: str = record["verdict"]
    if text == "GATE FAILED":
        return f"{text}: {record['gate']['says']}"
    if record["voided"]:
        text += f", {len(record['voided'])} of {record['pairs']} pairs void"
    return text
