"""Plots of layers over the watched steps: histograms as coloured maps. Requires matplotlib."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch

from flambeau.errors import InputError
from flambeau.inspect.watch.layer_record import LayerRecord
from flambeau.inspect.watch.log_bins import GRADIENT_BINS, OUTPUT_BINS, PER_SIGN, LogBins
from flambeau.plotting import Path, new_figure, save_figure, shorten_label
from flambeau.wording import count_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage
    from numpy.typing import NDArray

MOST_LAYERS = 24
"""Layers that are drawn; of more, those with verdicts and evenly spaced others."""

_COLOURS = "viridis"
_PANEL = (2.1, 1.75)  # inches
_MOST_ROWS = 48  # of the overview


def plot_layers(
    record: LayerRecord, path: Path | None = None, *, first: Collection[str] = ()
) -> Figure:
    """Plot the histograms of outputs and gradients of the layers, a row of two panels for each.

    Args:
        record: At least two watched steps.
        path: File to write (.png, .pdf, .svg); None writes no file.
        first: Names of layers that are drawn in any case, such as those with verdicts.

    Raises:
        InputError: Fewer than two steps were watched.
        MissingDependencyError: matplotlib is not installed.
    """
    names = drawn_layers(record, first)
    columns = 2 if len(names) > 6 else 1
    rows = math.ceil(len(names) / columns)
    figure = new_figure(2 * columns * _PANEL[0], rows * _PANEL[1])
    grid = figure.subplots(rows, 2 * columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for index, name in enumerate(names):
        row, column = index % rows, 2 * (index // rows)
        _draw_layer(record, name, grid[row, column], grid[row, column + 1])
    return save_figure(figure, path)


def plot_layer(record: LayerRecord, name: str) -> Figure:
    """Plot the histograms of the outputs and of the gradients of one layer.

    Args:
        record: The watched steps.
        name: Name of a layer with histograms, see ``drawn_layers``.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    figure = new_figure(2 * _PANEL[0], _PANEL[1])
    outputs, gradients = figure.subplots(1, 2, squeeze=False)[0]
    _draw_layer(record, name, outputs, gradients)
    return figure


def plot_overview(record: LayerRecord) -> list[tuple[Figure, str]]:
    """Return maps of all layers over the steps: gradients, updates, silent units, rank.

    Returns:
        Figures with their titles; a map without values is left out.

    Raises:
        InputError: Fewer than two steps were watched.
        MissingDependencyError: matplotlib is not installed.
    """
    _check(record)
    called = sorted((x for x in record.layers.values() if x.number), key=lambda x: x.number)
    maps: list[tuple[str, Callable[[str], Mapping[int, float]], bool]] = [
        ("size of the outputs", partial(record.series, column="rms"), True),
        ("size of the gradients", partial(record.series, column="gradient_rms"), True),
        ("update / weight", partial(_update_ratio, record), True),
        ("share of silent units", partial(_silent, record), False),
        ("effective rank / units", partial(_rank, record), False),
    ]
    found: list[tuple[Figure, str]] = []
    for title, series_of, is_log in maps:
        values = {layer.name: series_of(layer.name) for layer in called}
        values = {name: series for name, series in values.items() if series}
        if values:
            labels = [_label(record, name) for name in values]
            figure = _map_of_layers(record.steps, list(values.values()), labels, title, is_log)
            found.append((figure, f"{title}, by layer and step"))
    return found


def drawn_layers(record: LayerRecord, first: Collection[str] = ()) -> list[str]:
    """Return the names of at most ``MOST_LAYERS`` layers with histograms, in their order.

    Raises:
        InputError: Fewer than two steps were watched.
    """
    _check(record)
    named = sorted(record.layers.values(), key=lambda layer: layer.number)
    every = [each.name for each in named if record.has_histograms(each.name)]
    if len(every) <= MOST_LAYERS:
        return every
    chosen = {name for name in every if name in first}
    others = [name for name in every if name not in chosen]
    space = max(MOST_LAYERS - len(chosen), 2)
    picked = np.linspace(0, len(others) - 1, space).round().astype(int).tolist()
    chosen |= {others[index] for index in picked}
    return [name for name in every if name in chosen]


def _check(record: LayerRecord) -> None:
    if len(record.steps) < 2:
        raise InputError(
            f"The record has {count_of(len(record.steps), 'watched step')}, but a plot over time "
            "needs at least two. Train for more steps, or watch more of them: inspect(every=1)."
        )


def _label(record: LayerRecord, name: str) -> str:
    """Return the number of a layer, if it has one, and its name."""
    number, label = record.layers[name].number, shorten_label(name, keep_end=True)
    return f"{number} {label}" if number else label


def _draw_layer(record: LayerRecord, name: str, outputs: Axes, gradients: Axes) -> None:
    title = _label(record, name)
    _draw_histograms(record, name, outputs, OUTPUT_BINS, gradients=False)
    outputs.set_title(title, fontsize=8, loc="left")
    if record.histograms(name, gradients=True):
        _draw_histograms(record, name, gradients, GRADIENT_BINS, gradients=True)
        gradients.set_title("gradients", fontsize=7, loc="left")
    else:
        gradients.set_axis_off()


def _draw_histograms(
    record: LayerRecord, name: str, axes: Axes, bins: LogBins, *, gradients: bool
) -> None:
    """Draw a column of colours for each step; the square root shows rare values, too."""
    histograms = record.histograms(name, gradients=gradients)
    shares = torch.stack(list(histograms.values())).T.sqrt().numpy()
    used = np.flatnonzero(shares.max(1) > 0)
    low, high = max(int(used[0]) - 1, 0), min(int(used[-1]) + 2, len(shares))
    _image(axes, np.where(shares > 0, shares, np.nan)[low:high])
    _step_ticks(axes, list(histograms))
    ends = [index for index in (low + 1, high - 2) if abs(index - PER_SIGN) > 2]
    ticks = sorted({*ends, PER_SIGN} & set(range(low, high)))
    axes.set_yticks([tick - low for tick in ticks], [_level(bins, tick) for tick in ticks])


def _level(bins: LogBins, index: int) -> str:
    """Return the lower bound of a bin as text."""
    if index == PER_SIGN:
        return "0"
    power = bins.low + bins.octaves * (abs(index - PER_SIGN) - 1)
    digit, exponent = f"{2.0**power:.0e}".split("e")
    return f"{'-' if index < PER_SIGN else ''}{digit}e{int(exponent)}"


def _map_of_layers(
    steps: Sequence[int],
    series: Sequence[Mapping[int, float]],
    labels: Sequence[str],
    title: str,
    is_log: bool,
) -> Figure:
    kept = list(range(len(series)))
    if len(kept) > _MOST_ROWS:
        kept = sorted(set(np.linspace(0, len(series) - 1, _MOST_ROWS).round().astype(int).tolist()))
    grid = np.array([[series[i].get(step, math.nan) for step in steps] for i in kept])
    with np.errstate(divide="ignore", invalid="ignore"):
        shown = np.log10(grid) if is_log else grid
    shown[~np.isfinite(shown)] = np.nan
    figure = new_figure(4.2, 0.9 + 0.17 * max(len(kept), 4))
    axes = figure.subplots()
    image = _image(axes, shown, origin="upper")
    _step_ticks(axes, steps)
    axes.set_yticks(range(len(kept)), [labels[i] for i in kept])
    axes.set_title(title, fontsize=9, loc="left")
    bar = figure.colorbar(image, ax=axes, pad=0.02, fraction=0.06)
    bar.ax.tick_params(labelsize=7)
    if is_log:
        bar.ax.yaxis.set_major_formatter(lambda value, position: f"{10.0**value:.0e}")
    return figure


def _image(axes: Axes, values: NDArray[np.float64], origin: str = "lower") -> AxesImage:
    axes.set_axis_on()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=7, length=2)
    kind = "upper" if origin == "upper" else "lower"
    return axes.imshow(values, aspect="auto", origin=kind, cmap=_COLOURS, interpolation="nearest")


def _step_ticks(axes: Axes, steps: Sequence[int]) -> None:
    """Label some of the columns with their step; columns are equally wide."""
    chosen = sorted(set(np.linspace(0, len(steps) - 1, min(len(steps), 4)).round().astype(int)))
    axes.set_xticks(chosen, [f"{steps[index]:,}" for index in chosen])


def _update_ratio(record: LayerRecord, layer: str) -> dict[int, float]:
    """Return the ratio of update and weight of the largest matrix of a layer, by step."""
    own = [w for w in record.weights.values() if w.layer == layer and len(w.shape) > 1]
    if not own:
        return {}
    name = max(own, key=lambda weight: weight.size).name
    norms = record.weight_series(name, "norm")
    updates = record.weight_series(name, "update_norm")
    return {step: value / norms[step] for step, value in updates.items() if norms.get(step)}


def _silent(record: LayerRecord, layer: str) -> dict[int, float]:
    units = max(record.layers[layer].units, 1)
    return {step: value / units for step, value in record.series(layer, "silent").items()}


def _rank(record: LayerRecord, layer: str) -> dict[int, float]:
    # The rank is computed from at most 512 units and 256 samples.
    units = max(min(record.layers[layer].units, 256), 1)
    return {step: value / units for step, value in record.series(layer, "rank").items()}
