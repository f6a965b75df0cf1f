"""``Preview``: a sample in the form that a report shows."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Preview:
    """A sample in readable form: text and an optional image.

    Attributes:
        caption: One or more lines: a file name, the text of the sample, the columns of a row.
        image: Bytes of a PNG, JPEG, GIF or WebP file, about 200 pixels wide; None for text only.
    """

    caption: str
    image: bytes | None = None
