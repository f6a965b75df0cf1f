"""Divide the lines of a text file into documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, get_args

Unit = Literal["file", "paragraph", "line"]
"""What one document of a text file is."""

UNITS: tuple[str, ...] = get_args(Unit)

_FEWEST = 10
"""A single file is read as paragraphs or lines of which there are at least this number."""

Document = tuple[int, int, int | None]
"""Number of the first line of a document, where it begins, and where it ends (None is the end of
the file)."""


def divide(lines: Iterable[tuple[int, str]], unit: str) -> Iterator[Document]:
    """Yield the documents of a file.

    Blank lines after a paragraph belong to it, so that no line is lost.

    Args:
        lines: Where each line begins, and the line.
        unit: What a document is.
    """
    if unit == "file":
        begin = next((at for at, _ in lines), 0)
        for _ in lines:  # reading checks the file
            pass
        yield 1, begin, None
        return
    first = begin = 0
    filled = blank = False
    for number, (at, line) in enumerate(lines, start=1):
        if not first:
            first, begin = 1, at
        is_blank = not line.strip()
        if filled and (unit == "line" or (blank and not is_blank)):
            yield first, begin, at
            first, begin, filled = number, at, False
        filled = filled or not is_blank
        blank = is_blank
    if first:
        yield first, begin, None


def unit_of(lines: Iterable[str], n_files: int) -> tuple[Unit, str]:
    """Return what a document of a file is, and the reason.

    Args:
        lines: The lines of the file.
        n_files: Number of files that are read.
    """
    if n_files > 1:
        return "file", ""
    filled = 0

    def counted() -> Iterator[tuple[int, str]]:
        nonlocal filled
        for line in lines:
            filled += bool(line.strip())
            yield 0, line

    paragraphs = sum(1 for _ in divide(counted(), "paragraph"))
    if paragraphs >= _FEWEST:
        return "paragraph", f"a single file has {paragraphs:,} paragraphs between blank lines"
    if filled >= _FEWEST:
        return "line", f"a single file has {filled:,} lines, but only {paragraphs} paragraphs"
    return "file", f"it has only {filled} lines"
