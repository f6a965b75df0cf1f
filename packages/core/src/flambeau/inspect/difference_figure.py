"""The figure of a ``ModelDifference``: change, rank of the change and CKA of each layer."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flambeau.errors import InputError
from flambeau.plotting import COLOURS, new_figure, save_figure, shorten_label, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flambeau.inspect.model_difference import LayerChange, ModelDifference

_MOST_LAYERS = 60


def plot_difference(difference: ModelDifference, path: Path | None = None) -> Figure:
    """Plot the layers from top to bottom, with a panel for each quantity.

    Of more than 60 layers evenly spaced ones are drawn, and the one that changed most.

    Raises:
        InputError: The models have no layer in common.
        MissingDependencyError: matplotlib is not installed.
    """
    layers = _drawn(difference.layers)
    if not layers:
        raise InputError("The models have no layer in common, so there is nothing to plot.")
    similarities = [difference.similarities.get(each.name, math.nan) for each in layers]
    panels = [
        ("change of the weights (%)", [100 * each.change for each in layers], True),
        ("rank of the change (% of full)", [_rank_share(each) for each in layers], False),
    ]
    if difference.similarities:
        panels.append(("CKA of the outputs", similarities, False))
    figure = new_figure(2.2 + 2.4 * len(panels), 1.1 + 0.19 * len(layers))
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for index, (title, values, is_logarithmic) in enumerate(panels):
        _draw(grid[index], title, values, COLOURS[index], is_logarithmic=is_logarithmic)
    names = [shorten_label(each.name, keep_end=True) for each in layers]
    grid[0].set_yticks(range(len(layers)), names, fontsize=8)
    grid[0].set_ylim(len(layers) - 0.4, -0.6)
    if difference.similarities:
        grid[-1].set_xlim(0, 1.02)
    return save_figure(figure, path)


def _drawn(layers: Sequence[LayerChange]) -> list[LayerChange]:
    if len(layers) <= _MOST_LAYERS:
        return list(layers)
    spacing = math.ceil(len(layers) / (_MOST_LAYERS - 1))
    chosen = set(range(0, len(layers), spacing))
    finite = [i for i, each in enumerate(layers) if math.isfinite(each.change)]
    chosen |= {max(finite, key=lambda i: layers[i].change)} if finite else set()
    return [layers[i] for i in sorted(chosen)]


def _rank_share(layer: LayerChange) -> float:
    largest = layer.largest
    if largest is None or not largest.full_rank:
        return math.nan
    return 100 * largest.rank / largest.full_rank


def _draw(
    axes: Axes, title: str, values: Sequence[float], colour: str, *, is_logarithmic: bool
) -> None:
    places = [i for i, value in enumerate(values) if math.isfinite(value)]
    shown = [values[i] for i in places]
    positive = [value for value in shown if value > 0]
    if is_logarithmic and positive and max(positive) > 30 * min(positive):
        axes.set_xscale("log")
    axes.barh(places, shown, height=0.7, color=colour)
    axes.set_title(title, fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    style_axes(axes)
