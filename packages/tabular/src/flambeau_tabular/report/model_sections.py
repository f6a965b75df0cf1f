"""The sections on what the model does: importance and dependence, with their plots."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from flambeau.plotting import COLOURS, GREY, can_plot, draw_panels, shorten_label, style_axes
from flambeau.report.blocks import Block, Figures, Table, Text
from flambeau.report.page import Section
from flambeau_tabular.report.dependence import Dependence, dependence_of
from flambeau_tabular.report.importance import Importances, importances_of
from flambeau_tabular.report.scored import Scored
from flambeau_tabular.report.views import View, view_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BARS, _CURVES = 20, 6


def importance_section(found: Importances) -> Section:
    """Return the section on the importance of columns."""
    measure = found.measure.replace("_", " ")
    lead = (
        f"How much {measure} ({found.baseline:.4g} with all columns) increases if the cells of a "
        "column are exchanged between rows. A column whose interval contains 0 is not used, or "
        "another one says the same. Columns that are strongly associated are exchanged together."
    )
    blocks: list[Block] = [Text(lead)]
    rows = [[name, each.value, each.low, each.high] for name, each in found.intervals.items()]
    headers = ["column", f"increase of {measure}", "low", "high"]
    table = Table(headers, rows)
    if can_plot():
        draw = partial(_draw_importance, found)
        height = 1.0 + 0.32 * min(_BARS, len(found))
        figure = draw_panels([draw], 5.8, height, None)
        blocks.append(Figures([(figure, "Importance of the columns")], 340, table))
        if len(rows) > _BARS:
            blocks += [Text("Further columns:"), Table(headers, rows[_BARS:])]
    else:
        blocks.append(table)
    note = (
        f"{found.repeats} permutations of {found.rows:,} rows, with 95% intervals over rows. "
        "Importance describes this model, not the causes of the target."
    )
    return Section("Importance", (*blocks, Text(note, note=True)))


def dependence_section(scored: Scored, importances: Importances) -> Section | None:
    """Return the section with the partial dependence on the most important columns."""
    known = {each.name for each in scored.spec.columns if each.kind != "text"}
    ordered = [name for group in importances for name in importances.members[group]]
    chosen = [name for name in ordered if name in known][:_CURVES]
    sample = scored.sample(500)
    each = [dependence_of(sample, name) for name in chosen]
    each = [found for found in each if len(found.grid) > 1]
    if not each:
        return None
    table = _dependence_table(each, sample)
    block: Block = table
    if can_plot():
        figures = [
            (_dependence_figure(found, sample, at), f"Mean prediction by {found.column}")
            for at, found in enumerate(each)
        ]
        block = Figures(figures, 300, table)
    what = {
        "classes": "probability",
        "labels": "probability",
    }.get(scored.problem.kind, "number in the units of the target")
    lead = (
        f"The mean predicted {what} if all rows have the same value of one column. Dark bands are "
        "95% intervals of the mean. Light bands contain 80% of the single rows: where they are not "
        "parallel to the line, the effect depends on other columns. Bars show where the rows are."
    )
    note = (
        f"{len(sample):,} rows. Rows with such a value need not exist where columns depend on each "
        "other."
    )
    return Section("Partial dependence", (Text(lead), block, Text(note, note=True)))


def _dependence_figure(found: Dependence, sample: Scored, at: int) -> Figure:
    view = view_of(sample.data.frame, found.column, sample.data.columns[found.column], sample.ids)
    return draw_panels([partial(draw_dependence, found, view, at)], 4.2, 3.3, None)


def _dependence_table(each: list[Dependence], sample: Scored) -> Table:
    headers = ["column", "value", "output", "mean prediction", "low", "high"]
    rows: list[list[object]] = []
    for found in each:
        view = view_of(
            sample.data.frame, found.column, sample.data.columns[found.column], sample.ids
        )
        for at, value in enumerate(found.grid):
            shown = value if view is None or isinstance(value, str) else view.text(value)
            for output, name in enumerate(found.outputs):
                ends = (found.mean[at, output], found.low[at, output], found.high[at, output])
                rows.append([found.column, shown, name, *map(float, ends)])
    return Table(headers, rows)


def importances_for_page(scored: Scored) -> Importances:
    """Return the importances that both sections use."""
    return importances_of(scored)


def _draw_importance(found: Importances, axes: Axes) -> None:
    shown = list(found.intervals.items())[:_BARS]
    values = [each.value for _, each in shown]
    certain = [each.low > 0 for _, each in shown]
    colours = [COLOURS[2] if each else "#9aa6b1" for each in certain]
    axes.barh(range(len(shown)), values, color=colours, height=0.62)
    axes.errorbar(
        values,
        range(len(shown)),
        xerr=[
            [max(0.0, each.value - each.low) for _, each in shown],
            [max(0.0, each.high - each.value) for _, each in shown],
        ],
        fmt="none",
        ecolor=COLOURS[1],
        elinewidth=1.6,
        capsize=3,
    )
    axes.axvline(0, color=GREY, linewidth=0.8)
    names = [name if len(name) <= 34 else name[:33] + "…" for name, _ in shown]
    axes.set_yticks(range(len(shown)), [each.replace("$", r"\$") for each in names], fontsize=9)
    axes.invert_yaxis()
    axes.set_xlabel(f"increase of {found.measure.replace('_', ' ')}", fontsize=9)
    style_axes(axes)
    axes.grid(axis="y", visible=False)


def draw_dependence(found: Dependence, view: View | None, first: int, axes: Axes) -> None:
    """Draw the curves of a number or date, or the points of categories.

    Args:
        found: The partial dependence on a column.
        view: The cells of the rows.
        first: Number of the colour of the first output.
        axes: Axes to draw on.
    """
    if view is None or view.codes is not None:
        _draw_categories(found, axes)
    else:
        _draw_curves(found, view, first, axes)
    axes.set_title(shorten_label(found.column), fontsize=10, loc="left")
    if len(found.outputs) > 1:
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.1)}  # never on the curves
        axes.legend(frameon=False, fontsize=8, ncols=3, **where)
    else:
        axes.set_ylabel(shorten_label(" ".join(found.outputs)), fontsize=9)
    style_axes(axes)


def _draw_curves(found: Dependence, view: View, first: int, axes: Axes) -> None:
    x = np.array(found.grid, dtype=np.float64)
    if len(found.outputs) == 1:
        colour = COLOURS[first % len(COLOURS)]
        axes.fill_between(x, found.spread[:, 0], found.spread[:, 1], color=colour, alpha=0.1, lw=0)
    for at, name in enumerate(found.outputs):
        colour = COLOURS[(at + (first if len(found.outputs) == 1 else 0)) % len(COLOURS)]
        axes.fill_between(x, found.low[:, at], found.high[:, at], color=colour, alpha=0.25, lw=0)
        axes.plot(x, found.mean[:, at], color=colour, linewidth=2, label=shorten_label(name))
    if view.numbers is None:
        return
    known = view.numbers[~view.missing]
    inside = known[(known >= x[0]) & (known <= x[-1])]
    low, high = axes.get_ylim()
    counts, edges = np.histogram(inside, bins=min(30, max(2, len(x))), range=(x[0], x[-1]))
    heights = counts / max(1, counts.max()) * 0.14 * (high - low)
    axes.bar(
        edges[:-1],
        heights,
        width=np.diff(edges),
        bottom=low,
        align="edge",
        color="#9aa6b1",
        alpha=0.6,
        zorder=0,
    )
    axes.set_ylim(low, high)
    axes.set_xlim(x[0], x[-1])
    if view.kind == "date":
        ticks = np.linspace(x[0], x[-1], 3)
        axes.set_xticks(ticks, [view.text(each)[:10] for each in ticks], fontsize=8)


def _draw_categories(found: Dependence, axes: Axes) -> None:
    """Draw a point with its interval for each category and output."""
    size = len(found.outputs)
    positions = np.arange(len(found.grid), dtype=np.float64)
    for at, name in enumerate(found.outputs):
        shift = 0.0 if size == 1 else (at - (size - 1) / 2) * 0.12
        mean = found.mean[:, at]
        colours = [COLOURS[each % len(COLOURS)] for each in range(len(found.grid))]
        if size == 1:
            axes.barh(positions, mean, color=colours, alpha=0.85, height=0.6)
        axes.errorbar(
            mean,
            positions + shift,
            xerr=[mean - found.low[:, at], found.high[:, at] - mean],
            fmt="none" if size == 1 else "o",
            color="#000000" if size == 1 else COLOURS[at % len(COLOURS)],
            markersize=5,
            elinewidth=1.2,
            capsize=2,
            label=shorten_label(name),
        )
    axes.set_yticks(positions, [shorten_label(str(each)) for each in found.grid], fontsize=8)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
