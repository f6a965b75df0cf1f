"""The section of a report on a case with peers: a table per row, one line per library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flambeau_bench.peers.peer import FLAMBEAU, PLAIN
from flambeau_bench.verdict_table import interval_text, markdown_table, number

_AGAINST = f": {FLAMBEAU} against "


def peer_tables(case: str, records: Sequence[Mapping[str, Any]]) -> str:
    """Return the Markdown of a case's tables; empty if ``records`` has none of its results.

    Args:
        case: Name of the case.
        records: Records of all cases.
    """
    results = [r for r in records if r["case"] == case and r["kind"] == "result"]
    absent = [r for r in records if r["case"] == case and r["kind"] == "skipped"]
    rows = dict.fromkeys(record["variant"].partition(": ")[0] for record in results)
    parts = [f"## {case}"] if results or absent else []
    for row in rows:
        parts += [f"### {row}", _table([r for r in results if r["variant"].startswith(f"{row}: ")])]
    versions = _versions([r for r in records if r["case"] == case and r["kind"] == "run"])
    if versions:
        parts.append(markdown_table(("side", "versions"), versions))
    if absent:
        reasons = dict.fromkeys((r.get("variant", ""), r["reason"]) for r in absent)
        parts.append(markdown_table(("absent", "reason"), reasons))
    return "\n\n".join(parts)


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    """Return overheads over plain PyTorch, and flambeau against each library, cheapest first."""
    overheads = [r for r in results if _AGAINST not in r["variant"]]
    against = [r for r in results if _AGAINST in r["variant"]]
    of_side: dict[str, list[Mapping[str, Any]]] = {}
    for record in overheads:
        of_side.setdefault(record["candidate"], []).append(record)
    for record in against:
        of_side.setdefault(record["baseline"], [])
    units = list(dict.fromkeys(record["criterion"]["unit"] for record in overheads))
    compared = list(dict.fromkeys(record["criterion"]["unit"] for record in against))
    columns = (
        "library",
        *(f"{unit} over {PLAIN}" for unit in units),
        *(f"{FLAMBEAU} against it, {unit}" for unit in compared),
    )
    lines = [
        (
            side,
            *(_cell(found, unit) for unit in units),
            *(_cell([r for r in against if r["baseline"] == side], unit) for unit in compared),
        )
        for side, found in sorted(of_side.items(), key=lambda item: _median(item[1]))
    ]
    return markdown_table(columns, lines)


def _cell(results: Sequence[Mapping[str, Any]], unit: str) -> str:
    for record in results:
        if record["criterion"]["unit"] != unit:
            continue
        interval = record["interval"]
        if interval is None:
            return f"{record['verdict']}: {record['gate']['reason']}"
        text = f"{number(interval['median'])} ({interval_text(interval)})"
        limit = record["criterion"]["limit"]
        if limit is not None and interval["low"] <= limit < interval["high"]:
            text += ", the interval includes equality"
        return text
    return "–"


def _median(results: Sequence[Mapping[str, Any]]) -> float:
    if not results or results[0]["interval"] is None:
        return float("inf")
    return float(results[0]["interval"]["median"])


def _versions(runs: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    for record in runs:
        versions = record.get("versions") or {}
        text = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
        found[record["side"], text] = None
    return list(found)
