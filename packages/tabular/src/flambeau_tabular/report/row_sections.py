"""The sections on rows: the slices where the model is worst, and drift of the columns."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from flambeau.plotting import COLOURS, can_plot, draw_panels, shorten_label, style_axes
from flambeau.report.blocks import Block, Figures, Table, Text
from flambeau.report.page import Section
from flambeau_tabular.report.drift import Drift, table_drift
from flambeau_tabular.report.scored import Scored
from flambeau_tabular.report.slices import Slices, slices_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BARS = 15


def slices_section(scored: Scored) -> Section:
    """Return the section with the slices where the loss is highest."""
    return Section("Worst slices", tuple(slice_blocks(scored, slices_of(scored.sample(50_000)))))


def slice_blocks(scored: Scored, found: Slices) -> list[Block]:
    """Return the blocks on the slices."""
    examined = (
        f"{found.examined:,} slices were examined: each category, a fifth of each number or date, "
        "missing cells, and pairs of these for the columns whose slices differ most."
    )
    if not found.slices:
        verdict = f" On none of them the {found.loss} is higher than chance explains."
        return [Text(examined + verdict)]
    lead = (
        f"{examined} On those below, the mean {found.loss} is higher than on all other rows, by "
        f"more than chance explains in so many comparisons (probability below {found.level:.0%}). "
        "Look for wrong labels, too few train rows, or a missing column there."
    )
    has_accuracy = found.slices[0].accuracy is not None
    headers = ["slice", "rows", "share", found.loss, "on other rows", "p"]
    headers += ["accuracy", "on other rows"] if has_accuracy else []
    rows = [
        [
            each.name,
            each.rows,
            f"{each.share:.1%}",
            each.loss,
            each.other_loss,
            "< 0.001" if each.p < 0.001 else f"{each.p:.3f}",
            *((f"{each.accuracy:.1%}", f"{each.other_accuracy:.1%}") if has_accuracy else ()),
        ]
        for each in found.slices
    ]
    note = (
        f"Slices with fewer than 50 rows are not examined. {scored.sample(50_000).sample_note()} "
        "p is corrected for the number of slices (Holm); rows of one group count as one. Slices "
        "overlap."
    )
    return [Text(lead), Table(headers, rows), Text(note, note=True)]


def drift_section(scored: Scored) -> Section | None:
    """Return the section on how the columns of the other parts differ from train."""
    data = scored.data
    parts = [part for part in ("valid", "test") if len(data.split.part(part)) > 1]
    if len(data.split.train) < 2 or not parts:
        return None
    found = [table_drift(data, part) for part in parts]
    if not found[0].columns:
        return None
    return Section("Drift", tuple(drift_blocks(found, data.structure.times is not None)))


def drift_blocks(found: Sequence[Drift], by_time: bool) -> list[Block]:
    """Return the blocks on drift from train to one or several other sets of rows."""
    lead = (
        "How differently the columns are distributed in train and in later parts. The effect is "
        "the share of rows that would have to change for equal distributions: 0 is equal, above "
        "0.1 is visible, above 0.3 is large. Coloured effects are larger than chance explains."
    )
    if by_time:
        lead += " The parts follow in time, so columns that change with time drift."
    blocks: list[Block] = [Text(lead)]
    if can_plot():
        figures = [
            (
                draw_panels(
                    [partial(_draw_drift, each)],
                    4.6,
                    1.0 + 0.28 * min(_BARS, len(each.columns)),
                    None,
                ),
                f"Drift from train to {each.name}",
            )
            for each in found
        ]
        rows = [
            [each.name, column.column, column.effect, column.noise, column.drifts, column.change]
            for each in found
            for column in each.columns
        ]
        headers = ["part", "column", "effect", "by chance", "drifts", "change"]
        blocks.append(Figures(figures, 300, Table(headers, rows)))
    by_part = [{column.column: column for column in each.columns} for each in found]
    moved = [each.column for part in found for each in part.columns if each.drifts]
    names = list(dict.fromkeys(moved)) if can_plot() else list(by_part[-1])
    headers = ["column"]
    rows = [[name] for name in names]
    for each, columns in zip(found, by_part, strict=True):
        headers += [f"train → {each.name}", "by chance", "change"]
        for row, name in zip(rows, names, strict=True):
            column = columns[name]
            mark = f"{column.effect:.3f}" + (" ●" if column.drifts else "")
            row += [mark, f"{column.noise:.3f}", column.change]
    note = (
        "● marks effects above those of 95% of random assignments of the same rows, in any column. "
        "Numbers and dates: Kolmogorov-Smirnov distance; categories: total variation; missing "
        "cells are a value. At most 5,000 rows of each part are compared; groups are assigned as a "
        "whole."
    )
    if not moved:
        blocks.append(Text("No column differs more than chance explains."))
    elif can_plot():
        blocks.append(Text("Columns that differ more than chance explains:"))
    return [*blocks, *([Table(headers, rows)] if rows else []), Text(note, note=True)]


def _draw_drift(found: Drift, axes: Axes) -> None:
    shown = found.columns[:_BARS]
    colours = [COLOURS[1] if each.drifts else "#9aa6b1" for each in shown]
    axes.barh(range(len(shown)), [each.effect for each in shown], color=colours, height=0.6)
    axes.scatter(
        [each.noise for each in shown],
        range(len(shown)),
        marker="|",
        s=90,
        color="#000000",
        zorder=3,
        label="by chance",
    )
    axes.set_yticks(range(len(shown)), [shorten_label(each.column) for each in shown], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlim(0, max(0.2, *(each.effect * 1.05 for each in shown)))
    axes.set_title(f"train → {found.name}", fontsize=10, loc="left")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    style_axes(axes)
    axes.grid(axis="y", visible=False)
