"""A matplotlib figure as SVG that lies within a page and takes on its colours."""

# matplotlib leaves the type of its **kwargs open, so every call would be "partially unknown".
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING

from flambeau.figures import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINT = 96 / 72  # CSS pixels

# Lines and words in black follow the page's ink; the first colour has a lighter twin in the dark.
_FOLLOWING = {"#000000": "currentColor", COLOURS[0].lower(): f"var(--accent, {COLOURS[0]})"}


def inline_svg(figure: Figure, label: str, number: int) -> str:
    """An ``<svg>`` element without background, its words kept as words.

    Args:
        figure: A matplotlib figure.
        label: What a person who cannot see it is told.
        number: Of the figure in the page; keeps the names within it apart from those of others.
    """
    import matplotlib

    file = io.StringIO()
    # A fixed salt makes the same figure the same text.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "flambeau"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # What of it concerns a file of its own, or the whole page, stays out.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    # Only within tags: between them stand words of the user's.
    text = re.sub(r"<[^>]*>", lambda tag: _adapted(tag.group(), number), text)
    width, height = (size * 72 * _POINT for size in figure.get_size_inches())
    opening = (
        f'<svg role="img" aria-label="{html.escape(label)}" fill="currentColor" '
        f'style="width:100%;max-width:{width:.0f}px" viewBox="0 0 {width / _POINT:g} '
        f'{height / _POINT:g}" xmlns="http://www.w3.org/2000/svg" '
        'xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    return opening + text[text.index(">") + 1 :].strip()


def _adapted(tag: str, number: int) -> str:
    tag = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>f{number}-", tag)
    for colour, following in _FOLLOWING.items():
        tag = re.sub(re.escape(colour), following, tag, flags=re.IGNORECASE)
    # The family is the page's: what was drawn with may not be there.
    tag = re.sub(r'font-family: [^;"]*', "font-family: var(--sans)", tag)
    return re.sub(r'font: ([^;"]*?[\d.]+px) [^;"]*', r"font: \1 var(--sans)", tag)
