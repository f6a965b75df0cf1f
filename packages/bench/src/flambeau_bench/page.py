"""The report: a page of Markdown with figures, made from the records without a number by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flambeau.errors import StorageError
from flambeau_bench.figure import draw
from flambeau_bench.records import Record, read
from flambeau_bench.table import markdown, markdown_table, question_of

FIGURES = ("verdicts.svg", "verdicts.png")


def latest(records: Sequence[Record]) -> list[Record]:
    """Of each case, size and variant the lines of the last run that has it."""
    last: dict[tuple[str, str, str], str] = {}
    for record in records:
        last[_key(record)] = record["run_id"]
    return [record for record in records if last[_key(record)] == record["run_id"]]


def write_report(folder: Path) -> Path:
    """Writes ``report.md`` and the figures beside the results that are in ``folder``.

    Raises:
        ArtefactError: There are no results, or lines that this release does not read.
        StorageError: The report cannot be written.
    """
    from flambeau_bench.cases import CASES  # with torch and the cases' models

    records = latest(read(folder))
    path = folder / "report.md"
    try:
        drawn = [name for name in FIGURES if draw(records, folder / name) is not None]
        sections = [case.section(records, folder) for case in CASES.values()]
        path.write_text(page(records, drawn, sections), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"The report cannot be written to {folder}: {error}.") from error
    return path


def page(
    records: Sequence[Mapping[str, Any]],
    figures: Sequence[str] = (),
    sections: Sequence[str] = (),
) -> str:
    """The report's text.

    Args:
        records: What it tells of.
        figures: File names of the pictures; the first is shown.
        sections: What cases say of their own, in Markdown.
    """
    parts = ["# Benchmarks", _intro(), markdown(records)]
    if figures:
        parts.append(f"![Median, 95% interval, noise floor and bar]({figures[0]})")
    parts += [section for section in sections if section]
    parts += ["## What was asked", _asked(records), "## Gates", _gates(records)]
    parts += ["## Void pairs", _voids(records), "## Where it was measured", _machines(records)]
    return "\n\n".join(parts) + "\n"


def _intro() -> str:
    return (
        "Written by `flambeau bench report`; every number comes from the results beside this "
        "page. A figure is the median over interleaved pairs with its bootstrap 95% interval; a "
        "bar is met when the whole interval is on its good side. The noise floor is the same "
        "figure of the baseline against itself, measured first: nothing smaller is claimed. A "
        "speed whose quality gate failed is not written at all."
    )


def _asked(records: Sequence[Mapping[str, Any]]) -> str:
    lines = dict.fromkeys(
        (
            record["case"],
            record["asks"],
            f"{record['candidate']} (candidate) against {record['baseline']} (baseline)",
            question_of(record),
        )
        for record in records
        if record["kind"] == "result"
    )
    return markdown_table(("case", "question", "sides", "figure"), lines) if lines else "Nothing."


def _gates(records: Sequence[Mapping[str, Any]]) -> str:
    lines: dict[tuple[str, ...], None] = {}
    for record in records:
        if record["kind"] == "result":
            differ = "; ".join(f"{what}: {why}" for what, why in record["may_differ"].items())
            passed = "passed" if record["gate"]["passed"] else "failed"
            told = (record["gate"]["says"], differ or "–", record["notes"] or "–")
            lines[record["case"], record["variant"], passed, *told] = None
    columns = ("case", "variant", "gate", "what was found", "may differ", "notes")
    return markdown_table(columns, lines) if lines else "None."


def _voids(records: Sequence[Mapping[str, Any]]) -> str:
    lines = dict.fromkeys(
        (record["case"], record["variant"], record["phase"], str(record["pair"]), record["why"])
        for record in records
        if record["kind"] == "void"
    )
    return markdown_table(("case", "variant", "phase", "pair", "why"), lines) if lines else "None."


def _machines(records: Sequence[Mapping[str, Any]]) -> str:
    lines = dict.fromkeys(
        (
            record["run_id"],
            record["case"],
            record["size"]["name"],
            f"{record['host']['cpu']}, {record['host']['cores']} cores",
            "–" if record["host"]["load"] is None else f"{record['host']['load']:g}",
            str(record["device"]["name"]),
            record["torch"],
            f"{(record['git_sha'] or 'no commit')[:10]}{', changed' if record['dirty'] else ''}",
        )
        for record in records
    )
    columns = ("run", "case", "size", "host", "load", "device", "torch", "commit")
    return markdown_table(columns, lines)


def _key(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return record["case"], record["size"]["name"], record.get("variant", "")
