"""``checked_text``: refuses values that are no text, with the place where they were found."""

from __future__ import annotations

import math
from typing import Any

from flambeau.errors import InputError


def is_missing_text(value: Any) -> bool:
    """Return whether a cell has no text: None, NaN, NaT or pandas.NA."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    return type(value).__name__ in ("NAType", "NaTType")


def checked_text(value: Any, where: str) -> str:
    """Return a text without its byte-order mark.

    Args:
        value: The text.
        where: Where it was found, for messages.

    Raises:
        InputError: It is not a text, or has NUL characters or unpaired surrogates.
    """
    if not isinstance(value, str):
        raise InputError(
            f"{where}: {value!r:.60} is of type {type(value).__name__}. Give a text, a str."
        )
    if "\0" in value:
        raise InputError(
            f"{where} has NUL characters: probably UTF-16 text that was read as UTF-8. "
            "Decode it as UTF-16."
        )
    if not value.isascii() and any("\ud800" <= each <= "\udfff" for each in value):
        raise InputError(
            f"{where} has an unpaired surrogate, which is not valid text. Decode the text as UTF-8."
        )
    return value.removeprefix("\ufeff")
