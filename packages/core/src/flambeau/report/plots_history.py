"""Plots of a training history: loss, metrics, learning rate. Requires ``flambeau[plot]``."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau.plotting import (
    COLOURS,
    Path,
    draw_panels,
    style_axes,
    to_list,
)
from flambeau.training.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


_MOST_LOGGED = 6  # panels, of those that a task or a train step logged


def plot_history(history: History, path: Path | None = None) -> Figure:
    """Plot loss, metrics and learning rate by epoch, or by step if evaluations are in steps.

    The training loss of each step is shown with a moving average.

    Args:
        history: History of a run with at least one epoch.
        path: File to write (.png, .pdf, .svg); None writes no file.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: The history is empty.
        MissingDependencyError: matplotlib is not installed.
    """
    return draw_panels(history_panels(history), 4.2, 3.4, path)


def history_panels(history: History) -> list[Callable[[Axes], None]]:
    """Return the panels of ``plot_history``, each as a function that draws on given axes.

    Raises:
        InputError: The history is empty.
    """
    if not history.rows:
        raise InputError(
            "The history contains no epoch, so there is nothing to plot. Train for at least one "
            "epoch first."
        )
    draws = [_draw_loss, *_metric_panels(history), *_logged_panels(history)]
    if len(_numbers(history, "lr")) > 1:
        draws.append(_draw_lr)
    return [partial(_draw_by_epoch, draw, history) for draw in draws]


def _draw_by_epoch(draw: Callable[[Axes, History], None], history: History, axes: Axes) -> None:
    draw(axes, history)
    axes.set_xlabel("step" if is_by_step(history) else "epoch")
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", integer=True)
    style_axes(axes)


# ---------------------------------------------------------------- history


def _numbers(history: History, name: str) -> list[float]:
    """Return the numbers of a column; empty if the history lacks it."""
    return history.column(name) if name in history.names else []


def is_by_step(history: History) -> bool:
    """Return whether the x axis has steps, because rows are not those of consecutive epochs."""
    epochs, rows = _numbers(history, "epoch"), len(history.rows)
    has_both = len(epochs) == len(_numbers(history, "step")) == rows
    return has_both and epochs != [float(number + 1) for number in range(rows)]


def row_positions(history: History) -> list[float]:
    """Return the x position of each row: its step, or its epoch (1 after the first epoch)."""
    if is_by_step(history):
        return history.column("step")
    return [float(number + 1) for number in range(len(history.rows))]


def _step_positions(history: History) -> list[float]:
    """Return the x position of each step loss; on an axis of epochs all epochs are equally wide."""
    losses, rows = len(history.step_losses), len(history.rows)
    ends = [int(step) for step in _numbers(history, "step")]
    if len(ends) < rows or any(a >= b for a, b in zip([0, *ends], ends, strict=False)):
        return [(i + 1) * rows / losses for i in range(losses)]
    interval = history.loss_interval
    first = max(0, ends[-1] - losses * interval)  # those of a resumed run may start later
    steps = [step for i in range(losses) if (step := first + (i + 1) * interval) <= ends[-1]]
    if is_by_step(history):
        return [float(step) for step in steps]
    return list(np.interp(steps, [0, *ends], range(rows + 1)))


def _draw_loss(axes: Axes, history: History) -> None:
    losses = torch.tensor(history.step_losses, dtype=torch.float64)
    if len(losses):
        positions = _step_positions(history)
        losses = losses[: len(positions)]
        axes.plot(positions, to_list(losses), color=COLOURS[0], alpha=0.22, linewidth=0.7)
        axes.plot(
            positions, to_list(_smoothed(losses)), color=COLOURS[0], linewidth=1.6, label="train"
        )
        _limit(axes, losses, history)
    elif train := _numbers(history, "train_loss"):
        axes.plot(
            row_positions(history)[-len(train) :],
            train,
            "o-",
            markersize=4,
            color=COLOURS[0],
            label="train",
        )
    _draw_column(axes, history, "valid_loss", COLOURS[1], "valid")
    axes.set_title("loss", fontsize=11)
    axes.legend(frameon=False)


def _smoothed(losses: Tensor) -> Tensor:
    """Return a centred moving average with a window of about a fortieth of the run."""
    half = max(1, len(losses) // 80)
    total = torch.cat([losses.new_zeros(1), losses.nan_to_num().cumsum(0)])
    here = torch.arange(len(losses))
    start, end = (here - half).clamp(min=0), (here + half + 1).clamp(max=len(losses))
    return (total[end] - total[start]) / (end - start)


def _limit(axes: Axes, losses: Tensor, history: History) -> None:
    """Limit the y axis, so that a few very large losses do not flatten the rest of the curve."""
    finite = losses[losses.isfinite()]
    if len(finite) < 20:
        return
    valid = [value for value in _numbers(history, "valid_loss") if math.isfinite(value)]
    top = max([float(finite.quantile(0.98)), *valid])
    low = min([float(finite.min()), *valid])
    if low < top < float(finite.max()):
        axes.set_ylim(low - 0.05 * (top - low), top + 0.1 * (top - low))


def _metric_panels(history: History) -> list[Any]:
    """Return one panel for all metrics from 0 to 1 (best), and one for each other metric."""
    logged = _logged_names(history)
    metrics = [
        n
        for n in history.names
        if n.startswith("valid_") and n != "valid_loss" and n.removeprefix("valid_") not in logged
    ]
    shares = [
        name
        for name in metrics
        if all(0 <= value <= 1 for value in history.column(name))
        and history.modes.get(name) == "max"
    ]
    groups = [[n] for n in metrics if n not in shares]
    if shares:
        groups.insert(0, shares)
    return [_metric_panel(group) for group in groups[:3]]


def _logged_names(history: History) -> list[str]:
    """Return the names of the values that a task or a train step logged (``task.log``)."""
    return [
        name.removeprefix("train_")
        for name in history.names
        if name.startswith("train_") and name != "train_loss"
    ]


def _logged_panels(history: History) -> list[Any]:
    """Return one panel for each of the first logged values, which shows train and valid."""
    return [partial(_draw_logged, name) for name in _logged_names(history)[:_MOST_LOGGED]]


def _draw_logged(name: str, axes: Axes, history: History) -> None:
    _draw_column(axes, history, f"train_{name}", COLOURS[0], "train")
    _draw_column(axes, history, f"valid_{name}", COLOURS[1], "valid")
    axes.set_title(name.replace("_", " "), fontsize=11)
    axes.legend(frameon=False)


def _metric_panel(names: Sequence[str]) -> Any:
    def draw(axes: Axes, history: History) -> None:
        for name, colour in zip(names, COLOURS * (1 + len(names) // 6), strict=False):
            plain = name.removeprefix("valid_").replace("_", " ")
            values = history.column(name)
            mode = history.modes.get(name)
            end = f"last {values[-1]:.4g}"
            if mode is not None:
                end = f"best {min(values) if mode == 'min' else max(values):.4g}"
            _draw_column(axes, history, name, colour, f"{plain}, {end}")
        title = names[0].removeprefix("valid_").replace("_", " ") if len(names) == 1 else "metrics"
        axes.set_title(f"{title} on validation", fontsize=11)
        axes.legend(frameon=False)

    return draw


def _draw_lr(axes: Axes, history: History) -> None:
    _draw_column(axes, history, "lr", COLOURS[2], "lr")
    axes.set_title("learning rate", fontsize=11)
    values = history.column("lr")
    if min(values) > 0 and max(values) > 50 * min(values):
        axes.set_yscale("log")


def _draw_column(axes: Axes, history: History, name: str, colour: str, label: str) -> None:
    points = [
        (position, float(row[name]))
        for position, row in zip(row_positions(history), history.rows, strict=True)
        if name in row
    ]
    if points:
        positions, values = zip(*points, strict=True)
        marker = "o" if len(points) <= 30 else ""
        axes.plot(
            positions, values, color=colour, label=label, marker=marker, markersize=4, linewidth=1.5
        )
