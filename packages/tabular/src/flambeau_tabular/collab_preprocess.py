"""``CollabPreprocessor``: encodes users and items by value, the same in training and prediction."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import InputError
from flambeau_tabular.frame_rows import FrameRows, as_frame

if TYPE_CHECKING:
    import pyarrow as pa

    from flambeau_tabular.columns import Frame
    from flambeau_tabular.columns.category_column import CategoryColumn


class CollabPreprocessor(Preprocessor):
    """The codes of users and items: 0 missing, 1 unknown, then the known ones from 2 on.

    Args:
        users: The fitted column of the users.
        items: The fitted column of the items.
        whole_items: Whether items are whole numbers, so that recommendations are too.
        seen: Codes of users and items that occur together in train, int32 ``(2, pairs)``; None if
            exports do not contain them.
    """

    def __init__(
        self,
        users: CategoryColumn,
        items: CategoryColumn,
        *,
        whole_items: bool = False,
        seen: Tensor | None = None,
    ) -> None:
        self.users = users
        self.items = items
        self.whole_items = whole_items
        self.seen = seen

    @classmethod
    def build(
        cls,
        users: Mapping[str, Any],
        items: Mapping[str, Any],
        whole_items: bool,
        seen: Tensor | None = None,
    ) -> CollabPreprocessor:
        """Return the preprocessor of an export, from ``arguments()`` and ``tensors()``."""
        from flambeau_tabular.columns.category_column import CategoryColumn

        columns = [CategoryColumn.from_json(dict(each)) for each in (users, items)]
        return cls(columns[0], columns[1], whole_items=whole_items, seen=seen)

    @property
    def builder(self) -> str:
        """Name of the constructor in exports."""
        return "collab_preprocessor"

    @property
    def n_items(self) -> int:
        """Number of known items, which have the codes from 2 on."""
        return len(self.items.values)

    def item_values(self) -> list[str | int]:
        """Return the known items in the order of their codes."""
        return list(map(int, self.items.values)) if self.whole_items else list(self.items.values)

    def encode(self, items: Sequence[Any]) -> Batch:
        """Return the codes of rows: a frame, or one dict per row with user and item by name.

        Raises:
            InputError: A column is missing, or a user or item is.
        """
        inputs = self.codes(as_frame(items))
        n = len(inputs["users"])
        return Batch(inputs, weight=float(n), indices=torch.arange(n))

    def codes(self, frame: Frame) -> dict[str, Tensor]:
        """Return the codes of a table: "users" and "items", int32 ``(n,)``.

        Raises:
            InputError: A column is missing, or a user or item is.
        """
        users = self.users.encode(complete(frame, self.users.name, "user"))
        items = self.items.encode(complete(frame, self.items.name, "item"))
        return {"users": torch.from_numpy(users), "items": torch.from_numpy(items)}

    def is_single(self, item: Any) -> bool:
        """Return whether ``item`` is one row: a dict of values."""
        return isinstance(item, Mapping)

    def expand(self, item: Any) -> Sequence[Any] | None:
        """Return the rows of a frame; None for anything else."""
        from flambeau_tabular.columns.frames import is_table

        if isinstance(item, FrameRows):
            return item
        return FrameRows(as_frame(item)) if is_table(item) else None

    def rows_of_frame(self, frame: Any) -> Sequence[Any]:
        """Return the rows of a pandas frame, or of a series of dicts."""
        return list(frame) if not hasattr(frame, "columns") else FrameRows(as_frame(frame))

    def vocabulary_digest(self) -> str:
        """Return the hash of all known users and items."""
        text = json.dumps([self.users.to_json(), self.items.to_json()], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def arguments(self) -> Mapping[str, Any]:
        return {
            "users": self.users.to_json(),
            "items": self.items.to_json(),
            "whole_items": self.whole_items,
        }

    def tensors(self) -> Mapping[str, Tensor]:
        return {} if self.seen is None else {"seen": self.seen}


def complete(frame: Frame, name: str, role: str) -> pa.ChunkedArray:
    """Return a column of users or items in which no cell is missing.

    Raises:
        InputError: There is no such column, or a cell is missing; the message gives the row.
    """
    from flambeau_tabular.columns.cells import as_categories

    cells = frame.column(name)
    positions, texts = as_categories(cells)
    missing = np.flatnonzero(np.array([*(text is None for text in texts), True])[positions])
    if len(missing):
        raise InputError(
            f"The {role} (column {name!r}) is missing in {len(missing):,} of {len(cells):,} rows, "
            f"the first is row {missing[0]}. Fill in the cells or drop these rows. An "
            f"unknown {role} is any value that no {role} of train has."
        )
    return cells
