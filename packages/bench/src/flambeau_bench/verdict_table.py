"""Verdicts as tables for a terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flambeau.report import text_table
from flambeau_bench.case import FORMS
from flambeau_bench.interval import MIN_PAIRS

COLUMNS = ("case", "variant", "median", "95% interval", "noise floor", "unit", "limit", "verdict")

Row = tuple[str, ...]


def verdict_rows(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return one row per verdict and per skipped case, in the order of ``records``."""
    found: list[Row] = []
    for record in records:
        if record["kind"] == "skipped":
            reason, variant = f"skipped: {record['reason']}", record.get("variant", "")
            found.append((record["case"], variant, "", "", "", "", "", reason))
        elif record["kind"] == "result":
            found.append(_row(record))
    return found


def terminal_table(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the verdicts as a table for a terminal."""
    return text_table(list(COLUMNS), [list(row) for row in verdict_rows(records)])


def verdicts_as_markdown(records: Iterable[Mapping[str, Any]]) -> str:
    """Return the verdicts as a Markdown table."""
    return markdown_table(COLUMNS, verdict_rows(records))


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table; vertical bars in cells are escaped."""
    cells = [list(columns), ["---"] * len(columns), *map(list, rows)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells
    )


def number(value: float) -> str:
    """Return three significant digits as text, or a whole number unchanged: 231, 23.1, 0.231."""
    if value == int(value) and abs(value) < 1e6:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) < 1_000 else f"{value:,.0f}"


def interval_text(interval: Mapping[str, float] | None) -> str:
    """Return an interval as "low to high"; a dash for None."""
    if interval is None:
        return "–"
    text = f"{number(interval['low'])} to {number(interval['high'])}"
    # With few pairs the interval is only their range, so their number is shown.
    pairs = interval["pairs"]
    if pairs >= MIN_PAIRS:
        return text
    return f"{text} ({pairs} pair{'s' * (pairs > 1)})"


def figure_text(record: Mapping[str, Any]) -> str:
    """Return the name of a verdict's figure and how it is computed from a pair."""
    return f"{record['criterion']['figure']}, {FORMS[record['criterion']['form']]}"


def _row(record: Mapping[str, Any]) -> Row:
    interval, criterion = record["interval"], record["criterion"]
    return (
        record["case"],
        record["variant"],
        "–" if interval is None else number(interval["median"]),
        interval_text(interval),
        interval_text(record["noise_floor"]),
        criterion["unit"],
        _limit(criterion),
        _verdict(record),
    )


def _limit(criterion: Mapping[str, Any]) -> str:
    if criterion["within_floor"]:
        return "noise floor"
    if criterion["limit"] is None:
        return "–"
    return f"{'≤' if criterion['at_most'] else '≥'} {number(criterion['limit'])}"


def _verdict(record: Mapping[str, Any]) -> str:
    text: str = record["verdict"]
    if text == "GATE FAILED":
        return f"{text}: {record['gate']['reason']}"
    if record["invalid_pairs"]:
        text += f", {len(record['invalid_pairs'])} of {record['pairs']} pairs invalid"
    return text
