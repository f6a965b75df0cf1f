"""The pictures of a data set as uint8 tensors: decoded once, wherever they are kept."""

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
from flambeau_vision.cache import cached
from flambeau_vision.opening import some_names
from flambeau_vision.options import Cache, ImageOptions
from flambeau_vision.resize import Geometry, Loaded, load_readable

# Enough for a mean that is off by less than 1 %, in a second of decoding.
_STATISTICS_FROM = 1_000


class Pictures:
    """The items of a data set, and what has been decoded of them.

    Args:
        items: What `flambeau_vision.decode.decode` takes, or one uint8 tensor
            ``(n, channels, height, width)``.
        options: Whether what cannot be read is left out, and where files of pixels lie.
    """

    def __init__(self, items: Sequence[Any] | Tensor, options: ImageOptions) -> None:
        self._items = items
        self._skip = options.unreadable == "skip"
        self._folder = options.cache_folder
        # By part, geometry and place, so that a picture is decoded once however often it is asked.
        self._decoded: dict[tuple[str, Geometry, str], Loaded] = {}
        # One a row, in memory that worker processes share: what could not be read after all.
        self.lost: Tensor | None = None
        if self._skip and not isinstance(items, Tensor):
            self.lost = torch.zeros(len(items), dtype=torch.bool).share_memory_()

    @property
    def came_as_tensor(self) -> bool:
        """Whether they were in memory from the start."""
        return isinstance(self._items, Tensor)

    def items(self, rows: Rows) -> list[Any]:
        """The items of ``rows``, in their order."""
        return [self._items[int(row)] for row in rows]

    def place(self, values: Mapping[str, Any]) -> Cache:
        """Where the plan keeps them: its value "cache".

        Raises:
            PlanError: The value is unknown.
        """
        if self.came_as_tensor:
            return "memory"
        place = values.get("cache", "files")
        if place not in get_args(Cache):
            raise PlanError(f"cache={place!r} is none of 'memory', 'disk', 'files'.")
        return place

    def part(self, part: str, rows: Rows, geometry: Geometry, place: Cache) -> Loaded:
        """The rows of ``part``, decoded once and kept in memory or on disk.

        Raises:
            InputError: One cannot be read (none, where those are to be skipped).
            StorageError: The file cannot be written.
        """
        found = self._decoded.get((part, geometry, place))
        if found is None:
            found = self._load(part, rows, geometry, place)
            if found.unreadable:
                self._tell(part, rows[list(found.unreadable)])
            self._decoded[part, geometry, place] = found
        if not len(found.pixels):
            names = some_names(self.items(rows))
            raise InputError(f"None of the {len(rows):,} {part} pictures can be read: {names}.")
        return found

    def _load(self, part: str, rows: Rows, geometry: Geometry, place: Cache) -> Loaded:
        items, wanted = self._items, (geometry.channels, geometry.size, geometry.size)
        if isinstance(items, Tensor) and items.shape[1:] == wanted and geometry.crop == 1.0:
            return Loaded(items.index_select(0, torch.from_numpy(np.array(rows))))
        title = f"decoding {part}"
        if place == "disk":
            given = self.items(rows)
            return cached(given, geometry, folder=self._folder, skip=self._skip, title=title)
        return load_readable(self.items(rows), geometry, title=title, skip=self._skip)

    def _tell(self, part: str, rows: Rows) -> None:
        if self.lost is not None:
            self.lost[torch.from_numpy(np.array(rows))] = True
        warnings.warn(
            f"{len(rows):,} {part} pictures can no longer be read and are left out: "
            f"{some_names(self.items(rows))}",
            FlambeauWarning,
            stacklevel=4,
        )

    def notes(self) -> tuple[str, ...]:
        """What the report says of pictures that could not be read after the data were built."""
        if self.lost is None or not bool(self.lost.any()):
            return ()
        rows = self.lost.nonzero()[:, 0].numpy()
        return (
            f"{len(rows):,} could not be read in training and were left out: "
            f"{some_names(self.items(rows))}",
        )

    def some(self, rows: Rows, geometry: Geometry) -> Tensor:
        """uint8 ``(n, channels, size, size)`` of up to a thousand of ``rows``, drawn over all."""
        if len(rows) > _STATISTICS_FROM:
            drawn = torch.randperm(len(rows), generator=keyed.generator(0, "statistics", len(rows)))
            rows = rows[drawn[:_STATISTICS_FROM].numpy()]
        return load_readable(self.items(rows), geometry, skip=self._skip).pixels
