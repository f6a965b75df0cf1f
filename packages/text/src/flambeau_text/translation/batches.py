"""Which sentences make a batch: as many as a budget of tokens holds, of about the same length.

Tokens are counted with their padding and on both sides, for that is what a step computes. The
number of batches is the same every epoch, so that schedules and a resume can count on it, although
which sentences meet in one differs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau import random as keyed

QUANTUM = 4
"""Lengths are rounded up to multiples of this, for sorting and for padding. Sentences of one
rounded length are shuffled among each other; and an epoch has few shapes of batches, which matters
in bf16 on a CPU: a product of a new shape is prepared first, and a step of new shapes took twice as
long as the next one of the same."""

ROWS = 8
"""A batch has a multiple of so many sentences, for the same reason."""

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Buckets:
    """Where the sorted sentences are cut, and what is in no order among itself.

    Attributes:
        order: Sentences sorted by rounded length, int64 ``(n,)``.
        ties: The number of each one's rounded lengths, rising along ``order``.
        borders: Where batches begin in ``order``, and the end, int64 ``(batches + 1,)``.
    """

    order: Tensor
    ties: Tensor
    borders: Tensor

    def __len__(self) -> int:
        return len(self.borders) - 1

    def of_epoch(self, seed: int, epoch: int) -> list[Tensor]:
        """The sentences of each batch, in the order of the batches; a new one each epoch.

        Every draw is keyed by (seed, epoch), so a resumed run sees the same batches.
        """
        n = len(self.order)
        draws = torch.randperm(n, generator=keyed.generator(seed, "shuffle", epoch))
        # Sorted by (rounded lengths, draw): the cuts stay where they are, the members change.
        mixed = self.order[torch.argsort(self.ties * n + draws)]
        turn = torch.randperm(len(self), generator=keyed.generator(seed, "batches", epoch))
        begins, ends = self.borders[:-1].tolist(), self.borders[1:].tolist()
        return [mixed[begins[batch] : ends[batch]] for batch in turn.tolist()]


def make_buckets(sources: Rows, targets: Rows, budget: int) -> Buckets:
    """Sentences of like length together, and as many in a batch as the budget holds.

    Args:
        sources: Tokens of each source, int64 ``(n,)``.
        targets: Tokens of each target, as the decoder reads them.
        budget: Tokens of both sides, padding included, that a batch may have; a single pair that
            is longer is a batch of its own.
    """
    by_target, by_source = rounded(targets), rounded(sources)
    # Every other stretch of targets runs from long sources to short ones: where two stretches meet
    # in a batch, the sources are then of like length too.
    turning = np.where((by_target // QUANTUM) % 2 == 0, by_source, -by_source)
    order = np.lexsort((turning, by_target))
    by_target, by_source = by_target[order], by_source[order]
    changes = np.diff(by_target, prepend=-1).astype(bool) | np.diff(by_source, prepend=-1).astype(
        bool
    )
    borders = [0]
    widest_target = widest_source = 0
    for place, (target, source) in enumerate(
        zip(by_target.tolist(), by_source.tolist(), strict=True)
    ):
        widest_target, widest_source = max(widest_target, target), max(widest_source, source)
        rows = place + 1 - borders[-1]
        if rows > 1 and rows * (widest_target + widest_source) > budget:
            begin = borders[-1]
            end = place if place - begin < ROWS else begin + (place - begin) // ROWS * ROWS
            borders.append(end)
            widest_target = int(by_target[end : place + 1].max())
            widest_source = int(by_source[end : place + 1].max())
    return Buckets(
        torch.from_numpy(order.astype(np.int64)),
        torch.from_numpy(np.cumsum(changes).astype(np.int64)),
        torch.tensor([*borders, len(order)]),
    )


def rounded(lengths: Rows) -> Rows:
    """Lengths up to the next multiple of ``QUANTUM``."""
    return -(-np.asarray(lengths) // QUANTUM) * QUANTUM
