"""Hashes of arrays, the same in every interpreter: to show that sides did the same work."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

LENGTH = 16
"""Hex digits: enough to distinguish runs, short enough for a table."""


class ArrayHash:
    """A hash of a sequence of arrays: their types, shapes and bytes in order."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def add(self, array: NDArray[Any]) -> None:
        """Add an array."""
        array = np.ascontiguousarray(array)
        self._digest.update(f"{array.dtype} {array.shape}".encode())
        self._digest.update(array.tobytes())

    def text(self) -> str:
        """Return the hash of what was added so far."""
        return self._digest.hexdigest()[:LENGTH]


def of_arrays(arrays: Iterable[NDArray[Any]]) -> str:
    """Return the hash of all ``arrays`` in order."""
    found = ArrayHash()
    for array in arrays:
        found.add(array)
    return found.text()
