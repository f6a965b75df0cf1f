"""A comparison of runs as a self-contained page."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from flambeau.plotting import can_plot
from flambeau.report.blocks import Block, Figures, Table, Text
from flambeau.report.page import Page
from flambeau.runs.comparison_text import (
    answer,
    difference_rows,
    no_differences,
    pair_title,
    score_rows,
)
from flambeau.runs.curves import curve_figures, interval_figure
from flambeau.runs.list_table import git_text
from flambeau.wording import duration_text, name_some

if TYPE_CHECKING:
    from flambeau.runs.comparison import Comparison, PairResult


def comparison_page(found: Comparison) -> Page:
    """Return the page: answers, differences of the plans, curves, tests, runs.

    Args:
        found: The comparison.
    """
    names = name_some(group.first.name for group in found.groups)
    now = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M")
    page = Page(f"Comparison of {names}", f"{found.part} scores; written {now}")
    page.add("In short", *_short(found))
    page.add("Choices that differ", *_differences(found))
    page.add("Curves", *_curves(found))
    for pair in found.pairs:
        page.add(f"{pair.second} against {pair.first}", *_pair(pair))
    page.add("Runs", *_runs(found))
    return page


def _short(found: Comparison) -> list[Block]:
    lines = [group.title for group in found.groups]
    return [Text("\n\n".join(lines)), *(Text(pair_title(pair)) for pair in found.pairs)]


def _differences(found: Comparison) -> list[Block]:
    if not found.differences:
        return [Text(no_differences(found))]
    headers, rows = difference_rows(found)
    blocks: list[Block] = [Table(headers, rows, prose=range(1, len(headers)))]
    if any(each.is_of_machine for each in found.differences):
        note = "Values of the machine and of the code come last; they are no choice of a plan."
        blocks.append(Text(note, note=True))
    return blocks


def _curves(found: Comparison) -> list[Block]:
    rows: list[list[object]] = []
    for group in found.groups:
        for run in group.runs:
            values = ", ".join(f"{name} {value:.4g}" for name, value in run.scores.items())
            rows.append([group.label, run.name, len(run.history.rows), values])
    table = Table(["", "run", "evaluations", "validation scores at the end"], rows, prose=(3,))
    if not can_plot() or not any(group.first.history.rows for group in found.groups):
        return [table]
    return [Figures(curve_figures(found), table=table)]


def _pair(pair: PairResult) -> list[Block]:
    blocks: list[Block] = [Text(answer(pair)), Text(pair.why)]
    if pair.scores:
        blocks.append(Table(*score_rows(pair)))
    figure = interval_figure(pair) if can_plot() else None
    if figure is not None:
        label = f"Intervals of the differences between {pair.second} and {pair.first}"
        blocks.append(Figures([(figure, label)]))
        scale = "Each row has another scale; an interval that crosses the line may be noise."
        blocks.append(Text(scale, note=True))
    blocks += [Text(note, note=True) for note in pair.notes]
    return blocks


def _runs(found: Comparison) -> list[Block]:
    rows: list[list[object]] = []
    notes: list[str] = []
    for group in found.groups:
        for run in group.runs:
            time = "" if run.seconds is None else duration_text(run.seconds)
            place = ", ".join(str(run.machine[k]) for k in ("host", "device") if k in run.machine)
            started = (run.started or "")[:16].replace("T", " ")
            row = [group.label, str(run.folder), run.status, run.seed, run.data_digest, started]
            rows.append([*row, time, git_text(run), place])
            notes += [f"{problem}." for problem in run.problems]
        notes += [
            f"{run.folder} is left out: it has the same plan and seed as another run."
            for run in group.repeated
        ]
    headers = ["", "folder", "status", "seed", "data", "started", "time", "git", "machine"]
    table = Table(headers, rows, prose=(1,))
    return [table, *(Text(note, note=True) for note in notes)]
