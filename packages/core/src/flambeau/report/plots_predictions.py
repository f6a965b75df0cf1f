"""Plots of predictions: scores, confusion matrix, calibration, residuals."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.errors import InputError
from flambeau.plotting import (
    COLOURS,
    GREY,
    MIDDLE_GREY,
    Path,
    axes_row,
    draw_panels,
    new_figure,
    save_figure,
    shorten_label,
    style_axes,
    to_list,
)
from flambeau.report.calibration import Calibration
from flambeau.report.intervals import Interval
from flambeau.report.text_table import count_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_COUNTS = 20  # classes up to which the cells of the confusion matrix show their count
_MOST_NAMES = 40
_MOST_POINTS = 3_000  # more points hide each other and make the file large
_MARKS = ("|", "d", "x", "^")
_UNBOUNDED = ("loss", "mae", "rmse")  # between 0 and 1 only by chance
_POINTS = "#3D8FD1"  # visible on both white and dark pages


def plot_scores(
    intervals: Mapping[str, Interval],
    baselines: Mapping[str, Mapping[str, float]] | None = None,
    path: Path | None = None,
) -> Figure:
    """Plot scores between 0 and 1 as bars with intervals, and baselines' scores as markers.

    Args:
        intervals: Intervals by score name. Loss, errors in the units of the targets, and scores
            outside 0..1 are not shown.
        baselines: Scores by name, by baseline name.
        path: File to write (.png, .pdf, .svg); None writes no file.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: No score is between 0 and 1.
        MissingDependencyError: matplotlib is not installed.
    """
    shown = scores_between_0_and_1(intervals)
    if not shown:
        raise InputError("There is no score between 0 and 1 to plot.")
    baselines = baselines or {}
    figure = new_figure(4.2, 1.0 + 0.42 * len(shown) + 0.2 * bool(baselines))
    axes = figure.subplots()
    positions = list(range(len(shown)))
    values = [each.value for each in shown.values()]
    axes.barh(positions, values, height=0.55, color=COLOURS[0], alpha=0.85, label="this model")
    axes.errorbar(
        values,
        positions,
        xerr=[
            [each.value - each.low for each in shown.values()],
            [each.high - each.value for each in shown.values()],
        ],
        fmt="none",
        ecolor=COLOURS[1],
        elinewidth=1.8,
        capsize=4,
    )
    _mark_baselines(axes, list(shown), baselines)
    axes.set_yticks(positions, [name.replace("_", " ") for name in shown])
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    style_axes(axes)
    axes.grid(axis="y", visible=False)
    if baselines:
        figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return save_figure(figure, path)


def _mark_baselines(
    axes: Axes, names: Sequence[str], baselines: Mapping[str, Mapping[str, float]]
) -> None:
    """Draw one marker for each score of each baseline."""
    for number, (model, scores) in enumerate(baselines.items()):
        points = [(scores[name], y) for y, name in enumerate(names) if name in scores]
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


def scores_between_0_and_1(intervals: Mapping[str, Interval]) -> dict[str, Interval]:
    """Return the intervals that ``plot_scores`` can show."""
    return {
        name: each
        for name, each in intervals.items()
        if name not in _UNBOUNDED and each.low >= 0 and each.high <= 1
    }


def plot_confusion(
    matrix: Tensor | Sequence[Sequence[int]], classes: Sequence[str], path: Path | None = None
) -> Figure:
    """Plot a confusion matrix, coloured by the share of the target class.

    Args:
        matrix: Counts ``(classes, classes)``, rows are targets, as in ``ConfusionMatrix.matrix``.
        classes: Names in the order of rows and columns.
        path: File to write (.png, .pdf, .svg); None writes no file.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: The shape of the matrix does not match the number of classes.
        MissingDependencyError: matplotlib is not installed.
    """
    counts = torch.as_tensor(matrix).cpu()
    n = len(classes)
    if counts.shape != (n, n):
        raise InputError(
            f"The matrix has shape {tuple(counts.shape)}, but for {n} classes it must have shape "
            f"({n}, {n}), with targets as rows."
        )
    share = counts.double() / counts.double().sum(dim=1, keepdim=True).clamp(min=1e-300)
    size = min(max(3.6, 1.9 + 0.42 * n), 12.0)
    figure = new_figure(size + 0.7, size)
    (axes,) = axes_row(figure, 1)
    image = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, aspect=30)
    bar.set_label("share of the target class")
    bar.outline.set_visible(False)
    _name_classes(axes, classes)
    if n <= _MOST_COUNTS:
        _write_counts(axes, counts, share)
    correct, total = counts.diagonal().sum().item(), counts.sum().item()
    share_correct = f"{correct / (total or 1):.1%}"
    axes.set_title(
        f"{count_text(correct)} of {count_text(total)} correct ({share_correct})", fontsize=10
    )
    axes.spines[:].set_visible(False)
    return save_figure(figure, path)


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    n = len(classes)
    ticks = list(range(0, n, -(-n // _MOST_NAMES)))
    names = [shorten_label(classes[i]) for i in ticks]
    flat = max(map(len, names)) * n <= 60
    axes.set_xticks(
        ticks,
        names,
        rotation=0 if flat else 45,
        ha="center" if flat else "right",
        rotation_mode="anchor",
        fontsize=9,
    )
    axes.set_yticks(ticks, names, fontsize=9)
    axes.tick_params(length=0)
    axes.set_xlabel("predicted")
    axes.set_ylabel("target")


def _write_counts(axes: Axes, counts: Tensor, share: Tensor) -> None:
    n = len(counts)
    for row in range(n):
        for column in range(n):
            count = counts[row, column].item()
            if count:
                axes.text(
                    column,
                    row,
                    count_text(count).replace(",", ""),
                    ha="center",
                    va="center",
                    fontsize=9 if n <= 12 else 7,
                    color="white" if float(share[row, column]) > 0.55 else GREY,
                )


def plot_calibration(calibration: Calibration, path: Path | None = None) -> Figure:
    """Plot the reliability curve: observed frequency by predicted probability, with intervals.

    A calibrated model lies on the diagonal.

    Args:
        calibration: The calibration of a model on one part.
        path: File to write (.png, .pdf, .svg); None writes no file.

    Returns:
        A matplotlib figure; the size of a point shows its number of samples.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(4.2, 4.0)
    axes = figure.subplots()
    bins = calibration.bins
    axes.plot([0, 1], [0, 1], "--", color=MIDDLE_GREY, linewidth=1, label="calibrated")
    confidence = [each.confidence for each in bins]
    accuracy = [each.accuracy.value for each in bins]
    most = max(each.count for each in bins)
    axes.errorbar(
        confidence,
        accuracy,
        yerr=[
            [each.accuracy.value - each.accuracy.low for each in bins],
            [each.accuracy.high - each.accuracy.value for each in bins],
        ],
        color=COLOURS[0],
        linewidth=1.4,
        elinewidth=1,
        capsize=3,
    )
    axes.scatter(
        confidence,
        accuracy,
        s=[20 + 100 * each.count / most for each in bins],
        color=COLOURS[0],
        zorder=3,
        label="this model",
    )
    axes.set(
        xlim=(0, 1), ylim=(0, 1.02), xlabel="predicted probability", ylabel="observed frequency"
    )
    axes.set_aspect("equal")
    style_axes(axes)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    return save_figure(figure, path)


def plot_residuals(
    predictions: Tensor,
    targets: Tensor,
    names: Sequence[str] = ("value",),
    path: Path | None = None,
) -> Figure:
    """Plot predictions against targets, and errors against predictions.

    Args:
        predictions: ``(n, values)``.
        targets: ``(n, values)``, in the same units.
        names: Names of the columns.
        path: File to write (.png, .pdf, .svg); None writes no file.

    Returns:
        A matplotlib figure with two panels per column. At most 3,000 points are shown: a random
        subset, always the same one.

    Raises:
        InputError: The shapes differ, or there is not one name per column.
        MissingDependencyError: matplotlib is not installed.
    """
    return draw_panels(residual_panels(predictions, targets, names), 4.2, 3.6, path)


def residual_panels(
    predictions: Tensor, targets: Tensor, names: Sequence[str]
) -> list[Callable[[Axes], None]]:
    """Return the panels of ``plot_residuals``, each as a function that draws on given axes.

    Raises:
        InputError: The shapes differ, or there is not one name per column.
    """
    shape = predictions.shape
    if shape != targets.shape or predictions.ndim != 2 or shape[1] != len(names):
        raise InputError(
            f"Predictions and targets must both have the shape (n, {len(names)}), one column per "
            f"name, but they have the shapes {tuple(shape)} and {tuple(targets.shape)}."
        )
    predictions, targets = predictions.double().cpu(), targets.double().cpu()
    if len(targets) > _MOST_POINTS:
        draws = keyed.generator(0, "points", len(targets))
        rows = torch.randperm(len(targets), generator=draws)[:_MOST_POINTS]
        predictions, targets = predictions[rows], targets[rows]
    panels: list[Callable[[Axes], None]] = []
    for index, name in enumerate(names):
        columns = shorten_label(name), predictions[:, index], targets[:, index]
        panels += [partial(_draw_predictions, *columns), partial(_draw_errors, *columns)]
    return panels


def _draw_predictions(name: str, predictions: Tensor, targets: Tensor, axes: Axes) -> None:
    both = torch.cat([predictions, targets])
    ends = [float(both.min()), float(both.max())]
    axes.plot(ends, ends, "--", color=MIDDLE_GREY, linewidth=1)
    _points(axes, targets, predictions)
    axes.set(xlabel=f"{name}, target", ylabel=f"{name}, predicted")
    style_axes(axes)


def _draw_errors(name: str, predictions: Tensor, targets: Tensor, axes: Axes) -> None:
    axes.axhline(0, linestyle="--", color=MIDDLE_GREY, linewidth=1)
    _points(axes, predictions, predictions - targets)
    axes.set(xlabel=f"{name}, predicted", ylabel="predicted – target")
    style_axes(axes)


def _points(axes: Axes, x: Tensor, y: Tensor) -> None:
    # Many points are more transparent, so that dense regions are visible.
    alpha = 0.8 if len(x) < 100 else 0.35
    axes.scatter(
        to_list(x), to_list(y), s=14, color=_POINTS, alpha=alpha, linewidths=0, rasterized=True
    )
