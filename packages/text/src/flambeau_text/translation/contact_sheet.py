"""``predictions_sheet``: saves a figure of some translations with their references."""

# matplotlib leaves the type of its **kwargs open, so every call would be "partially unknown".
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence

from flambeau.plotting import COLOURS, GREY, Path, axes_row, new_figure, save_figure

_SHOWN = 8
_MAX_CHARACTERS = 95


def predictions_sheet(
    sources: Sequence[str], references: Sequence[str], predictions: Sequence[str], path: Path
) -> None:
    """Save a figure with sources and translations.

    A translation that equals its reference is green; any other has another colour, and its
    reference is shown too.

    Args:
        sources: The source sentences.
        references: Reference translations of the sources.
        predictions: The model's translations.
        path: File of the figure.
    """
    shown = range(min(_SHOWN, len(sources)))
    figure = new_figure(9.0, 0.62 * len(shown) + 0.3)
    (axes,) = axes_row(figure, 1)
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(-len(shown), 0.2)
    for row in shown:
        prediction, reference = predictions[row], references[row]
        correct = prediction == reference
        axes.text(0.0, -row, _shorten(sources[row]), fontsize=9, va="top", color=GREY)
        colour = COLOURS[2] if correct else COLOURS[1]
        text = prediction if correct else f"{prediction}   (reference: {reference})"
        axes.text(0.02, -row - 0.38, _shorten(text), fontsize=9, va="top", color=colour)
    save_figure(figure, path)


def _shorten(text: str) -> str:
    short = text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + "…"
    return short.replace("$", r"\$")
