"""``inline_svg``: a matplotlib figure as inline SVG that uses the colours of the page."""

# matplotlib's **kwargs are untyped, so pyright would report every call as partially unknown.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import html
import io
import re
from typing import TYPE_CHECKING

from flambeau.plotting import COLOURS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_POINT = 96 / 72  # CSS pixels

# Black becomes the text colour of the page, and the first colour its accent colour, which is
# lighter on a dark page.
_REPLACEMENTS = {"#000000": "currentColor", COLOURS[0].lower(): f"var(--accent, {COLOURS[0]})"}


def inline_svg(figure: Figure, label: str, number: int) -> str:
    """Return an ``<svg>`` element without background, with text kept as text.

    Args:
        figure: A matplotlib figure.
        label: Text alternative for screen readers.
        number: Number of the figure in the page; makes the ids in it unique.
    """
    import matplotlib

    file = io.StringIO()
    # With a fixed salt, the same figure gives the same text.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "flambeau"}):
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    # Remove the elements that are only for SVG files, or that would style the whole page.
    text = re.sub(r"<(metadata|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    # Change only tags: the text between them is the user's.
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
    for colour, replacement in _REPLACEMENTS.items():
        tag = re.sub(re.escape(colour), replacement, tag, flags=re.IGNORECASE)
    # Use the font of the page: matplotlib's may not be installed.
    tag = re.sub(r'font-family: [^;"]*', "font-family: var(--sans)", tag)
    return re.sub(r'font: ([^;"]*?[\d.]+px) [^;"]*', r"font: \1 var(--sans)", tag)
