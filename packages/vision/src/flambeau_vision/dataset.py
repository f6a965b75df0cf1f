"""Pictures that are read from their files when a batch asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, LoaderOptions
from flambeau.data.workers import WorkerLoader
from flambeau_vision.preprocess import INPUT
from flambeau_vision.resize import Geometry, load_all

TARGET = "target"
"""The name of the only target of every image batch."""


class FileImages:
    """A data set whose batches are decoded in worker processes.

    Args:
        items: What `flambeau_vision.decode.decode` takes.
        targets: ``(n, …)``.
        ids: Sample numbers, int64 ``(n,)``.
        geometry: What every picture is brought to.
    """

    def __init__(
        self, items: Sequence[Any], targets: Tensor, ids: Tensor, geometry: Geometry
    ) -> None:
        self.items = items
        self.targets = targets
        self.ids = ids
        self.geometry = geometry

    def __len__(self) -> int:
        return len(self.items)

    def batch(self, positions: Sequence[int], epoch: int) -> Batch:
        """uint8 pictures ``(batch, channels, size, size)``; errors name the file."""
        rows = torch.from_numpy(np.asarray(positions, dtype=np.int64))
        # One thread: the workers are the parallel ones.
        images = load_all([self.items[row] for row in positions], self.geometry, threads=1)
        return Batch(
            {INPUT: images},
            {TARGET: self.targets[rows]},
            weight=float(len(positions)),
            indices=self.ids[rows],
            epoch=epoch,
        )

    def loader(self, options: LoaderOptions) -> Loader:
        """A loader that reads ahead with ``options.num_workers`` processes."""
        return WorkerLoader(self, options)
