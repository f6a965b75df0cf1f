"""Negatives for implicit feedback: items that a user did not choose, drawn anew in each epoch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, LoaderOptions, count_steps
from flambeau.data.memory_loader import MemoryDataset
from flambeau.errors import InputError
from flambeau_tabular.models.category_embedding import FIRST_VALUE

TARGET = "target"
"""The name of the target in a batch."""


class UnseenItems:
    """Draws items that a user has not seen, each with the same probability.

    Args:
        users: Number of the user of each seen pair, int64 ``(pairs,)``, from 0 on.
        items: Number of its item, likewise; pairs may repeat.
        n_items: Number of all items.
    """

    def __init__(self, users: NDArray[np.int64], items: NDArray[np.int64], n_items: int) -> None:
        self.n_items = n_items
        pairs = np.unique(users * n_items + items)
        owners, seen = np.divmod(pairs, max(n_items, 1))
        # Positions in ``pairs`` of the first pair of each user, and the end.
        self._starts = np.r_[0, np.cumsum(np.bincount(owners))]
        # Number of unseen items before each seen item of the same user; ascending.
        before = seen - (np.arange(len(pairs)) - self._starts[owners])
        self._keys = owners * (n_items + 1) + before

    def count(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return how many items each of the users has not seen, ``(n,)``."""
        return self.n_items - (self._start(users + 1) - self._start(users))

    def draw(self, users: NDArray[np.int64], uniform: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return one unseen item of each user, ``(n,)``; every user needs at least one.

        Args:
            users: Numbers of the users, ``(n,)``.
            uniform: Random numbers in [0, 1), ``(n,)``.
        """
        count = self.count(users)
        rank = np.minimum((uniform * count).astype(np.int64), count - 1)
        # The seen items that precede the unseen item of this rank move it by one each.
        passed = np.searchsorted(self._keys, users * (self.n_items + 1) + rank, "right")
        return rank + passed - self._start(users)

    def _start(self, users: NDArray[np.int64]) -> NDArray[np.int64]:
        # A user after the last one has seen nothing.
        return self._starts[np.minimum(users, len(self._starts) - 1)]


@dataclass(frozen=True, eq=False)
class Choices:
    """Pairs of users and items that were chosen, as the negatives for them are drawn.

    Attributes:
        inputs: Codes by name, "users" and "items", int32 ``(n,)``.
        users: Number of each user, also of those that have no code of their own, int64 ``(n,)``.
        ids: Sample numbers, int64 ``(n,)``.
        n_rows: Number of rows in all parts: sample numbers of negatives follow after them.
        unseen: Draws items from those that a user has not chosen.
        n_negatives: Negatives for each pair.
    """

    inputs: dict[str, Tensor]
    users: NDArray[np.int64]
    ids: Tensor
    n_rows: int
    unseen: UnseenItems
    n_negatives: int

    def __post_init__(self) -> None:
        if not self.drawn_for().any():
            raise InputError(
                f"Every user chose all {self.unseen.n_items:,} items, so there is no item that "
                "was not chosen, and nothing to learn. If the rows are ratings, name their "
                "column: rating=…."
            )

    def drawn_for(self) -> NDArray[np.bool_]:
        """Return for which pairs negatives are drawn: the user has not chosen every item."""
        return self.unseen.count(self.users) > 0

    def __len__(self) -> int:
        return len(self.users) + self.n_negatives * int(self.drawn_for().sum())

    def samples(self, seed: int, epoch: int) -> MemoryDataset:
        """Return the pairs with the target 1, and the negatives of an epoch with the target 0.

        The negatives of a pair depend only on the seed, the epoch and its sample number.
        """
        rows = np.flatnonzero(self.drawn_for())
        uniform = keyed.uniform(seed, "negatives", epoch, self.ids[rows], self.n_negatives)
        users = np.repeat(self.users[rows], self.n_negatives)
        items = self.unseen.draw(users, uniform.double().numpy().reshape(-1)) + FIRST_VALUE
        repeated = torch.from_numpy(np.repeat(rows, self.n_negatives))
        positions = torch.arange(self.n_negatives).repeat(len(rows)) + 1
        inputs = {
            "users": torch.cat([self.inputs["users"], self.inputs["users"][repeated]]),
            "items": torch.cat([self.inputs["items"], torch.from_numpy(items).int()]),
        }
        target = torch.zeros(len(inputs["users"]), 1)
        target[: len(self.ids)] = 1.0
        ids = torch.cat([self.ids, self.ids[repeated] + positions * self.n_rows])
        return MemoryDataset(inputs, {TARGET: target}, ids)


class SampledDataset:
    """Chosen pairs, with other negatives in every epoch.

    Args:
        choices: The pairs.
    """

    def __init__(self, choices: Choices) -> None:
        self.choices = choices

    def __len__(self) -> int:
        return len(self.choices)

    def loader(self, options: LoaderOptions) -> SampledLoader:
        """Return the loader; its seed is that of the negatives too."""
        return SampledLoader(self.choices, options)


class SampledLoader(Loader):
    """A loader that draws the negatives of an epoch when the epoch starts.

    Args:
        choices: The pairs.
        options: Options of the loader.
    """

    def __init__(self, choices: Choices, options: LoaderOptions) -> None:
        self.choices = choices
        self.options = options
        self.world_size = options.world_size
        self._steps = count_steps(len(choices), options)

    @property
    def steps_per_epoch(self) -> int:
        return self._steps

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        samples = self.choices.samples(self.options.seed, epoch)
        yield from samples.loader(self.options).batches(epoch, start_step)
