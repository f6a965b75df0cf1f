"""``IntervalLoader``: an epoch of another length than the data, without a change of the order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, shares_with, why_not_resumable
from flambeau.errors import InputError


class IntervalLoader(Loader):
    """The batches of ``loader``, epoch after epoch, cut into pieces of ``length`` batches.

    To the loop each piece is an epoch: it ends with an evaluation. Samples come in the order of
    the real epochs, with the same augmentation; a piece may hold several or be a part of one.

    Args:
        loader: Gives the same batches from any step on.
        length: Batches in a piece.

    Raises:
        InputError: ``length`` is not positive, or the loader has no batches.
    """

    def __init__(self, loader: Loader, length: int) -> None:
        if length < 1 or loader.steps_per_epoch < 1:
            raise InputError(
                f"A stretch of {length} batches cannot be cut from a loader with "
                f"{loader.steps_per_epoch} an epoch. Both must be at least 1."
            )
        self.loader = loader
        self.length = length
        self.world_size = shares_with(loader)
        self.why_not_resumable = why_not_resumable(loader)

    @property
    def steps_per_epoch(self) -> int:
        return self.length

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        first = epoch * self.length + start_step
        real, at = divmod(first, self.loader.steps_per_epoch)
        left = self.length - start_step
        while left > 0:
            before = left
            for batch in islice(self.loader.batches(real, at), left):
                left -= 1
                yield batch
            if left == before:  # a loader of the user's own that has run dry
                return
            real, at = real + 1, 0
