"""``Preview``: what a person is shown of a sample."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preview:
    """A sample as a person sees it: words, and a picture where there is one.

    Attributes:
        caption: One or more lines: a file's name, the text itself, the columns of a row.
        image: Bytes of a PNG, JPEG, GIF or WebP file, about 200 pixels wide; None for words only.
    """

    caption: str
    image: bytes | None = None
