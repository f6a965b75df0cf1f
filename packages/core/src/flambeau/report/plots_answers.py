"""Pictures of answers: scores with intervals, calibration, residuals. Needs matplotlib."""

# matplotlib leaves the type of its **kwargs open, so every call would be "partially unknown".
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.errors import InputError
from flambeau.figures import (
    COLOURS,
    MIDDLE_GREY,
    Path,
    numbers,
    panels,
    plain_axes,
    saved,
    short,
    sized,
)
from flambeau.report.calibration import Calibration
from flambeau.report.intervals import Interval

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_POINTS = 3_000  # more hide one another, and make the file large
_MARKS = ("|", "d", "x", "^")
_IN_UNITS = ("loss", "mae", "rmse")  # within 0..1 by chance at most
_POINTS = "#3D8FD1"  # stands off from white and from a dark page alike


def plot_scores(
    intervals: Mapping[str, Interval],
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    path: Path | None = None,
) -> Figure:
    """Scores between 0 and 1 as bars with their intervals, and baselines as marks beside them.

    Args:
        intervals: By the name of the score; the loss, errors in units and those that leave 0..1
            are left out.
        baselines: Scores by name, by the name of the simple model.
        path: Where to write the picture (.png, .pdf, .svg); None writes nothing.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: No score lies within 0..1.
        MissingDependencyError: matplotlib is not installed.
    """
    shown = shares_of(intervals)
    if not shown:
        raise InputError("There is no score between 0 and 1 to draw.")
    baselines = baselines or {}
    figure = sized(4.2, 1.0 + 0.42 * len(shown) + 0.2 * bool(baselines))
    axes = figure.subplots()
    places = list(range(len(shown)))
    values = [each.value for each in shown.values()]
    axes.barh(places, values, height=0.55, color=COLOURS[0], alpha=0.85, label="this model")
    axes.errorbar(
        values,
        places,
        xerr=[
            [each.value - each.low for each in shown.values()],
            [each.high - each.value for each in shown.values()],
        ],
        fmt="none",
        ecolor=COLOURS[1],
        elinewidth=1.8,
        capsize=4,
    )
    for number, (model, scores) in enumerate(baselines.items()):
        points = [(scores[name], place) for place, name in enumerate(shown) if name in scores]
        if points:
            axes.scatter(
                *zip(*points, strict=True),
                marker=_MARKS[number % len(_MARKS)],
                color="#000000" if number == 0 else COLOURS[4],
                s=220 if number == 0 else 70,
                linewidths=2.5 if number == 0 else 1,
                zorder=3,
                label=model,
            )
    axes.set_yticks(places, [name.replace("_", " ") for name in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    plain_axes(axes)
    axes.grid(axis="y", visible=False)
    if baselines:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return saved(figure, path)


def shares_of(intervals: Mapping[str, Interval]) -> dict[str, Interval]:
    """Those that ``plot_scores`` can draw."""
    return {
        name: each
        for name, each in intervals.items()
        if name not in _IN_UNITS and each.low >= 0 and each.high <= 1
    }


def plot_calibration(calibration: Calibration, path: Path | None = None) -> Figure:
    """Share right by confidence, with intervals, against the diagonal of a calibrated model.

    Args:
        calibration: Of a model on one part.
        path: Where to write the picture (.png, .pdf, .svg); None writes nothing.

    Returns:
        A matplotlib figure; points grow with the number of samples.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = sized(4.2, 4.0)
    axes = figure.subplots()
    bins = calibration.bins
    axes.plot([0, 1], [0, 1], "--", color=MIDDLE_GREY, linewidth=1, label="calibrated")
    sure = [each.confidence for each in bins]
    right = [each.right.value for each in bins]
    most = max(each.count for each in bins)
    axes.errorbar(
        sure,
        right,
        yerr=[
            [each.right.value - each.right.low for each in bins],
            [each.right.high - each.right.value for each in bins],
        ],
        color=COLOURS[0],
        linewidth=1.4,
        elinewidth=1,
        capsize=3,
    )
    axes.scatter(
        sure,
        right,
        s=[20 + 100 * each.count / most for each in bins],
        color=COLOURS[0],
        zorder=3,
        label="this model",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="confidence", ylabel="share right")
    axes.set_aspect("equal")
    plain_axes(axes)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return saved(figure, path)


def plot_residuals(
    answered: Tensor, truth: Tensor, names: Sequence[str] = ("value",), path: Path | None = None
) -> Figure:
    """What was predicted against what is, and the error against what was predicted.

    Args:
        answered: ``(n, values)``.
        truth: ``(n, values)``, in the same units.
        names: Of the values.
        path: Where to write the picture (.png, .pdf, .svg); None writes nothing.

    Returns:
        A matplotlib figure with two panels for each of the values; at most 3,000 points of each,
        the same ones every time.

    Raises:
        InputError: The shapes differ, or there are not as many names as values.
        MissingDependencyError: matplotlib is not installed.
    """
    return panels(residual_panels(answered, truth, names), 4.2, 3.6, path)


def residual_panels(
    answered: Tensor, truth: Tensor, names: Sequence[str]
) -> list[Callable[[Axes], None]]:
    """What ``plot_residuals`` draws, a function for each panel.

    Raises:
        InputError: The shapes differ, or there are not as many names as values.
    """
    if answered.shape != truth.shape or answered.ndim != 2 or answered.shape[1] != len(names):
        raise InputError(
            f"Predicted {tuple(answered.shape)} and true {tuple(truth.shape)} numbers must both "
            f"have shape (n, {len(names)}): a column a name."
        )
    answered, truth = answered.double().cpu(), truth.double().cpu()
    if len(truth) > _MOST_POINTS:
        draws = keyed.generator(0, "points", len(truth))
        rows = torch.randperm(len(truth), generator=draws)[:_MOST_POINTS]
        answered, truth = answered[rows], truth[rows]
    drawn: list[Callable[[Axes], None]] = []
    for place, name in enumerate(names):
        columns = short(name), answered[:, place], truth[:, place]
        drawn += [partial(_draw_predicted, *columns), partial(_draw_errors, *columns)]
    return drawn


def _draw_predicted(name: str, answered: Tensor, truth: Tensor, axes: Axes) -> None:
    both = torch.cat([answered, truth])
    ends = [float(both.min()), float(both.max())]
    axes.plot(ends, ends, "--", color=MIDDLE_GREY, linewidth=1)
    _points(axes, truth, answered)
    axes.set(xlabel=f"{name}, true", ylabel=f"{name}, predicted")
    plain_axes(axes)


def _draw_errors(name: str, answered: Tensor, truth: Tensor, axes: Axes) -> None:
    axes.axhline(0, linestyle="--", color=MIDDLE_GREY, linewidth=1)
    _points(axes, answered, answered - truth)
    axes.set(xlabel=f"{name}, predicted", ylabel="predicted – true")
    plain_axes(axes)


def _points(axes: Axes, x: Tensor, y: Tensor) -> None:
    # Few points are solid; many are thin, so that the densest places stand out.
    alpha = 0.8 if len(x) < 100 else 0.35
    axes.scatter(
        numbers(x), numbers(y), s=14, color=_POINTS, alpha=alpha, linewidths=0, rasterized=True
    )
