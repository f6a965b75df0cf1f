"""Pictures that are read from their files when a batch asks for them."""

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
from flambeau_vision.opening import some_names
from flambeau_vision.preprocess import INPUT
from flambeau_vision.resize import Geometry, load_readable

TARGET = "target"
"""The name of the only target of every image batch."""


class FileImages:
    """A data set whose batches are decoded in worker processes.

    A file that cannot be read any more ends the run with its name; or, where ``lost`` is given, is
    left out: the batch has fewer samples and its weight says so, the others stay in their places,
    and the order of later batches is what it would have been. So the same files give the same
    batches for every number of workers and after a resume. Each pass tries the file again, and
    ends with a warning that names what was left out for the first time.

    Args:
        items: What `flambeau_vision.decode.decode` takes.
        targets: ``(n, …)``.
        ids: Sample numbers, int64 ``(n,)``.
        geometry: What every picture is brought to.
        lost: bool, one a sample number, in memory that processes share; set where a picture cannot
            be read. None raises instead.
    """

    def __init__(
        self,
        items: Sequence[Any],
        targets: Tensor,
        ids: Tensor,
        geometry: Geometry,
        lost: Tensor | None = None,
    ) -> None:
        self.items = items
        self.targets = targets
        self.ids = ids
        self.geometry = geometry
        self.lost = lost
        self._told = 0

    def __len__(self) -> int:
        return len(self.items)

    def batch(self, positions: Sequence[int], epoch: int) -> Batch:
        """uint8 pictures ``(batch, channels, size, size)``; errors name the file.

        Raises:
            InputError: A picture cannot be read, or none of the batch where those are left out.
        """
        skip = self.lost is not None
        # One thread: the workers are the parallel ones.
        loaded = load_readable(self.items, self.geometry, threads=1, places=positions, skip=skip)
        kept = positions
        if loaded.unreadable and self.lost is not None:
            gone = set(loaded.unreadable)
            self.lost[self.ids[list(loaded.unreadable)]] = True
            kept = [place for place in positions if place not in gone]
        if not kept:
            raise InputError(
                f"None of the {len(positions):,} pictures of a batch can be read: "
                f"{some_names([self.items[place] for place in positions])}. Check that the files "
                "are still there; ImageOptions(verify=True) finds damaged ones before training."
            )
        rows = torch.from_numpy(np.asarray(kept, dtype=np.int64))
        return Batch(
            {INPUT: loaded.pixels},
            {TARGET: self.targets[rows]},
            weight=float(len(kept)),
            indices=self.ids[rows],
            epoch=epoch,
        )

    def loader(self, options: LoaderOptions) -> Loader:
        """A loader that reads ahead with ``options.num_workers`` processes."""
        if self.lost is None:
            return WorkerLoader(self, options)
        return _TellingLoader(self, options)

    def tell(self) -> None:
        """Warn of pictures that were left out since the last time."""
        if self.lost is None:
            return
        gone = self.lost[self.ids].nonzero()[:, 0].tolist()
        if len(gone) > self._told:
            warnings.warn(
                f"{len(gone):,} of {len(self):,} pictures can no longer be read and are left out: "
                f"{some_names([self.items[place] for place in gone])}",
                FlambeauWarning,
                stacklevel=2,
            )
            self._told = len(gone)


class _TellingLoader(WorkerLoader):
    """A ``WorkerLoader`` that says after each pass what could not be read."""

    dataset: FileImages

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        yield from super().batches(epoch, start_step)
        self.dataset.tell()
