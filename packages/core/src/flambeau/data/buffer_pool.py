"""Buffer pool: reuses the memory of batches that are no longer referenced.

The C library may return freed memory of more than about 100 KB to the operating system, depending
on what the process has freed before. The next batch then causes a page fault on every page, which
takes longer than the gather: an epoch of 157 batches of 1.5 MB had 38,800 page faults, or 60,200
if the library always returns the memory; with the pool it has 700 (2-core EPYC, glibc 2.36).
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

MIN_POOLED_BYTES = 1 << 17
"""Smallest pooled size; from this size on the C library may allocate with ``mmap``."""

_MAX_BUFFERS = 4  # a loop uses one batch while one or two others are being prepared


def _references(buffers: list[NDArray[np.uint8]], index: int) -> int:
    return sys.getrefcount(buffers[index])


# The reference count of an array that only the list refers to; it depends on the interpreter.
_UNUSED_COUNT = _references([np.empty(1, np.uint8)], 0)


class BufferPool:
    """A pool of buffers; a buffer is reused once no tensor refers to its memory.

    A buffer that is still referenced (also by a view or an autograd graph) is never reused. When
    all four buffers are in use, further tensors get newly allocated memory.

    Args:
        n_bytes: Size of a buffer in bytes.

    Example:
        >>> pool = BufferPool(16)
        >>> first = pool.empty((2, 2), torch.float32)
        >>> address = first.data_ptr()
        >>> pool.empty((2, 2), torch.float32).data_ptr() == address
        False
        >>> del first
        >>> pool.empty((2, 2), torch.float32).data_ptr() == address
        True
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        self._buffers: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Return a CPU tensor of at most ``n_bytes`` with undefined values, as ``torch.empty``.

        ``resize_`` cannot enlarge it beyond its buffer.
        """
        buffer = self._unused()
        if buffer is None:
            return torch.empty(shape, dtype=dtype, device="cpu")
        n_bytes = math.prod(shape) * dtype.itemsize
        whole = torch.from_numpy(buffer[:n_bytes])  # pyright: ignore[reportUnknownMemberType]
        # The storage keeps a reference to the array for as long as the storage is referenced. Set
        # on a new tensor rather than a view of ``whole``: autograd forbids some changes of views.
        own = torch.empty(0, dtype=dtype, device="cpu")
        # torch's stubs require strides, which torch does not.
        return own.set_(whole.untyped_storage(), 0, shape)  # pyright: ignore

    def _unused(self) -> NDArray[np.uint8] | None:
        for index in range(len(self._buffers)):
            if _references(self._buffers, index) == _UNUSED_COUNT:
                return self._buffers[index]
        if len(self._buffers) == _MAX_BUFFERS:
            return None
        # Allocated by torch, for its alignment.
        self._buffers.append(torch.empty(self.n_bytes, dtype=torch.uint8, device="cpu").numpy())
        return self._buffers[-1]
