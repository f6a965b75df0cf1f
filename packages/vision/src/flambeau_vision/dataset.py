"""``ImageFileDataset``: decodes image files when a batch is requested."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, LoaderOptions
from flambeau.data.worker_loader import WorkerLoader
from flambeau.errors import FlambeauWarning, InputError
from flambeau_vision.load_images import load_readable
from flambeau_vision.open_image import name_items
from flambeau_vision.preprocess import INPUT
from flambeau_vision.resize import Geometry

TARGET = "target"
"""The name of the only target in an image batch."""


class ImageFileDataset:
    """A data set whose batches are decoded in worker processes.

    A file that can no longer be read raises an error that names it. If ``unreadable`` is given, the
    file is skipped instead: the batch has fewer samples and a smaller weight, but the order of the
    other samples and of later batches does not change. So the batches are the same for every number
    of workers and after a resume. Each epoch tries to read the file again, and a warning at its end
    names the files that were skipped for the first time.

    Args:
        items: Whatever `flambeau_vision.decode.decode` accepts.
        targets: ``(n, …)``.
        ids: Sample numbers, int64 ``(n,)``.
        geometry: Size, channels and resize method of the images.
        unreadable: bool, one per sample number, in memory shared between processes; set to True for
            an image that cannot be read. None raises an error instead.
        sample_weight: Weight of each sample in loss and metrics, ``(n,)``; None for equal weights.
    """

    def __init__(
        self,
        items: Sequence[Any],
        targets: Tensor,
        ids: Tensor,
        geometry: Geometry,
        unreadable: Tensor | None = None,
        sample_weight: Tensor | None = None,
    ) -> None:
        self.items = items
        self.targets = targets
        self.ids = ids
        self.geometry = geometry
        self.unreadable = unreadable
        self.sample_weight = sample_weight
        self._n_reported = 0

    def __len__(self) -> int:
        return len(self.items)

    def batch(self, positions: Sequence[int], epoch: int) -> Batch:
        """Return a batch of uint8 images ``(batch, channels, size, size)``.

        Raises:
            InputError: An image cannot be read or, if such images are skipped, no image of the
                batch can be read; the message names the files.
        """
        skip = self.unreadable is not None
        # One thread: the worker processes already run in parallel.
        loaded = load_readable(self.items, self.geometry, threads=1, indices=positions, skip=skip)
        kept = positions
        if loaded.unreadable and self.unreadable is not None:
            skipped = set(loaded.unreadable)
            self.unreadable[self.ids[list(loaded.unreadable)]] = True
            kept = [position for position in positions if position not in skipped]
        if not kept:
            raise InputError(
                f"None of the {len(positions):,} images of a batch can be read: "
                f"{name_items([self.items[position] for position in positions])}. Check that the "
                "files still exist; ImageOptions(verify=True), on the command line --verify, "
                "finds damaged ones before training."
            )
        rows = torch.from_numpy(np.asarray(kept, dtype=np.int64))
        weights = None if self.sample_weight is None else self.sample_weight[rows]
        return Batch(
            {INPUT: loaded.pixels},
            {TARGET: self.targets[rows]},
            weight=float(len(kept) if weights is None else weights.double().sum()),
            sample_weight=weights,
            indices=self.ids[rows],
            epoch=epoch,
        )

    def loader(self, options: LoaderOptions) -> Loader:
        """Return a loader that prefetches with ``options.num_workers`` processes."""
        if self.unreadable is None:
            return WorkerLoader(self, options)
        return _WarningLoader(self, options)

    def warn_unreadable(self) -> None:
        """Warn of images that were skipped since the last call."""
        if self.unreadable is None:
            return
        skipped = self.unreadable[self.ids].nonzero()[:, 0].tolist()
        if len(skipped) > self._n_reported:
            warnings.warn(
                f"{len(skipped):,} of {len(self):,} images can no longer be read and are skipped: "
                f"{name_items([self.items[position] for position in skipped])}",
                FlambeauWarning,
                stacklevel=2,
            )
            self._n_reported = len(skipped)


class _WarningLoader(WorkerLoader):
    """A ``WorkerLoader`` that warns of unreadable images after each epoch."""

    dataset: ImageFileDataset

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        yield from super().batches(epoch, start_step)
        self.dataset.warn_unreadable()
