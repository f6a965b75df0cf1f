"""Refuse values that are no text, with the place where they were found."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flambeau.errors import InputError
from flambeau.wording import name_some


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


def refuse_names(items: Any, what: str, from_frame: str) -> None:
    """Refuse mappings and frames, of which an iteration gives the names and not the content.

    Args:
        items: What was given in place of several items.
        what: The items, in the plural, for the message.
        from_frame: The call that reads a frame.

    Raises:
        InputError: ``items`` is a mapping, such as a ``DatasetDict``, or a frame.
    """
    is_mapping = isinstance(items, Mapping)
    if not is_mapping and not hasattr(items, "columns"):
        return
    columns: Any = items if is_mapping else getattr(items, "column_names", items.columns)
    names = name_some(map(repr, columns))
    raise InputError(
        f"A {type(items).__name__} with the names {names} was given in place of {what}. Read the "
        f"column of a frame with {from_frame}; of several data sets, pass each as a part: train "
        "first, then valid=… and test=…."
    )
