"""Fashion-MNIST as arrays, and what this processor computes in; for any library."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flambeau_bench.side.idx_file import ImageArray, read_idx
from flambeau_bench.side.protocol import Job

MEAN, STD = 0.2860, 0.3530
"""Of the train images, as fractions of 255."""


class FashionArrays:
    """The images of a run.

    Args:
        job: Its counts have "train" and "valid", the numbers of images; "data" is the folder.
        held_out: Evaluate on the last sixth of the train images, which then are not trained on, in
            place of the test images.

    Attributes:
        train_images: uint8 (n, 28, 28).
        train_labels: int64 (n,).
        valid_images: The images of the evaluations, likewise.
        valid_labels: Their labels.
    """

    def __init__(self, job: Job, *, held_out: bool) -> None:
        folder = Path(job.data)
        images, labels = read_part(folder, "train")
        if held_out:
            sixth = len(images) // 6  # 10,000 of 60,000, as many as the test images
            valid_images, valid_labels = images[-sixth:], labels[-sixth:]
            images, labels = images[:-sixth], labels[:-sixth]
        else:
            valid_images, valid_labels = read_part(folder, "t10k")
        n_train, n_valid = job.counts["train"], job.counts["valid"]
        self.train_images, self.train_labels = images[:n_train], labels[:n_train]
        self.valid_images, self.valid_labels = valid_images[:n_valid], valid_labels[:n_valid]


def computes_in_bf16() -> bool:
    """Return whether this processor has instructions for bf16 (AVX512-bf16, AMX)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def read_part(folder: Path, stem: str) -> tuple[ImageArray, NDArray[np.int64]]:
    """Return images (n, 28, 28) and labels (n,) of the files of a part, "train" or "t10k"."""
    images = read_idx(folder / f"{stem}-images-idx3-ubyte.gz")
    return images, read_idx(folder / f"{stem}-labels-idx1-ubyte.gz").astype(np.int64)
