"""``baselines_section``: the model beside baselines, with intervals and paired differences."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from flambeau.plotting import COLOURS, GREY, can_plot, draw_panels, style_axes
from flambeau.report.blocks import Block, Figures, Table, Text, number_text
from flambeau.report.intervals import Interval
from flambeau.report.page import Section
from flambeau_tabular.report.baselines import MODEL, Baselines

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_HIGHER = {"accuracy", "balanced_accuracy", "auroc", "r2", "micro_f1", "macro_f1", "exact_match"}
_SHOWN = 3  # measures with a plot


def baselines_section(found: Baselines) -> Section:
    """Return the section "Baselines"."""
    measures = list(found.lines[0].scores)
    lead = (
        "Models of other kinds, fitted on the same train rows and scored on the same rows. A "
        "network is worth its cost only where it is better than these; on a single table, gradient "
        "boosting is hard to beat."
    )
    blocks: list[Block] = [Text(lead)]
    if can_plot() and len(found.lines) > 1:
        draws = [partial(_draw, found, name) for name in measures[:_SHOWN]]
        height = 1.0 + 0.3 * len(found.lines)
        figures = [
            (draw_panels([draw], 4.2, height, None), f"{name} of all models with intervals")
            for draw, name in zip(draws, measures, strict=False)
        ]
        blocks.append(Figures(figures, min_width=300))
    blocks += _tables(found, measures)
    if found.absent:
        rows = [[name, why] for name, why in found.absent.items()]
        blocks += [Text("Not shown:"), Table(["model", "reason"], rows, prose=(1,))]
    notes = [
        *found.notes,
        "Intervals are 95% bootstrap intervals; rows of one group are resampled together. A "
        "difference is the score of the baseline minus that of the model on the same resamples; "
        "if its interval contains 0, these rows do not show which of the two is better.",
    ]
    return Section("Baselines", (*blocks, Text("\n\n".join(notes), note=True)), first=True)


def _tables(found: Baselines, measures: list[str]) -> list[Block]:
    rows = [
        [line.name, *(_with_ends(line.scores[name].interval) for name in measures)]
        for line in found.lines
    ]
    titles = [name.replace("_", " ") for name in measures]
    blocks: list[Block] = [Table(["model", *titles], rows)]
    others = [line for line in found.lines if line.name != MODEL]
    if not others:
        return blocks
    differences = [
        [
            line.name,
            *(
                _with_ends(difference)
                for name in measures
                if (difference := line.scores[name].difference)
            ),
        ]
        for line in others
    ]
    settings = [
        [line.name, line.setting, f"{line.seconds:.1f} s" if line.seconds else ""]
        for line in others
    ]
    return [
        *blocks,
        Text("Difference to the model:"),
        Table(["model", *titles], differences),
        Text("How they were fitted:"),
        Table(["model", "setting", "time"], settings, prose=(1,)),
    ]


def _with_ends(interval: Interval) -> str:
    value, low, high = (_short(each) for each in (interval.value, interval.low, interval.high))
    return f"{value} ({low} to {high})" if math.isfinite(interval.low) else value


def _short(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else number_text(float(value))


def _draw(found: Baselines, name: str, axes: Axes) -> None:
    """Draw the intervals of all models below each other, the model itself first."""
    for at, line in enumerate(found.lines):
        interval = line.scores[name].interval
        is_model = line.name == MODEL
        colour = COLOURS[0] if is_model else COLOURS[1 + (at - 1) % (len(COLOURS) - 1)]
        known = math.isfinite(interval.low)
        below = interval.value - interval.low if known else 0.0
        above = interval.high - interval.value if known else 0.0
        axes.errorbar(
            [interval.value],
            [at],
            xerr=[[max(0.0, below)], [max(0.0, above)]],
            fmt="D" if is_model else "o",
            color=colour,
            markersize=7 if is_model else 6,
            elinewidth=2.2,
            capsize=3,
        )
    own = found.lines[0].scores[name].interval.value
    axes.axvline(own, color=COLOURS[0], linewidth=1, linestyle=":", zorder=0)
    axes.set_yticks(range(len(found.lines)), [line.name for line in found.lines], fontsize=9)
    axes.set_ylim(len(found.lines) - 0.5, -0.5)
    arrow = "higher is better" if name in _HIGHER else "lower is better"
    arrow = "nominal is better" if name == "coverage" else arrow
    axes.set_title(name.replace("_", " "), fontsize=10, loc="left")
    axes.set_xlabel(arrow, fontsize=8, color=GREY)
    style_axes(axes)
    axes.grid(axis="y", visible=False)
