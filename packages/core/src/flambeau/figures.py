"""What every plot of the report shares: size, colours, and a quiet look.

Figures are made without pyplot, so nothing depends on a display, on a backend or on what else has
been drawn. Needs matplotlib (``flambeau[plot]``).
"""

# matplotlib leaves the type of its **kwargs open, so every call would be "partially unknown".
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
"""Okabe and Ito's colours, which stay apart for every kind of colour vision."""

GREY = "#5A5A5A"
"""For words within a picture, where black would shout."""

MIDDLE_GREY = "#8A8A8A"
"""For lines of reference: stands off from white and from a dark page alike."""


def can_plot() -> bool:
    """Whether matplotlib is installed."""
    return find_spec("matplotlib") is not None


def sized(width: float, height: float) -> Figure:
    """An empty figure of so many inches.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError(
            "Plots need matplotlib, which is not installed. Install it with "
            "`pip install 'flambeau[plot]'`."
        ) from error
    return Figure(figsize=(width, height), dpi=120, layout="compressed")


def axes_of(figure: Figure, n: int) -> list[Axes]:
    """``n`` axes side by side."""
    return list(figure.subplots(1, n, squeeze=False)[0])


def plain_axes(axes: Axes) -> None:
    """No box around the axes, a faint grid within."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.set_axisbelow(True)


def panels(
    draws: list[Callable[[Axes], None]], width: float, height: float, path: Path | None
) -> Figure:
    """A figure with what each of ``draws`` puts on axes of its own, side by side."""
    figure = sized(width * len(draws), height)
    for axes, draw in zip(axes_of(figure, len(draws)), draws, strict=True):
        draw(axes)
    return saved(figure, path)


def saved(figure: Figure, path: Path | None) -> Figure:
    """The figure, written to ``path`` where that is given."""
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def numbers(values: Tensor) -> list[float]:
    """The values of a 1-d tensor for matplotlib."""
    return cast("list[float]", values.tolist())


def short(name: str) -> str:
    """A name as a label: cut when long, and no formula where it has dollar signs."""
    cut = name if len(name) <= 18 else name[:17] + "…"
    return cut.replace("$", r"\$")
