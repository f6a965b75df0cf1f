"""``Page``: a self-contained HTML page without scripts, in light and dark colours."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, cast

from flambeau.errors import InputError, StorageError
from flambeau.report.blocks import Block, PlainBlock

# Forbids loading and running anything, whatever text the page contains.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"

_STYLE = """
:root{--sans:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;
--ink:#1d2329;--soft:#5b6670;--paper:#fff;--box:#f4f6f8;--line:#d9dee3;--accent:#0072b2}
@media (prefers-color-scheme:dark){:root{--ink:#e4e8ec;--soft:#9aa6b1;--paper:#14181c;
--box:#1d2328;--line:#343c44;--accent:#4fb0e8}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1.5rem 1rem 4rem;max-width:72rem;color:var(--ink);
background:var(--paper);font:1rem/1.5 var(--sans);overflow-wrap:anywhere}
h1{font-size:1.6rem;line-height:1.2;margin:0 0 .3rem}
h2{font-size:1.2rem;margin:2.4rem 0 .7rem;padding-top:.8rem;border-top:1px solid var(--line)}
p{margin:.5rem 0;max-width:46rem}
.note,figcaption,header p{color:var(--soft);font-size:.9rem}
nav{display:flex;flex-wrap:wrap;gap:.3rem 1rem;margin-top:.8rem;font-size:.9rem}
a{color:var(--accent)}
.scroll{overflow-x:auto;max-width:100%}
pre{background:var(--box);border-radius:6px;padding:.8rem;font-size:.8rem;line-height:1.45;
white-space:pre-wrap}
table{border-collapse:collapse;font-size:.9rem;margin:.5rem 0;overflow-wrap:normal}
th,td{text-align:left;vertical-align:top;padding:.3rem .8rem .3rem 0;white-space:nowrap;
border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:600}
td.number{text-align:right;font-variant-numeric:tabular-nums}
td.prose{white-space:normal;min-width:15rem;max-width:34rem;overflow-wrap:anywhere}
.matrix td,.matrix th{border:0;padding:.2rem .35rem;vertical-align:middle}
.matrix thead th{vertical-align:bottom;text-align:center}
.matrix td{text-align:center;min-width:2.3rem;height:2.2rem;font-variant-numeric:tabular-nums;
border:1px solid var(--line)}
.matrix thead td{border:0}
.matrix tbody th{font-weight:500;text-align:right}
.matrix .axis{font-weight:400;font-style:italic;color:var(--soft)}
.matrix thead tr:last-child th.axis{text-align:right}
.upright span{writing-mode:vertical-rl;transform:rotate(180deg);max-height:11rem;overflow:hidden}
figure{margin:0}
.figures{display:grid;gap:1rem 2rem;margin:.8rem 0;
grid-template-columns:repeat(auto-fit,minmax(min(100%,20rem),1fr))}
.figures svg{height:auto;display:block}
.figures svg *{stroke-linejoin:round;stroke-linecap:butt}
.cards{display:grid;gap:.9rem;margin:.8rem 0;
grid-template-columns:repeat(auto-fill,minmax(min(100%,9.5rem),1fr))}
.cards figure{background:var(--box);border-radius:6px;padding:.5rem}
.cards img{display:block;width:100%;aspect-ratio:1;object-fit:contain;max-width:100%;
border-radius:4px;margin-bottom:.4rem}
.cards figcaption{font-size:.8rem;line-height:1.4;overflow-wrap:anywhere}
.cards b{color:var(--ink)}
.tiles{display:grid;gap:.9rem;margin:.8rem 0;
grid-template-columns:repeat(auto-fill,minmax(min(100%,15rem),1fr))}
.tiles figure{background:var(--box);border-radius:8px;padding:.7rem .8rem}
.tiles figcaption{font-size:.78rem;line-height:1.4}
.tiles figcaption:first-child{display:flex;flex-wrap:wrap;gap:.1rem .5rem;align-items:center;
margin-bottom:.5rem}
.tiles b{color:var(--ink);font-size:.9rem}.tiles em{font-style:normal;margin-right:auto}
.tiles svg{display:block;width:100%;height:auto;margin-bottom:.4rem}
.tiles span{display:flex;align-items:center;gap:.35rem}
.tiles .meter{width:3.2rem;height:.45rem;border-radius:1rem;background:var(--line);
overflow:hidden}
.tiles .meter i{display:block;height:100%;background:var(--accent)}
.legend{display:flex;flex-wrap:wrap;gap:.3rem .9rem;align-items:center;font-size:.85rem;
max-width:none}
.legend i{display:inline-block;width:.8rem;height:.8rem;border-radius:3px;margin-right:.35rem;
vertical-align:-.08rem}
.legend .scale{width:9rem;border-radius:1rem;margin:0}
@media (max-width:40rem){.stacked,.stacked tbody,.stacked tr,.stacked td{display:block}
.stacked thead{display:none}.stacked tr{padding:.5rem 0;border-bottom:1px solid var(--line)}
.stacked td,.stacked td.prose{border:0;padding:.05rem 0;white-space:normal;min-width:0;
overflow-wrap:anywhere}.stacked td:first-child{font-weight:600}
.stacked td:not(:first-child):not([data-name=""])::before{content:attr(data-name) ": ";
color:var(--soft)}}
@media print{body{max-width:none}h2{break-after:avoid}figure,tr{break-inside:avoid}}
"""


@dataclass(frozen=True)
class Section:
    """A heading with blocks below it.

    Attributes:
        title: Title of the section; also an entry in the table of contents.
        blocks: ``Text``, ``Table``, ``Figures``, ``Cards``, or any other ``Block``.
        first: Whether the section of a data class follows the scores directly.
    """

    title: str
    blocks: tuple[Block, ...]
    first: bool = False


class Page:
    """A report as one HTML file, in sections; readable on a phone and in print.

    Args:
        title: Title of the page.
        subtitle: A line below the title.

    Example:
        >>> from flambeau.report import Page, Table, Text
        >>> page = Page("Pets", "first run")
        >>> page.add("Scores", Text("On 100 images:"), Table(["score", "value"], [["f1", 0.9]]))
        >>> page.html().count("<h2")
        1
    """

    def __init__(self, title: str, subtitle: str = "") -> None:
        self.title = title
        self.subtitle = subtitle
        self.sections: list[Section] = []

    def add(self, title: str, *blocks: Block) -> None:
        """Append a section to the page.

        Raises:
            InputError: No block is given.
        """
        if not blocks:
            raise InputError(
                f"The section {title!r} is empty. Pass at least one block: Text, Table, Figures, …"
            )
        self.sections.append(Section(title, blocks))

    def html(self) -> str:
        """Return the page as HTML."""
        parts: list[str] = []
        links: list[str] = []
        number = 0
        for position, section in enumerate(self.sections, start=1):
            links.append(f'<a href="#s{position}">{escape(section.title)}</a>')
            parts.append(f'<section><h2 id="s{position}">{escape(section.title)}</h2>')
            for block in section.blocks:
                number += 1
                parts.append(block.html(number))
            parts.append("</section>")
        subtitle = f"<p>{escape(self.subtitle)}</p>" if self.subtitle else ""
        contents = f"<nav>{''.join(links)}</nav>" if len(links) > 1 else ""
        return (
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width,initial-scale=1">'
            '<meta name="color-scheme" content="light dark">'
            f"<title>{escape(self.title)}</title><style>{_STYLE}</style></head><body>\n"
            f"<header><h1>{escape(self.title)}</h1>{subtitle}{contents}</header>\n"
            + "\n".join(parts)
            + "\n</body></html>\n"
        )

    def markdown(self) -> str:
        """Return the page as Markdown, with tables in place of plots."""
        parts = [f"# {self.title}", *([self.subtitle] if self.subtitle else [])]
        for section in self.sections:
            parts.append(f"## {section.title}")
            parts += [
                block.markdown() if isinstance(block, PlainBlock) else "*(only in HTML)*"
                for block in section.blocks
            ]
        return "\n\n".join(filter(None, parts)) + "\n"

    def content(self) -> dict[str, Any]:
        """Return the page as JSON values: title, subtitle, and the blocks of each section."""
        sections = [
            {
                "title": section.title,
                "blocks": [
                    block.content() for block in section.blocks if isinstance(block, PlainBlock)
                ],
            }
            for section in self.sections
        ]
        return {"title": self.title, "subtitle": self.subtitle, "sections": sections}

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the page as one file, and create missing folders.

        A path that ends in .md gives Markdown, .json JSON, everything else HTML.

        Returns:
            The path of the file.

        Raises:
            StorageError: The file cannot be written.
        """
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(self._text(target.suffix.lower()), encoding="utf-8")
        except OSError as error:
            raise StorageError(
                f"Cannot write the report to {target.absolute()} ({error.strerror}). Choose a path "
                "in a writable folder."
            ) from error
        return target

    def _text(self, ending: str) -> str:
        if ending in (".md", ".markdown"):
            return self.markdown()
        if ending == ".json":
            return json.dumps(finite(self.content()), indent=1, default=str) + "\n"
        return self.html()


def finite(value: Any) -> Any:
    """Return JSON values with None in place of NaN and infinity, which JSON does not have."""
    if isinstance(value, dict):
        return {name: finite(each) for name, each in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in cast("list[Any]", value)]
    return None if isinstance(value, float) and not math.isfinite(value) else value
