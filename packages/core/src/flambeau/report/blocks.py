"""The blocks of a page: text, tables, plots, images. All text is escaped."""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from torch import Tensor

from flambeau.data.preview import Preview
from flambeau.errors import InputError
from flambeau.report.svg import inline_svg
from flambeau.report.text_table import count_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NO_VALUE = "–"


class Block(Protocol):
    """The protocol of the blocks that a section may contain."""

    def html(self, number: int) -> str:
        """Return the block as HTML without scripts and without links to other files.

        Args:
            number: Position of the block in the page, for ids that must be unique.
        """
        ...


@runtime_checkable
class PlainBlock(Block, Protocol):
    """A block that a page can also write as Markdown and as JSON, as the blocks of core are."""

    def markdown(self) -> str:
        """Return the block as Markdown."""
        ...

    def content(self) -> object:
        """Return the block as JSON values."""
        ...


@dataclass(frozen=True)
class Text(Block):
    """A paragraph.

    Attributes:
        text: Plain text; an empty line starts a new paragraph.
        note: Whether it is a side note, in a smaller font.
    """

    text: str
    note: bool = False

    def html(self, number: int) -> str:
        opening = '<p class="note">' if self.note else "<p>"
        parts = [part.strip() for part in self.text.split("\n\n")]
        return "".join(f"{opening}{escape(part)}</p>" for part in parts if part)

    def markdown(self) -> str:
        """Return the paragraphs."""
        return "\n\n".join(_markdown_text(part) for part in self.text.split("\n\n"))

    def content(self) -> object:
        """Return the text."""
        return {"text": self.text}


@dataclass(frozen=True)
class Preformatted(Block):
    """Text in a fixed-width font with its line breaks kept; long lines wrap.

    Attributes:
        text: Text as printed in a terminal.
    """

    text: str

    def html(self, number: int) -> str:
        return f"<pre>{escape(self.text)}</pre>"

    def markdown(self) -> str:
        """Return the text in a fenced block."""
        fence = "```"
        while fence in self.text:
            fence += "`"
        return f"{fence}\n{self.text}\n{fence}"

    def content(self) -> object:
        """Return the text."""
        return {"text": self.text}


@dataclass(frozen=True)
class Table(Block):
    """A table that scrolls horizontally if it is wider than the page.

    Attributes:
        headers: One per column.
        rows: Cells by row. Numbers are aligned right, floats have about four digits; None, NaN
            and infinity become a dash.
        prose: Indices of the columns that contain sentences: these wrap, others do not. On a
            narrow screen the cells of such a table are stacked.

    Raises:
        InputError: A row and the headers differ in length.
    """

    headers: Sequence[str]
    rows: Sequence[Sequence[object]]
    prose: Sequence[int] = ()

    def __post_init__(self) -> None:
        for number, row in enumerate(self.rows):
            if len(row) != len(self.headers):
                raise InputError(
                    f"Row {number} of the table has {len(row)} cells for {len(self.headers)} "
                    f"headers ({', '.join(self.headers)}). Use None for an empty cell."
                )

    def html(self, number: int) -> str:
        stacked = ' class="stacked"' if self.prose else ""
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.headers)
        body = "".join(
            "<tr>" + "".join(self._cell(cell, column) for column, cell in enumerate(row)) + "</tr>"
            for row in self.rows
        )
        return (
            f'<div class="scroll" tabindex="0"><table{stacked}><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )

    def markdown(self) -> str:
        """Return the table with pipes."""
        lines: list[Sequence[str]] = [self.headers, ["---"] * len(self.headers)]
        lines += [[number_text(cell) for cell in row] for row in self.rows]
        rows = [[_markdown_text(cell).replace("|", "\\|") for cell in row] for row in lines]
        return "\n".join(f"| {' | '.join(row)} |" for row in rows)

    def content(self) -> object:
        """Return headers and cells, numbers in full."""
        return {"headers": list(self.headers), "rows": [list(row) for row in self.rows]}

    def _cell(self, cell: object, column: int) -> str:
        if self.prose:
            kind = "prose" if column in self.prose else "plain"
            name = escape(self.headers[column])
            return f'<td class="{kind}" data-name="{name}">{escape(number_text(cell))}</td>'
        is_number = isinstance(cell, int | float) and not isinstance(cell, bool)
        kind = ' class="number"' if is_number or cell is None else ""
        return f"<td{kind}>{escape(number_text(cell))}</td>"


@dataclass(frozen=True)
class Matrix(Block):
    """A square matrix of counts, coloured by their share of the row; for up to about 20 names.

    Attributes:
        names: Names of the rows and of the columns.
        counts: ``(names, names)``.
        rows: Title of the rows.
        columns: Title of the columns.
    """

    names: Sequence[str]
    counts: Tensor
    rows: str = "target"
    columns: str = "predicted"

    def html(self, number: int) -> str:
        share = self.counts.double() / self.counts.double().sum(dim=1, keepdim=True).clamp(
            min=1e-300
        )
        upright = ' class="upright"' if max(map(len, self.names)) * len(self.names) > 24 else ""
        head = "".join(
            f'<th scope="col"{upright}><span>{escape(name)}</span></th>' for name in self.names
        )
        lines: list[str] = []
        for row, name in enumerate(self.names):
            cells = "".join(
                self._cell(self.counts[row, column].item(), float(share[row, column]))
                for column in range(len(self.names))
            )
            lines.append(f'<tr><th scope="row">{escape(name)}</th>{cells}</tr>')
        return (
            '<div class="scroll" tabindex="0"><table class="matrix"><thead><tr><td></td>'
            f'<th colspan="{len(self.names)}" class="axis">{escape(self.columns)}</th></tr>'
            f'<tr><th class="axis">{escape(self.rows)}</th>{head}</tr></thead>'
            f"<tbody>{''.join(lines)}</tbody></table></div>"
        )

    def markdown(self) -> str:
        """Return the counts as a table."""
        headers = [f"{self.rows} \\ {self.columns}", *self.names]
        rows = [
            [name, *(count_text(float(each)) for each in row)]
            for name, row in zip(self.names, self.counts, strict=True)
        ]
        return Table(headers, rows).markdown()

    def content(self) -> object:
        """Return names and counts."""
        counts = [[float(each) for each in row] for row in self.counts]
        return {"names": list(self.names), "counts": counts}

    def _cell(self, count: float, share: float) -> str:
        if not count:
            return "<td></td>"
        ink = "color:#fff;" if share > 0.8 else ""
        # Never fully transparent, so that one wrong prediction in a thousand is visible.
        style = f"{ink}background:rgb(0 114 178/{0.08 + 0.92 * share:.2f})"
        return f'<td style="{style}" title="{share:.1%}">{count_text(count)}</td>'


@dataclass(frozen=True)
class Figures(Block):
    """Plots side by side if the page is wide enough, otherwise below each other.

    Attributes:
        figures: Matplotlib figures, each with a text alternative for screen readers.
        min_width: Width in CSS pixels below which a plot scrolls instead of shrinking; 0 always
            shrinks.
        table: The numbers of the plots, in place of the plots in Markdown and JSON.
    """

    figures: Sequence[tuple[Figure, str]]
    min_width: int = 0
    table: Table | None = None

    def html(self, number: int) -> str:
        parts: list[str] = []
        for position, (figure, label) in enumerate(self.figures):
            svg = inline_svg(figure, label, 1000 * number + position)
            if self.min_width:
                svg = f'<div style="min-width:{self.min_width}px">{svg}</div>'
            parts.append(f'<figure class="scroll">{svg}</figure>')
        return f'<div class="figures">{"".join(parts)}</div>'

    def markdown(self) -> str:
        """Return the table, or the text alternatives of the plots."""
        if self.table is not None:
            return self.table.markdown()
        return "\n\n".join(f"*Plot: {_markdown_text(label)}*" for _, label in self.figures)

    def content(self) -> object:
        """Return the table, or the text alternatives of the plots."""
        if self.table is not None:
            return self.table.content()
        return {"plots": [label for _, label in self.figures]}


@dataclass(frozen=True)
class Cards(Block):
    """Samples in a grid, each with a caption and, if available, an image.

    Attributes:
        cards: The samples in order; the first line of a caption is bold.
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

    def markdown(self) -> str:
        """Return the captions as a list."""
        texts = ["; ".join(card.caption.split("\n")) for card in self.cards]
        return "\n".join(f"- {_markdown_text(text)}" for text in texts)

    def content(self) -> object:
        """Return the captions."""
        return {"cards": [card.caption for card in self.cards]}


def number_text(value: object) -> str:
    """Return a cell as text: floats with about four digits, a dash for None, NaN, infinity."""
    if value is None:
        return _NO_VALUE
    if isinstance(value, float):
        if not math.isfinite(value):
            return _NO_VALUE
        # Four decimals align in a column; use four significant digits where those would be lost.
        return f"{value:.4f}" if 0.01 <= abs(value) < 10 or not value else f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _markdown_text(text: str) -> str:
    """Return text in one line, with the characters escaped that Markdown or HTML would read."""
    line = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>#])", r"\\\1", line)


def _media_type(image: bytes) -> str:
    known = {b"\x89PNG": "image/png", b"\xff\xd8": "image/jpeg", b"GIF8": "image/gif"}
    for start, name in known.items():
        if image.startswith(start):
            return name
    if image[:4] == b"RIFF" and image[8:12] == b"WEBP":
        return "image/webp"
    raise InputError(
        f"An image starts with the bytes {image[:4]!r}, so it is not a PNG, JPEG, GIF or WebP "
        "file. Pass the bytes of such a file."
    )
