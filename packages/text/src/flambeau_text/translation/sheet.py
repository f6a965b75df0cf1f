"""A picture of a few translations beside the true ones."""

# matplotlib leaves the type of its **kwargs open, so every call would be "partially unknown".
# pyright: reportUnknownMemberType=false

from __future__ import annotations

from collections.abc import Sequence

from flambeau.figures import COLOURS, GREY, Path, axes_of, saved, sized

_SHOWN = 8
_WIDEST = 95


def draw_answers(
    sources: Sequence[str], references: Sequence[str], answers: Sequence[str], path: Path
) -> None:
    """Sources, and below each the answer: green where it is the reference, else both.

    Args:
        sources: What was translated.
        references: True translations.
        answers: The model's.
        path: Where the picture is written.
    """
    shown = range(min(_SHOWN, len(sources)))
    figure = sized(9.0, 0.62 * len(shown) + 0.3)
    (axes,) = axes_of(figure, 1)
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(-len(shown), 0.2)
    for row in shown:
        right = answers[row] == references[row]
        axes.text(0.0, -row, _cut(sources[row]), fontsize=9, va="top", color=GREY)
        colour = COLOURS[2] if right else COLOURS[1]
        said = answers[row] if right else f"{answers[row]}   (true: {references[row]})"
        axes.text(0.02, -row - 0.38, _cut(said), fontsize=9, va="top", color=colour)
    saved(figure, path)


def _cut(text: str) -> str:
    cut = text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
    return cut.replace("$", r"\$")
