"""Decode the images of a data set once and keep them as uint8 tensors in memory or on disk."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.split import Rows
from flambeau.errors import FlambeauWarning, InputError, PlanError
from flambeau_vision.disk_cache import load_cached
from flambeau_vision.load_images import LoadedImages, load_readable
from flambeau_vision.open_image import name_items
from flambeau_vision.options import Cache, ImageOptions
from flambeau_vision.resize import Geometry

# Enough for a mean with an error below 1 %, in a second of decoding.
_STATISTICS_FROM = 1_000


class ImageStore:
    """The items of a data set and their decoded pixels.

    Args:
        items: Whatever `flambeau_vision.decode.decode` accepts, or one uint8 tensor
            ``(n, channels, height, width)``.
        options: Whether unreadable items are skipped, and the folder of the disk cache.

    Attributes:
        unreadable: bool, one per item, in memory shared with worker processes; set where an item
            could not be read. None if unreadable items raise.
    """

    def __init__(self, items: Sequence[Any] | Tensor, options: ImageOptions) -> None:
        self._items = items
        self._skip = options.unreadable == "skip"
        self._folder = options.cache_folder
        # By part, geometry and cache, so that an image is decoded once for all requests.
        self._decoded: dict[tuple[str, Geometry, str], LoadedImages] = {}
        self.unreadable: Tensor | None = None
        if self._skip and not isinstance(items, Tensor):
            self.unreadable = torch.zeros(len(items), dtype=torch.bool).share_memory_()

    def items(self, rows: Rows) -> list[Any]:
        """Return the items of ``rows``, in the order of ``rows``."""
        return [self._items[int(row)] for row in rows]

    def cache_mode(self, values: Mapping[str, Any]) -> Cache:
        """Return where the plan keeps decoded images (its value "cache"); "memory" for tensors.

        Raises:
            PlanError: The value is unknown.
        """
        if isinstance(self._items, Tensor):
            return "memory"
        mode = values.get("cache", "files")
        if mode not in get_args(Cache):
            raise PlanError(f"Unknown cache={mode!r}. Choose 'memory', 'disk' or 'files'.")
        return mode

    def is_loaded(self, geometry: Geometry) -> bool:
        """Return whether the images are in memory in the form that the model takes."""
        items = self._items
        is_sized = isinstance(items, Tensor) and items.shape[1:] == geometry.shape
        return is_sized and geometry.crop == 1.0

    def load_part(self, part: str, rows: Rows, geometry: Geometry, mode: Cache) -> LoadedImages:
        """Return the rows of ``part``, decoded once and kept in memory or on disk.

        Raises:
            InputError: An image cannot be read; with ``unreadable="skip"`` only if none can.
            StorageError: The cache file cannot be written.
        """
        loaded = self._decoded.get((part, geometry, mode))
        if loaded is None:
            loaded = self._decode(part, rows, geometry, mode)
            if loaded.unreadable:
                self._warn_unreadable(part, rows[list(loaded.unreadable)])
            self._decoded[part, geometry, mode] = loaded
        if not len(loaded.pixels):
            names = name_items(self.items(rows))
            raise InputError(
                f"None of the {len(rows):,} {part} images can be read: {names}. Check that the "
                "files still exist and are complete."
            )
        return loaded

    def _decode(self, part: str, rows: Rows, geometry: Geometry, mode: Cache) -> LoadedImages:
        items = self._items
        if isinstance(items, Tensor) and self.is_loaded(geometry):
            return LoadedImages(items.index_select(0, torch.from_numpy(np.array(rows))))
        title = f"decoding {part}"
        if mode == "disk":
            selected = self.items(rows)
            return load_cached(
                selected, geometry, folder=self._folder, skip=self._skip, title=title
            )
        return load_readable(self.items(rows), geometry, title=title, skip=self._skip)

    def _warn_unreadable(self, part: str, rows: Rows) -> None:
        if self.unreadable is not None:
            self.unreadable[torch.from_numpy(np.array(rows))] = True
        warnings.warn(
            f"{len(rows):,} {part} images can no longer be read and are skipped: "
            f"{name_items(self.items(rows))}",
            FlambeauWarning,
            stacklevel=4,
        )

    def notes(self) -> tuple[str, ...]:
        """Return the report's notes on images that became unreadable after construction."""
        if self.unreadable is None or not bool(self.unreadable.any()):
            return ()
        rows = self.unreadable.nonzero()[:, 0].numpy()
        return (
            f"{len(rows):,} could not be read during training and were skipped: "
            f"{name_items(self.items(rows))}",
        )

    def load_random(self, rows: Rows, geometry: Geometry) -> Tensor:
        """Return up to 1,000 of ``rows``, drawn at random: uint8 ``(n, channels, h, w)``."""
        if len(rows) > _STATISTICS_FROM:
            drawn = torch.randperm(len(rows), generator=keyed.generator(0, "statistics", len(rows)))
            rows = rows[drawn[:_STATISTICS_FROM].numpy()]
        return load_readable(self.items(rows), geometry, skip=self._skip).pixels
