"""Functions used by all plots: new figures, axes, colours, labels, saving.

Figures are created without pyplot, so they need no display and no backend and do not change
pyplot's state. Requires matplotlib (``flambeau[plot]``).
"""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeAlias, cast

from torch import Tensor

from flambeau.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Path: TypeAlias = str | os.PathLike[str]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
"""The Okabe-Ito palette: distinguishable also with a colour vision deficiency."""

GREY = "#5A5A5A"
"""Colour of text inside a plot."""

MIDDLE_GREY = "#8A8A8A"
"""Colour of reference lines: visible on both white and dark pages."""


def can_plot() -> bool:
    """Return whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure; ``width`` and ``height`` are in inches.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "Plots require matplotlib, which is not installed. Install it with "
            "`pip install 'flambeau[plot]'`."
        ) from error
    return Figure(figsize=(width, height), dpi=120, layout="compressed")


def axes_row(figure: Figure, n: int) -> list[Axes]:
    """Return ``n`` axes side by side."""
    return list(figure.subplots(1, n, squeeze=False)[0])


def style_axes(axes: Axes) -> None:
    """Remove the top and right spines and add a light grid."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def draw_panels(
    draws: list[Callable[[Axes], None]], width: float, height: float, path: Path | None
) -> Figure:
    """Return a figure with one panel for each function, side by side.

    Args:
        draws: Functions that draw on given axes.
        width: Width of one panel, in inches.
        height: Height of the figure, in inches.
        path: File to write; None writes no file.
    """
    figure = new_figure(width * len(draws), height)
    for axes, draw in zip(axes_row(figure, len(draws)), draws, strict=True):
        draw(axes)
    return save_figure(figure, path)


def save_figure(figure: Figure, path: Path | None) -> Figure:
    """Write the figure to ``path``, if given, and return it."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def to_list(values: Tensor) -> list[float]:
    """Return a 1-d tensor as a list for matplotlib."""
    return cast("list[float]", values.tolist())


def shorten_label(name: str, *, keep_end: bool = False) -> str:
    """Return a name as a label: at most 18 characters, with dollar signs escaped.

    Args:
        name: The name.
        keep_end: Cut the beginning off, which layers of a block have in common, not the end.
    """
    cut = name
    if len(name) > 18:
        cut = "…" + name[-17:] if keep_end else name[:17] + "…"
    return cut.replace("$", r"\$")
