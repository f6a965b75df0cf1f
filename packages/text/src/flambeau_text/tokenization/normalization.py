"""Give texts one Unicode form and no line breaks, in data, prediction and scores alike."""

from __future__ import annotations

import re
import unicodedata
from typing import Any, cast

FORMS = ("nfc", "nfkc", "none")
"""The Unicode forms: "nfc" composes characters, "nfkc" also replaces typographic variants, and
"none" changes nothing."""

LINE_BREAKS = "[ \t]*[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]+[ \t]*"
_LINE_BREAKS = re.compile(LINE_BREAKS)


def is_blank(text: str) -> bool:
    """Return whether a text has only spaces and invisible characters (U+200B, U+00AD, marks).

    A model would translate such a text, which has nothing to translate, into some sentence.
    """
    return all(each.isspace() or unicodedata.category(each) == "Cf" for each in text)


def normalize(text: str, form: str) -> str:
    r"""Return ``text`` in a Unicode normal form, on one line.

    The same letters can be written with different characters ("é" as one character, or as "e" with
    an accent), which would be different tokens and would not match in a score. A line break would
    give two lines of output for one line of input, so it is replaced by a space. A text of
    invisible characters becomes empty.

    Args:
        text: The text.
        form: One of `FORMS`.

    Example:
        >>> normalize("cafe\u0301\nbar", "nfc")
        'café bar'
    """
    if not text.isascii() and is_blank(text):
        return ""
    if not (text.isascii() or form == "none"):
        text = unicodedata.normalize(cast("Any", form.upper()), text.removeprefix("\ufeff"))
    return _LINE_BREAKS.sub(" ", text)
