"""Pictures of a run: curves and the confusion matrix. Needs matplotlib (``flambeau[plot]``)."""

# matplotlib leaves the type of its **kwargs open, so every call would be "partially unknown".
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau.figures import (
    COLOURS,
    GREY,
    Path,
    axes_of,
    numbers,
    panels,
    plain_axes,
    saved,
    short,
    sized,
)
from flambeau.training.history import History

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_COUNTS = 20  # classes up to which every cell of the matrix carries its number
_MOST_NAMES = 40
_BEST_IS_LOW = ("loss", "error", "mae", "rmse", "perplexity")


def plot_history(history: History, path: Path | None = None) -> Figure:
    """Loss of every step, smoothed, with the validation loss; metrics; learning rate; by epoch.

    Args:
        history: Of a run with at least one epoch.
        path: Where to write the picture (.png, .pdf, .svg); None writes nothing.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: The history is empty.
        MissingDependencyError: matplotlib is not installed.
    """
    return panels(history_panels(history), 4.2, 3.4, path)


def history_panels(history: History) -> list[Callable[[Axes], None]]:
    """What ``plot_history`` draws, a function for each panel.

    Raises:
        InputError: The history is empty.
    """
    if not history.rows:
        raise InputError("The history has no epoch yet; fit for at least one before plotting it.")
    draws = [_draw_loss, *_metric_panels(history)]
    if len(history.column("lr")) > 1:
        draws.append(_draw_lr)
    return [partial(_draw_by_epoch, draw, history) for draw in draws]


def _draw_by_epoch(draw: Callable[[Axes, History], None], history: History, axes: Axes) -> None:
    draw(axes, history)
    axes.set_xlabel("epoch")
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", integer=True)
    plain_axes(axes)


def plot_confusion(
    matrix: Tensor | Sequence[Sequence[int]], classes: Sequence[str], path: Path | None = None
) -> Figure:
    """Counts by true and predicted class, coloured by the share of the true class.

    Args:
        matrix: ``(classes, classes)``, rows the truth, as ``ConfusionMatrix.matrix``.
        classes: Names in the order of rows and columns.
        path: Where to write the picture (.png, .pdf, .svg); None writes nothing.

    Returns:
        A matplotlib figure.

    Raises:
        InputError: The matrix is not square, or has another size than there are classes.
        MissingDependencyError: matplotlib is not installed.
    """
    counts = torch.as_tensor(matrix).cpu()
    n = len(classes)
    if counts.shape != (n, n):
        raise InputError(
            f"The matrix has shape {tuple(counts.shape)} but there are {n} classes; "
            f"it must be ({n}, {n}), rows the truth."
        )
    share = counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)
    size = min(max(3.6, 1.9 + 0.42 * n), 12.0)
    figure = sized(size + 0.7, size)
    (axes,) = axes_of(figure, 1)
    image = axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    bar = figure.colorbar(image, ax=axes, fraction=0.04, aspect=30)
    bar.set_label("share of the true class")
    bar.outline.set_visible(False)
    _name_classes(axes, classes)
    if n <= _MOST_COUNTS:
        _write_counts(axes, counts, share)
    right, total = int(counts.diagonal().sum()), int(counts.sum())
    axes.set_title(f"{right:,} of {total:,} right ({right / max(total, 1):.1%})", fontsize=10)
    axes.spines[:].set_visible(False)
    return saved(figure, path)


# ---------------------------------------------------------------- history


def _epochs(history: History) -> list[float]:
    """Where each row stands on the axis: 1 after the first epoch."""
    return [float(number + 1) for number in range(len(history.rows))]


def _step_positions(history: History) -> list[float]:
    """Where each step stands: steps in an epoch may differ, epochs are equally wide."""
    losses, rows = len(history.step_losses), len(history.rows)
    ends = [int(step) for step in history.column("step")]
    if len(ends) < rows or any(a >= b for a, b in zip([0, *ends], ends, strict=False)):
        return [(i + 1) * rows / losses for i in range(losses)]
    first = max(0, ends[-1] - losses)  # a resumed run's history may begin later
    positions: list[float] = []
    begin = 0
    for epoch, end in enumerate(ends):
        width = end - begin
        positions += [epoch + (i + 1) / width for i in range(max(0, first - begin), width)]
        begin = end
    return positions


def _draw_loss(axes: Axes, history: History) -> None:
    losses = torch.tensor(history.step_losses, dtype=torch.float64)
    if len(losses):
        places = _step_positions(history)
        losses = losses[: len(places)]
        axes.plot(places, numbers(losses), color=COLOURS[0], alpha=0.22, linewidth=0.7)
        axes.plot(
            places, numbers(_smoothed(losses)), color=COLOURS[0], linewidth=1.6, label="train"
        )
        _limit(axes, losses, history)
    elif train := history.column("train_loss"):
        axes.plot(
            _epochs(history)[-len(train) :],
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
    """Mean over a window centred at each step, about a fortieth of the run wide."""
    half = max(1, len(losses) // 80)
    total = torch.cat([losses.new_zeros(1), losses.nan_to_num().cumsum(0)])
    here = torch.arange(len(losses))
    start, end = (here - half).clamp(min=0), (here + half + 1).clamp(max=len(losses))
    return (total[end] - total[start]) / (end - start)


def _limit(axes: Axes, losses: Tensor, history: History) -> None:
    """A few enormous steps at the start would flatten all the rest."""
    finite = losses[losses.isfinite()]
    if len(finite) < 20:
        return
    valid = [value for value in history.column("valid_loss") if math.isfinite(value)]
    top = max([float(finite.quantile(0.98)), *valid])
    low = min([float(finite.min()), *valid])
    if low < top < float(finite.max()):
        axes.set_ylim(low - 0.05 * (top - low), top + 0.1 * (top - low))


def _metric_panels(history: History) -> list[Any]:
    """Metrics between 0 and 1 share a panel; each of the others has its own."""
    names = list(dict.fromkeys(name for row in history.rows for name in row))
    metrics = [n for n in names if n.startswith("valid_") and n != "valid_loss"]
    shares = [
        name
        for name in metrics
        if all(0 <= value <= 1 for value in history.column(name))
        and not any(word in name for word in _BEST_IS_LOW)
    ]
    groups = [[n] for n in metrics if n not in shares]
    if shares:
        groups.insert(0, shares)
    return [_metric_panel(group) for group in groups[:3]]


def _metric_panel(names: Sequence[str]) -> Any:
    def draw(axes: Axes, history: History) -> None:
        for name, colour in zip(names, COLOURS * (1 + len(names) // 6), strict=False):
            plain = name.removeprefix("valid_").replace("_", " ")
            values = history.column(name)
            low = any(word in plain for word in _BEST_IS_LOW)
            best = min(values) if low else max(values)
            _draw_column(axes, history, name, colour, f"{plain}, best {best:.4g}")
        title = names[0].removeprefix("valid_").replace("_", " ") if len(names) == 1 else "metrics"
        axes.set_title(f"{title} on valid", fontsize=11)
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
        (place, float(row[name]))
        for place, row in zip(_epochs(history), history.rows, strict=True)
        if name in row
    ]
    if points:
        places, values = zip(*points, strict=True)
        marker = "o" if len(points) <= 30 else ""
        axes.plot(
            places, values, color=colour, label=label, marker=marker, markersize=4, linewidth=1.5
        )


# ---------------------------------------------------------------- confusion matrix


def _name_classes(axes: Axes, classes: Sequence[str]) -> None:
    n = len(classes)
    ticks = list(range(0, n, -(-n // _MOST_NAMES)))
    names = [short(classes[i]) for i in ticks]
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
    axes.set_ylabel("true")


def _write_counts(axes: Axes, counts: Tensor, share: Tensor) -> None:
    n = len(counts)
    for row in range(n):
        for column in range(n):
            count = int(counts[row, column])
            if count:
                axes.text(
                    column,
                    row,
                    str(count),
                    ha="center",
                    va="center",
                    fontsize=9 if n <= 12 else 7,
                    color="white" if float(share[row, column]) > 0.55 else GREY,
                )
