"""The figure of a ``SampleExplanation``: attributions, and images of the nearest train samples."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch.nn.functional as F

from flambeau.errors import InputError
from flambeau.inspect.stage_figure import decoded_image
from flambeau.plotting import COLOURS, new_figure, save_figure, shorten_label, style_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from flambeau.data.attributions import Attributions
    from flambeau.inspect.sample_explanation import SampleExplanation

_MOST_PARTS = 30
_SMOOTHING = 28  # windows over which the values of pixels are averaged, along an axis
_SIDE = 1.9  # inches of an image


def plot_explanation(explanation: SampleExplanation, path: Path | None = None) -> Figure:
    """Plot the attributions of the sample, and the images of its nearest train samples.

    Raises:
        InputError: There are neither attributions nor images.
        MissingDependencyError: matplotlib is not installed.
    """
    found = explanation.attributions
    images = [each for each in explanation.neighbours if each.image is not None]
    if found is None and not images:
        raise InputError("The explanation has neither attributions nor images to plot.")
    if found is not None and found.parts:
        return save_figure(_plot_parts(explanation, found), path)
    maps = 2 if found is not None and found.heat is not None else 0
    figure = new_figure(_SIDE * max(maps, len(images), 1), 2.3 * (bool(maps) + bool(images)))
    rows = figure.subplots(bool(maps) + bool(images), max(maps, len(images), 1), squeeze=False)
    for axes in rows.flat:
        axes.set_axis_off()
    if maps and found is not None:
        _draw_maps(rows[0], explanation, found)
    for axes, each in zip(rows[-1] if images else (), images, strict=False):
        axes.imshow(decoded_image(cast("bytes", each.image)), cmap="gray")
        axes.set_title(f"{each.target}\n{each.number}, cosine {each.similarity:.3f}", fontsize=8)
    return save_figure(figure, path)


def _draw_maps(row: Any, explanation: SampleExplanation, found: Attributions) -> None:
    image, heat = found.image, found.heat
    if image is None or heat is None:
        return
    row[0].imshow(image.numpy())
    row[0].set_title(f"predicted {explanation.predicted}\n{_target(explanation)}", fontsize=8)
    window = max(1, round(max(heat.shape) / _SMOOTHING)) // 2 * 2 + 1
    smooth = F.avg_pool2d(heat[None, None], window, 1, window // 2, count_include_pad=False)[0, 0]
    largest = float(smooth.abs().max()) or 1.0
    row[1].imshow(image.float().mean(-1).numpy(), cmap="gray", alpha=0.35)
    row[1].imshow(smooth.numpy(), cmap="RdBu_r", vmin=-largest, vmax=largest, alpha=0.75)
    row[1].set_title(f"what moves {found.output}:\nred raises it, blue lowers it", fontsize=8)


def _target(explanation: SampleExplanation) -> str:
    return f"target {explanation.target}" if explanation.target else ""


def _plot_parts(explanation: SampleExplanation, found: Attributions) -> Figure:
    """Plot the parts as bars: all in their order, or the strongest ones of many."""
    pairs = list(zip(found.parts, found.values, strict=True))
    if len(pairs) > _MOST_PARTS:
        order = sorted(range(len(pairs)), key=lambda i: -abs(pairs[i][1]))[:_MOST_PARTS]
        pairs = [pairs[i] for i in sorted(order)]
    figure = new_figure(6.0, 1.1 + 0.2 * len(pairs))
    axes: Axes = figure.subplots()
    values = [value for _, value in pairs]
    colours = [COLOURS[1] if value > 0 else COLOURS[0] for value in values]
    axes.barh(range(len(pairs)), values, height=0.75, color=colours)
    axes.set_yticks(range(len(pairs)), [shorten_label(name) for name, _ in pairs], fontsize=8)
    axes.set_ylim(len(pairs) - 0.4, -0.6)
    axes.axvline(0.0, color="black", linewidth=0.6)
    axes.set_title(f"what moves {found.output} (predicted {explanation.predicted})", fontsize=10)
    style_axes(axes)
    return figure
