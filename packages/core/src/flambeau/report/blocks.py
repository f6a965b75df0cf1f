"""What a page is made of: text, tables, figures, pictures. Whatever a user wrote is escaped."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Protocol

from torch import Tensor

from flambeau.data.preview import Preview
from flambeau.errors import InputError
from flambeau.report.svg import inline_svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_NUMBER = "–"


class Block(Protocol):
    """Anything that a section may hold; a class of your own with this method is one too."""

    def html(self, number: int) -> str:
        """The block as HTML that needs no network and no script.

        Args:
            number: Of the block in its page; for names that must not be given twice.
        """
        ...


@dataclass(frozen=True)
class Text(Block):
    """A paragraph.

    Attributes:
        text: Plain words; an empty line begins a new paragraph.
        note: Whether it is an aside, in smaller letters.
    """

    text: str
    note: bool = False

    def html(self, number: int) -> str:
        opening = '<p class="note">' if self.note else "<p>"
        parts = [part.strip() for part in self.text.split("\n\n")]
        return "".join(f"{opening}{escape(part)}</p>" for part in parts if part)


@dataclass(frozen=True)
class Preformatted(Block):
    """Text whose lines and columns stay as they are; a line that is too long wraps.

    Attributes:
        text: As for a terminal.
    """

    text: str

    def html(self, number: int) -> str:
        return f"<pre>{escape(self.text)}</pre>"


@dataclass(frozen=True)
class Table(Block):
    """A table that scrolls in its own box where it is wider than the page.

    Attributes:
        headers: One a column.
        rows: Cells by row. Numbers stand to the right, floats with about four digits; None and
            numbers that are not finite leave a dash.
        prose: Columns by number that hold sentences: they wrap, others do not. On a narrow screen
            the cells of such a table stand below one another.

    Raises:
        InputError: A row has another number of cells than there are headers.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]
    prose: Sequence[int] = ()

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.headers):
                raise InputError(
                    f"Row {number} of the table has {len(row)} cells for {len(self.headers)} "
                    f"headers ({', '.join(self.headers)}). None leaves a cell empty."
                )

    def html(self, number: int) -> str:
        stacked = ' class="stacked"' if self.prose else ""
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.headers)
        body = "".join(
            "<tr>" + "".join(self._cell(cell, place) for place, cell in enumerate(row)) + "</tr>"
            for row in self.rows
        )
        return (
            f'<div class="scroll" tabindex="0"><table{stacked}><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def _cell(self, cell: object, place: int) -> str:
        if self.prose:
            kind = "prose" if place in self.prose else "plain"
            name = escape(self.headers[place])
            return f'<td class="{kind}" data-name="{name}">{escape(number_text(cell))}</td>'
        is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
        kind = ' class="number"' if is_number or cell is None else ""
        return f"<td{kind}>{escape(number_text(cell))}</td>"


@dataclass(frozen=True)
class Matrix(Block):
    """A square of counts, coloured by the share of the row; for about twenty names at most.

    Attributes:
        names: Of rows and columns.
        counts: ``(names, names)``.
        rows: What the rows are.
        columns: What the columns are.
    """

    names: Sequence[str]
    counts: Tensor
    rows: str = "true"
    columns: str = "predicted"

    def html(self, number: int) -> str:
        share = self.counts.double() / self.counts.double().sum(dim=1, keepdim=True).clamp(min=1)
        upright = ' class="upright"' if max(map(len, self.names)) * len(self.names) > 24 else ""
        head = "".join(
            f'<th scope="col"{upright}><span>{escape(name)}</span></th>' for name in self.names
        )
        lines: list[str] = []
        for row, name in enumerate(self.names):
            cells = "".join(
                self._cell(int(self.counts[row, column]), float(share[row, column]))
                for column in range(len(self.names))
            )
            lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
        return (
            '<div class="scroll" tabindex="0"><table class="matrix"><thead><tr><td></td>'
            f'<th colspan="{len(self.names)}" class="axis">{escape(self.columns)}</th></tr>'
            f'<tr><th class="axis">{escape(self.rows)}</th>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>"
        )

    def _cell(self, count: int, share: float) -> str:
        if not count:
            return "<td></td>"
        ink = "color:#fff;" if share > 0.8 else ""
        # Never fully transparent: one wrong answer of a thousand should be seen.
        style = f"{ink}background:rgb(0 114 178/{0.08 + 0.92 * share:.2f})"
        return f'<td style="{style}" title="{share:.1%}">{count:,}</td>'


@dataclass(frozen=True)
class Figures(Block):
    """Plots beside one another where there is room, else below.

    Attributes:
        drawings: Matplotlib figures with what each shows, for those who cannot see it.
        least_width: CSS pixels below which a plot is not squeezed but scrolls; 0 squeezes.
    """

    drawings: Sequence[tuple[Figure, str]]
    least_width: int = 0

    def html(self, number: int) -> str:
        parts: list[str] = []
        for place, (drawing, label) in enumerate(self.drawings):
            svg = inline_svg(drawing, label, 1000 * number + place)
            if self.least_width:
                svg = f'<div style="min-width:{self.least_width}px">{svg}</div>'
            parts.append(f'<figure class="scroll">{svg}</figure>')
        return f'<div class="figures">{"".join(parts)}</div>'


@dataclass(frozen=True)
class Cards(Block):
    """Samples in a grid, each with its picture where it has one, and words.

    Attributes:
        cards: In the order of reading; the first line of a caption is set in bold.
    """

    cards: Sequence[Preview]

    def html(self, number: int) -> str:
        parts: list[str] = []
        for card in self.cards:
            first, *rest = card.caption.split("\n")
            words = f"<b>{escape(first)}</b>" + "".join(f"<br>{escape(line)}" for line in rest)
            image = ""
            if card.image is not None:
                coded = base64.b64encode(card.image).decode("ascii")
                source = f"data:{_media_type(card.image)};base64,{coded}"
                image = f'<img src="{source}" alt="{escape(first)}">'
            parts.append(f"<figure>{image}<figcaption>{words}</figcaption></figure>")
        return f'<div class="cards">{"".join(parts)}</div>'


def number_text(value: object) -> str:
    """A cell as text: a float with about four digits, thousands apart, a dash for no number."""
    if value is None:
        return _NO_NUMBER
    if isinstance(value, float):
        if not math.isfinite(value):
            return _NO_NUMBER
        # Fixed places stand in a column; where they would lose digits or show none, four that do.
        return f"{value:.4f}" if 0.01 <= abs(value) < 10 or not value else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _media_type(image: bytes) -> str:
    known = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"GIF8": "image/gif"}
    for start, name in known.items():
        if image.startswith(start):
            return name
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    raise InputError(
        f"A picture begins with {image[:4]!r}, which is no PNG, JPEG, GIF or WebP file. Give the "
        "bytes of such a file."
    )
