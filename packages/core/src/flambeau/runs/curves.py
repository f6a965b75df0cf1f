"""Plots of the histories of several runs in one panel for each column."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from typing import TYPE_CHECKING

from flambeau.plotting import COLOURS, MIDDLE_GREY, axes_row, new_figure, shorten_label, style_axes
from flambeau.report.plots_history import is_by_step, row_positions
from flambeau.runs.comparison_text import curve_columns

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flambeau.runs.comparison import Comparison, PairResult

_MOST_PANELS = 6
_STYLES = ("-", "--", ":", "-.")  # beyond six groups the colours repeat


def curve_figures(found: Comparison) -> list[tuple[Figure, str]]:
    """Return a figure for each column of the histories, and a text alternative.

    All runs of a group have its colour.

    Args:
        found: The comparison.
    """
    return [(_curves(found, name), _label(name)) for name in curve_columns(found)[:_MOST_PANELS]]


def _curves(found: Comparison, name: str) -> Figure:
    figure = new_figure(4.2, 3.1)
    (axes,) = axes_row(figure, 1)
    by_step = any(
        is_by_step(run.history) for group in found.groups for run in group.runs if run.history.rows
    )
    for number, group in enumerate(found.groups):
        colour = COLOURS[number % len(COLOURS)]
        style = _STYLES[number // len(COLOURS) % len(_STYLES)]
        label: str | None = shorten_label(f"{group.label} {group.first.name}")
        for run in group.runs:
            history = run.history
            positions = history.column("step") if by_step else row_positions(history)
            points = [
                (position, float(row[name]))
                for position, row in zip(positions, history.rows, strict=False)
                if isinstance(row.get(name), int | float)
            ]
            if not points:
                continue
            xs, ys = zip(*points, strict=True)
            marker = "o" if len(points) <= 30 else ""
            axes.plot(
                xs, ys, style, color=colour, label=label, marker=marker, markersize=3, linewidth=1.4
            )
            label = None  # one entry of the legend for each group
    axes.set_title(_label(name), fontsize=11)
    axes.set_xlabel("step" if by_step else "epoch")
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", integer=True)
    axes.legend(frameon=False, fontsize=8)
    style_axes(axes)
    return figure


def interval_figure(pair: PairResult) -> Figure | None:
    """Return the intervals of the differences as a plot; None without two of them.

    The scale of each row is in units of the interval of its score, so that losses and shares fit
    beside each other.

    Args:
        pair: A pair with a test over samples.
    """
    shown = [each for each in pair.scores if each.low is not None and each.high is not None]
    if not shown:
        return None
    figure = new_figure(6.2, 0.8 + 0.42 * len(shown))
    (axes,) = axes_row(figure, 1)
    axes.axvline(0, color=MIDDLE_GREY, linewidth=1)
    for row, each in enumerate(reversed(shown)):
        low, high = float(each.low or 0), float(each.high or 0)
        scale = max(abs(low), abs(high)) or 1.0
        sign = -1 if each.higher_is_better is False else 1
        ends = sorted((sign * low / scale, sign * high / scale))
        colours = {"better": COLOURS[2], "worse": COLOURS[1]}
        colour = colours.get(each.verdict, MIDDLE_GREY)
        axes.plot(ends, [row, row], color=colour, linewidth=3)
        axes.plot([sign * each.difference / scale], [row], "o", color=colour, markersize=6)
    axes.set_yticks(range(len(shown)), [each.name.replace("_", " ") for each in reversed(shown)])
    axes.set_xlim(-1.15, 1.15)
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xticks([-1, 0, 1], [f"{pair.first} better", "equal", f"{pair.second} better"])
    style_axes(axes)
    return figure


def _label(name: str) -> str:
    if name.startswith("valid_"):
        return f"{name.removeprefix('valid_').replace('_', ' ')} on validation"
    return name.replace("_", " ")
