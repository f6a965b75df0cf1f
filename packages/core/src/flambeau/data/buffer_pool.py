"""Memory that a loader holds: a batch is gathered into that of one that nobody refers to any more.

Memory of more than some 100 KB that is freed may go straight back to the system, by rules of the
C library that depend on what a process has freed before. The next batch then meets every page of
its memory for the first time, which takes longer than the gather.
"""

from __future__ import annotations

import math
import sys

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

MIN_POOLED_BYTES = 1 << 17
"""From this size on memory is held: it is where the C library begins to ask the system for it."""

_MOST = 4  # pieces held: a loop has one batch in use and one or two on their way


def _references(pieces: list[NDArray[np.uint8]], place: int) -> int:
    return sys.getrefcount(pieces[place])


# The list's and what counting adds, which is for the interpreter to say.
_ONLY_OURS = _references([np.empty(1, np.uint8)], 0)


class BufferPool:
    """Pieces of memory, each given out again once no tensor made of it is left.

    Whoever keeps batches keeps their values: a piece that is referred to, by a view or by a
    graph as well, is left alone, and beyond four pieces every tensor gets memory of its own.

    Args:
        n_bytes: Bytes of a piece.

    Example:
        >>> held = BufferPool(16)
        >>> first = held.empty((2, 2), torch.float32)
        >>> address = first.data_ptr()
        >>> held.empty((2, 2), torch.float32).data_ptr() == address
        False
        >>> del first
        >>> held.empty((2, 2), torch.float32).data_ptr() == address
        True
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._pieces: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """A CPU tensor of at most ``n_bytes``, its values undefined, as ``torch.empty`` makes it.

        It cannot be resized in place (``resize_``) to more than it holds.
        """
        piece = self._unused()
        if piece is None:
            return torch.empty(shape, dtype=dtype, device="cpu")
        n_bytes = math.prod(shape) * dtype.itemsize
        whole = torch.from_numpy(piece[:n_bytes])  # pyright: ignore[reportUnknownMemberType]
        # The storage refers to the array for as long as anything refers to the storage. A tensor
        # of its own on it, and no view of ``whole``: autograd refuses some changes of views.
        own = torch.empty(0, dtype=dtype, device="cpu")
        # torch's stubs want strides that torch does without.
        return own.set_(whole.untyped_storage(), 0, shape)  # pyright: ignore

    def _unused(self) -> NDArray[np.uint8] | None:
        for place in range(len(self._pieces)):
            if _references(self._pieces, place) == _ONLY_OURS:
                return self._pieces[place]
        if len(self._pieces) == _MOST:
            return None
        # By torch, which aligns it as kernels like it.
        self._pieces.append(torch.empty(self.n_bytes, dtype=torch.uint8, device="cpu").numpy())
        return self._pieces[-1]
