"""Read images and labels in the file format of MNIST."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ImageArray = NDArray[np.uint8]


def read_idx(path: Path) -> ImageArray:
    """Return the array in a file of the MNIST format.

    Source:
        The format's description at http://yann.lecun.com/exdb/mnist: two zero bytes, a type (8 is
        uint8), the number of axes, their sizes as big-endian int32, the values.
    """
    content = gzip.decompress(path.read_bytes())
    axes = content[3]
    shape = np.frombuffer(content, dtype=">i4", count=axes, offset=4)
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * axes).reshape(shape).copy()
