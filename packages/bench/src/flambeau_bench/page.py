"""The report: a Markdown page with plots, generated only from the records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flambeau.errors import StorageError
from flambeau_bench.figure import draw
from flambeau_bench.records import Record, read
from flambeau_bench.verdict_table import figure_text, markdown_table, verdicts_as_markdown

FIGURES = ("verdicts.svg", "verdicts.png")


def latest_records(records: Sequence[Record]) -> list[Record]:
    """Return the records of the last run of each case, size and variant."""
    last: dict[tuple[str, str, str], str] = {}
    for record in records:
        last[_key(record)] = record["run_id"]
    return [record for record in records if last[_key(record)] == record["run_id"]]


def write_report(folder: Path) -> Path:
    """Write ``report.md`` and its plots beside the results in ``folder``.

    Raises:
        ArtefactError: There are no results, or lines that this release cannot read.
        StorageError: The report cannot be written.
    """
    from flambeau_bench.cases import CASES  # imports torch and the models of the cases

    records = latest_records(read(folder))
    path = folder / "report.md"
    try:
        drawn = [name for name in FIGURES if draw(records, folder / name) is not None]
        sections = [case.section(records, folder) for case in CASES.values()]
        path.write_text(report_text(records, drawn, sections), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"The report cannot be written to {folder}: {error}.") from error
    return path


def report_text(
    records: Sequence[Mapping[str, Any]],
    figures: Sequence[str] = (),
    sections: Sequence[str] = (),
) -> str:
    """Return the report as Markdown.

    Args:
        records: The records to report.
        figures: File names of the plots; only the first is shown.
        sections: Extra sections of the cases, in Markdown.
    """
    parts = ["# Benchmarks", _intro(), verdicts_as_markdown(records)]
    if figures:
        parts.append(f"![Median, 95% interval, noise floor and limit]({figures[0]})")
    parts += [section for section in sections if section]
    parts += ["## Questions", _questions(records), "## Gates", _gates(records)]
    parts += ["## Invalid pairs", _invalid_pairs(records), "## Machines", _machines(records)]
    return "\n\n".join(parts) + "\n"


def _intro() -> str:
    return (
        "Written by `flambeau bench report`; all numbers come from the results beside this page. A "
        "figure is the median over interleaved pairs with its bootstrap 95% interval; a limit is "
        "met if the whole interval meets it. The noise floor is the same figure for the baseline "
        "compared with itself, measured first; smaller differences are not meaningful. A speed is "
        "left out if its quality gate failed."
    )


def _questions(records: Sequence[Mapping[str, Any]]) -> str:
    rows = dict.fromkeys(
        (
            record["case"],
            record["question"],
            f"{record['candidate']} (candidate), {record['baseline']} (baseline)",
            figure_text(record),
        )
        for record in records
        if record["kind"] == "result"
    )
    return markdown_table(("case", "question", "sides", "figure"), rows) if rows else "None."


def _gates(records: Sequence[Mapping[str, Any]]) -> str:
    rows: dict[tuple[str, ...], None] = {}
    for record in records:
        if record["kind"] == "result":
            differ = "; ".join(f"{what}: {why}" for what, why in record["may_differ"].items())
            passed = "passed" if record["gate"]["passed"] else "failed"
            found = (record["gate"]["reason"], differ or "–", record["notes"] or "–")
            rows[record["case"], record["variant"], passed, *found] = None
    columns = ("case", "variant", "gate", "what was found", "may differ", "notes")
    return markdown_table(columns, rows) if rows else "None."


def _invalid_pairs(records: Sequence[Mapping[str, Any]]) -> str:
    rows = dict.fromkeys(
        (record["case"], record["variant"], record["phase"], str(record["pair"]), record["reason"])
        for record in records
        if record["kind"] == "invalid"
    )
    columns = ("case", "variant", "phase", "pair", "reason")
    return markdown_table(columns, rows) if rows else "None."


def _machines(records: Sequence[Mapping[str, Any]]) -> str:
    rows = dict.fromkeys(
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
    return markdown_table(columns, rows)


def _key(record: Mapping[str, Any]) -> tuple[str, str, str]:
    return record["case"], record["size"]["name"], record.get("variant", "")
