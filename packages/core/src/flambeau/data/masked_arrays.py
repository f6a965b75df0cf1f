"""Refuse NumPy arrays with masked entries, because torch ignores the mask."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from flambeau.errors import InputError


def refuse_masked(name: str, value: object) -> None:
    """Raise an error if the value is a masked array with masked entries.

    Args:
        name: What the array is, for the message.
        value: Any object.

    Raises:
        InputError: Entries are masked; the message gives their number and the first index.
    """
    if not isinstance(value, np.ma.MaskedArray):
        return
    # NumPy does not annotate the mask.
    masked = np.argwhere(cast("Any", np.ma).getmaskarray(value))
    if len(masked):
        first = tuple(int(index) for index in masked[0])
        raise InputError(
            f"{name} is a masked array with {len(masked)} masked entries (the first at {first}), "
            "whose values under the mask would be used. Replace them (array.filled(0)), or remove "
            "their rows."
        )
