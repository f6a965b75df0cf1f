"""The pictures of a data set as uint8 tensors: decoded once, wherever they are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.split import Rows
from flambeau_vision.resize import Geometry, load_all

# Enough for a mean that is off by less than 1 %, in a second of decoding.
_STATISTICS_FROM = 1_000


class Pictures:
    """The items of a data set, and what has been decoded of them.

    Args:
        items: What `flambeau_vision.decode.decode` takes, or one uint8 tensor
            ``(n, channels, height, width)``.
    """

    def __init__(self, items: Sequence[Any] | Tensor) -> None:
        self._items = items
        # By part and geometry, so that each picture is decoded once however often it is asked for.
        self._decoded: dict[tuple[str, Geometry], Tensor] = {}

    @property
    def came_as_tensor(self) -> bool:
        """Whether they were in memory from the start."""
        return isinstance(self._items, Tensor)

    def items(self, rows: Rows) -> list[Any]:
        """The items of ``rows``, in their order."""
        return [self._items[int(row)] for row in rows]

    def part(self, part: str, rows: Rows, geometry: Geometry) -> Tensor:
        """uint8 ``(n, channels, size, size)`` of the rows of ``part``, decoded once."""
        found = self._decoded.get((part, geometry))
        if found is None:
            items, wanted = self._items, (geometry.channels, geometry.size, geometry.size)
            if isinstance(items, Tensor) and items.shape[1:] == wanted and geometry.crop == 1.0:
                found = items.index_select(0, torch.from_numpy(np.array(rows)))
            else:
                found = load_all(self.items(rows), geometry, title=f"decoding {part}")
            self._decoded[part, geometry] = found
        return found

    def some(self, rows: Rows, geometry: Geometry) -> Tensor | None:
        """As `part`, of a thousand of ``rows`` drawn over all; None where there are no more."""
        if len(rows) <= _STATISTICS_FROM:
            return None
        places = torch.randperm(len(rows), generator=keyed.generator(0, "statistics", len(rows)))
        return load_all(self.items(rows[places[:_STATISTICS_FROM].numpy()]), geometry)
