"""``plot_attention``: plots the attention of translations as heatmaps."""

# matplotlib leaves the type of its **kwargs open, so every call would be "partially unknown".
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from flambeau.errors import InputError
from flambeau.plotting import Path, axes_row, new_figure, save_figure, shorten_label
from flambeau_text.translation.predictions import DetailedTranslation

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INCHES_PER_TOKEN = 0.27
_MARGIN = 1.3


def plot_attention(
    translations: DetailedTranslation | Sequence[DetailedTranslation], path: Path | None = None
) -> Figure:
    """Plot attention weights of translations: source tokens horizontal, target tokens vertical.

    Args:
        translations: One translation returned by ``translate``, or several, drawn side by side.
        path: File of the figure (.png, .pdf, .svg); None writes no file.

    Raises:
        InputError: There is no translation, or one has no attention.
        MissingDependencyError: matplotlib is not installed.
    """
    given = [translations] if isinstance(translations, DetailedTranslation) else list(translations)
    if not given or any(each.attention is None for each in given):
        raise InputError(
            "There is no attention to plot. Give at least one translation, returned by "
            "translate(…) for a model that computes attention."
        )
    widths = [_MARGIN + _INCHES_PER_TOKEN * len(each.source_tokens) for each in given]
    height = _MARGIN + _INCHES_PER_TOKEN * max(len(each.tokens) for each in given)
    figure = new_figure(sum(widths), max(height, 2.2))
    for axes, each in zip(axes_row(figure, len(given)), given, strict=True):
        draw_attention(axes, each)
    return save_figure(figure, path)


def attention_panel(translation: DetailedTranslation) -> partial[None]:
    """Return a function that draws the attention of one translation on the axes it is given."""
    return partial(_draw, translation)


def _draw(translation: DetailedTranslation, axes: Axes) -> None:
    draw_attention(axes, translation)


def draw_attention(axes: Axes, translation: DetailedTranslation) -> None:
    """Draw the attention of one translation.

    Args:
        axes: The axes to draw on.
        translation: A translation with attention.

    Raises:
        InputError: The translation has no attention.
    """
    if translation.attention is None:
        raise InputError(
            "The translation has no attention to plot: its model computes none. Use a model with "
            "attention."
        )
    axes.imshow(translation.attention.numpy(), cmap="Blues", vmin=0.0, vmax=1.0, aspect="auto")
    sources = [shorten_label(token) for token in translation.source_tokens]
    targets = [shorten_label(token) for token in translation.tokens]
    axes.set_xticks(range(len(sources)), sources, rotation=90, fontsize=8)
    axes.set_yticks(range(len(targets)), targets, fontsize=8)
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
