"""The sections on calibration: with and without the temperature, and coverage of intervals."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flambeau.plotting import COLOURS, MIDDLE_GREY, can_plot, draw_panels, style_axes
from flambeau.report.blocks import Block, Figures, Table, Text, number_text
from flambeau.report.calibration import Calibration, calibration
from flambeau.report.intervals import Interval
from flambeau.report.page import Section
from flambeau.task.conformal import class_sets
from flambeau.task.decoded_columns import decode_columns
from flambeau.task.predicted_intervals import CONFORMAL, PredictsIntervals
from flambeau_tabular.report.baselines import as_seconds
from flambeau_tabular.report.measures import Measure, Rows, compare, measures_of, weighted_mean
from flambeau_tabular.report.problem import Predicted, encoded_batches, predict_encoded
from flambeau_tabular.report.scored import Scored

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LEVELS = (0.8, 0.9, 0.95)
_PERIODS = 6


def temperature_section(scored: Scored) -> Section | None:
    """Return the section on the fitted temperature: reliability without and with it."""
    temperature = scored.found.task.calibration.get("temperature")
    if temperature is None or scored.problem.kind not in ("classes", "labels"):
        return None
    before = predict_encoded(scored.found, scored.problem, scored.inputs, calibrated=False)
    models = {"without": before, "with": scored.predicted}
    measures = [each for each in measures_of(scored.problem) if each.name in ("log_loss", "brier")]
    scores = compare(measures, models, scored.rows, reference="without")
    curves = {
        name: calibration(each.values, scored.rows.targets, weights=scored.rows.weights)
        for name, each in models.items()
    }
    difference = scores["with"]["log_loss"].difference
    verdict = ""
    if difference is not None:
        ends = [f"{each:+.4f}" for each in (difference.value, difference.low, difference.high)]
        verdict = (
            f" It changes the log-loss on these rows by {ends[0]} ({ends[1]} to {ends[2]}); below "
            "0 is better."
        )
    lead = (
        f"The logits are divided by the temperature {temperature:.3f}, which was fitted on the "
        f"calibration part.{verdict}"
    )
    blocks: list[Block] = [Text(lead)]
    if can_plot():
        figure = draw_panels([partial(_draw_reliability, curves)], 4.2, 4.0, None)
        blocks.append(Figures([(figure, "Reliability without and with the temperature")], 300))
    rows = [
        [
            f"{name} temperature",
            *(interval_text(scores[name][each.name].interval) for each in measures),
            curves[name].ece,
        ]
        for name in models
    ]
    headers = ["", *(each.name.replace("_", " ") for each in measures), "ECE"]
    return Section("Temperature", (*blocks, Table(headers, rows)))


def coverage_section(scored: Scored) -> Section | None:
    """Return the section on the coverage of intervals or sets of classes."""
    task = scored.found.task
    if isinstance(task, PredictsIntervals) and CONFORMAL in task.calibration:
        return Section("Coverage", tuple(_conformal_blocks(scored, task)))
    if scored.problem.kind == "quantiles":
        return Section("Coverage", tuple(_quantile_blocks(scored)))
    return None


def _conformal_blocks(scored: Scored, task: PredictsIntervals) -> list[Block]:
    is_sets = scored.problem.kind == "classes"
    size = "classes in the set" if is_sets else "width"
    rows: list[list[object]] = []
    covered: dict[float, Tensor] = {}
    sizes: dict[float, Tensor] = {}
    for level in _LEVELS:
        covered[level], sizes[level] = covered_rows(scored, task, level)
        found = mean_interval(covered[level], scored.rows)
        mean = mean_interval(sizes[level], scored.rows)
        verdict = "below" if found.high < level else "above" if found.low > level else "as asked"
        rows.append([f"{level:.0%}", _percent(found), verdict, interval_text(mean)])
    lead = (
        f"The share of targets inside of the predicted {'sets' if is_sets else 'intervals'} on the "
        f"{scored.found.part} rows. It is too high on rows of train or of the calibration part."
    )
    blocks: list[Block] = [Text(lead), Table(["asked for", "covered", "", f"mean {size}"], rows)]
    parts = _parts(scored, sizes[0.9])
    if parts:
        table = [
            [
                title,
                int(mask.sum()),
                _percent(mean_interval(covered[0.9][mask], scored.rows.take(mask))),
            ]
            for title, mask in parts
        ]
        blocks += [
            Text("For 90%, by part of the rows:"),
            Table(["rows", "number", "covered"], table),
        ]
    note = (
        "The coverage holds on average over rows that are drawn like those of the calibration "
        "part, not for each part of the rows."
    )
    if scored.data.structure.times is not None:
        note += " Rows that follow in time are not: here it is only measured."
    return [*blocks, Text(note, note=True)]


def covered_rows(scored: Scored, task: PredictsIntervals, level: float) -> tuple[Tensor, Tensor]:
    """Return which targets are covered, float64 ``(n,)``, and the width or size ``(n,)``."""
    chosen = task.with_interval(level)
    quantiles = list(chosen.interval_quantiles().values())
    covered: list[Tensor] = []
    sizes: list[Tensor] = []
    start = 0
    for outputs, n in encoded_batches(scored.found, scored.inputs):
        targets = scored.rows.targets[start : start + n]
        start += n
        if scored.problem.kind == "classes":
            sets = class_sets(outputs.double().softmax(dim=1), quantiles[0])
            covered.append(sets.gather(1, targets.long()[:, None])[:, 0].double())
            sizes.append(sets.sum(dim=1).double())
            continue
        columns = decode_columns(chosen, outputs, n)
        low, high = (_ends(columns, end) for end in ("low", "high"))
        covered.append(((targets >= low) & (targets <= high)).double().mean(dim=1))
        sizes.append((high - low).mean(dim=1))
    return torch.cat(covered), torch.cat(sizes)


def _ends(columns: dict[str, Any], end: str) -> Tensor:
    found = [each for name, each in columns.items() if name == end or name.endswith(f".{end}")]
    return torch.stack([torch.as_tensor(each) for each in found], dim=1).double()


def _quantile_blocks(scored: Scored) -> list[Block]:
    rows: list[list[object]] = []
    for at, level in enumerate(scored.problem.levels):
        below = (scored.rows.targets <= scored.predicted.quantiles[..., at]).double().mean(dim=1)
        found = mean_interval(below, scored.rows)
        verdict = "below" if found.high < level else "above" if found.low > level else "as asked"
        rows.append([f"{level:g}", _percent(found), verdict])
    return [
        Text("The share of targets that are at most the predicted quantile."),
        Table(["quantile", "targets below", ""], rows),
    ]


def mean_interval(values: Tensor, rows: Rows) -> Interval:
    """Return the weighted mean of ``(n,)`` with its bootstrap interval; groups are resampled."""
    measure = Measure("mean", None, lambda predicted, targets: weighted_mean(values))
    found = compare([measure], {"": Predicted(values[:, None])}, rows, reference="")
    return found[""]["mean"].interval


def _parts(scored: Scored, sizes: Tensor) -> list[tuple[str, Tensor]]:
    """Return parts of the rows: periods in time, or fifths by the size of the interval."""
    times = scored.data.structure.times
    if times is None:
        values, what = sizes.numpy(), "size of the interval"
    else:
        values, what = as_seconds(times)[scored.ids], "period"
    edges = np.unique(np.quantile(values, np.linspace(0, 1, _PERIODS + 1)))
    found: list[tuple[str, Tensor]] = []
    for at in range(len(edges) - 1):
        last = at == len(edges) - 2
        mask = (values >= edges[at]) & (
            (values <= edges[at + 1]) if last else (values < edges[at + 1])
        )
        if mask.sum() < 2:
            continue
        ends = [_end_text(each, times) for each in (edges[at], edges[at + 1])]
        found.append((f"{what} {ends[0]} to {ends[1]}", torch.from_numpy(mask)))
    return found if len(found) > 1 else []


def _end_text(value: float, times: Any) -> str:
    is_date = times is not None and np.asarray(times).dtype.kind in "MOU"
    return str(np.datetime64(int(value), "s"))[:10] if is_date else number_text(float(value))


def _draw_reliability(curves: dict[str, Calibration], axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], "--", color=MIDDLE_GREY, linewidth=1)
    for (name, curve), colour in zip(curves.items(), (COLOURS[1], COLOURS[0]), strict=True):
        accuracy = [each.accuracy for each in curve.bins]
        axes.errorbar(
            [each.confidence for each in curve.bins],
            [each.value for each in accuracy],
            yerr=[
                [each.value - each.low for each in accuracy],
                [each.high - each.value for each in accuracy],
            ],
            fmt="o-",
            color=colour,
            linewidth=1.6,
            elinewidth=0.9,
            markersize=5,
            capsize=2,
            label=f"{name} temperature",
        )
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.set(xlabel="predicted probability", ylabel="observed frequency")
    axes.set_aspect("equal")
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    style_axes(axes)


def interval_text(found: Interval) -> str:
    """Return a value with the ends of its interval."""
    if math.isnan(found.low):  # there is one group only
        return number_text(found.value)
    return f"{number_text(found.value)} ({number_text(found.low)} to {number_text(found.high)})"


def _percent(found: Interval) -> str:
    return f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})"
