"""``IntervalLoader``: a loader whose epochs have a given number of batches."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from flambeau.data.batch import Batch
from flambeau.data.loader import (
    Loader,
    StepCounts,
    is_stream,
    loader_world_size,
    not_resumable_reason,
)
from flambeau.errors import InputError


class IntervalLoader(Loader):
    """Divides the epochs of ``loader`` into intervals of ``length`` batches.

    The training loop treats each interval as an epoch, which ends with an evaluation. Order and
    augmentation of the samples are those of the real epochs. An interval may be a part of a real
    epoch or span several.

    Args:
        loader: A loader that can start at any step.
        length: Batches per interval.

    Raises:
        InputError: ``length`` is not positive, or the loader has no batches.
    """

    def __init__(self, loader: Loader, length: int) -> None:
        if length < 1 or loader.steps_per_epoch < 1:
            raise InputError(
                f"length is {length} and the loader's steps_per_epoch {loader.steps_per_epoch}. "
                "Both must be at least 1."
            )
        self.loader = loader
        self.length = length
        self.world_size = loader_world_size(loader)
        self.is_stream = is_stream(loader)
        self._counts = StepCounts.of_loader(loader)
        self.not_resumable_reason = not_resumable_reason(loader)

    @property
    def steps_per_epoch(self) -> int:
        return self.length

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        first = epoch * self.length + start_step
        epoch, step = self._counts.find(first)
        left = self.length - start_step
        while left > 0:
            before = left
            for batch in islice(self.loader.batches(epoch, step), left):
                left -= 1
                yield batch
            if left == before and step < self._counts.of(epoch):
                return  # a user-defined loader without further batches
            epoch, step = epoch + 1, 0
