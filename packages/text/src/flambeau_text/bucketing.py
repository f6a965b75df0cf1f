"""Batches of similar lengths, each with as many texts, or pairs, as a token budget allows.

The budget counts all tokens, padding included, because that is what a step computes. The number of
batches is the same in every epoch, so that schedules and resuming can rely on it; the members of a
batch differ from epoch to epoch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau import random as keyed

LENGTH_MULTIPLE = 4
"""Lengths are rounded up to a multiple of this, for sorting and for padding. Rows of the same
rounded lengths are shuffled, and an epoch has few different batch shapes. On a CPU in bf16 a matrix
product of a new shape needs preparation: a step with new shapes took twice the time of the next one
with the same shapes."""

ROW_MULTIPLE = 8
"""The number of rows in a larger batch is a multiple of this number, except in the last batch, so
that an epoch has few different batch shapes."""

_LENGTH_NOISE = float(np.log(1.25))

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Buckets:
    """Rows sorted by rounded length, and the boundaries of the batches.

    Attributes:
        order: Indices of the rows sorted by rounded length, int64 ``(n,)``.
        length_classes: Number of the length class of each row in ``order``, int64 ``(n,)``,
            increasing. The rows of a class have the same rounded lengths and are shuffled.
        boundaries: The index in ``order`` at which each batch begins, then ``n``, int64
            ``(batches + 1,)``.
    """

    order: Tensor
    length_classes: Tensor
    boundaries: Tensor

    def __len__(self) -> int:
        return len(self.boundaries) - 1

    def batches(self, seed: int, epoch: int) -> list[Tensor]:
        """Return the indices of the rows in each batch of an epoch, in the order of the batches.

        All draws are keyed by (seed, epoch), so a resumed run gets the same batches.
        """
        n = len(self.order)
        draws = torch.randperm(n, generator=keyed.generator(seed, "shuffle", epoch))
        # Sorted by (length class, draw): the boundaries stay, the members change.
        shuffled = self.order[torch.argsort(self.length_classes * n + draws)]
        order = torch.randperm(len(self), generator=keyed.generator(seed, "batches", epoch))
        starts, ends = self.boundaries[:-1].tolist(), self.boundaries[1:].tolist()
        return [shuffled[starts[batch] : ends[batch]] for batch in order.tolist()]


def make_buckets(lengths: Rows, budget: int, others: Rows | None = None) -> Buckets:
    """Group rows of similar lengths into batches within a token budget.

    Args:
        lengths: Number of tokens of each text, int64 ``(n,)``; of pairs, that of each target.
        budget: Maximum number of tokens in a batch, padding included; of pairs, those of both
            sides. A row that exceeds the budget alone becomes a batch of one.
        others: For pairs, number of tokens of each source, int64 ``(n,)``.
    """
    by_target = round_up(lengths)
    by_source = np.zeros_like(by_target) if others is None else round_up(others)
    # In every other target length the sources run from long to short: where two target lengths
    # share a batch, their sources then have similar lengths too.
    alternating = np.where((by_target // LENGTH_MULTIPLE) % 2 == 0, by_source, -by_source)
    order = np.lexsort((alternating, by_target))
    by_target, by_source = by_target[order], by_source[order]
    changes = np.diff(by_target, prepend=-1).astype(bool) | np.diff(by_source, prepend=-1).astype(
        bool
    )
    boundaries = [0]
    widest_target = widest_source = 0
    for index, (target, source) in enumerate(
        zip(by_target.tolist(), by_source.tolist(), strict=True)
    ):
        widest_target, widest_source = max(widest_target, target), max(widest_source, source)
        rows = index + 1 - boundaries[-1]
        if rows > 1 and rows * (widest_target + widest_source) > budget:
            start, n = boundaries[-1], index - boundaries[-1]
            end = index if n < ROW_MULTIPLE else start + n // ROW_MULTIPLE * ROW_MULTIPLE
            boundaries.append(end)
            widest_target = int(by_target[end : index + 1].max())
            widest_source = int(by_source[end : index + 1].max())
    return Buckets(
        torch.from_numpy(order.astype(np.int64)),
        torch.from_numpy(np.cumsum(changes).astype(np.int64)),
        torch.tensor([*boundaries, len(order)]),
    )


def round_up(lengths: Rows) -> Rows:
    """Round lengths up to a multiple of ``LENGTH_MULTIPLE``."""
    return -(-np.asarray(lengths) // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def rounded_width(longest: int) -> int:
    """Return the width to which a batch is padded: a multiple of ``LENGTH_MULTIPLE``."""
    return -(-longest // LENGTH_MULTIPLE) * LENGTH_MULTIPLE


def batches_of_similar_lengths(
    lengths: Tensor, size: int, seed: int, epoch: int, *, drop_last: bool = False
) -> list[Tensor]:
    """Return the rows of each batch of an epoch: ``size`` rows of similar lengths.

    Rows are sorted by their length times a random factor between 0.8 and 1.25, so that rows of all
    similar lengths meet in a batch, also in small sets, where few rows have the same length. All
    draws are keyed by (seed, epoch), so a resumed run gets the same batches.

    Args:
        lengths: Number of tokens of each row, int64 ``(n,)``.
        size: Rows in a batch.
        seed: Seed of the draws.
        epoch: The epoch.
        drop_last: Whether random rows are left out instead of making a last, smaller batch.
    """
    generator = keyed.generator(seed, "shuffle", epoch)
    rows = torch.randperm(len(lengths), generator=generator)
    if drop_last:
        rows = rows[: len(rows) // size * size]
    noise = (2.0 * torch.rand(len(rows), generator=generator) - 1.0) * _LENGTH_NOISE
    sizes = lengths[rows].double().clamp(min=1.0).log() + noise
    batches = rows[torch.argsort(sizes, stable=True)].split(size)
    order = torch.randperm(len(batches), generator=keyed.generator(seed, "batches", epoch))
    return [batches[index] for index in order.tolist()]
