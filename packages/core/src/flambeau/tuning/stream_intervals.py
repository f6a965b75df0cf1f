"""``StreamIntervals``: a loader that divides the epochs of a stream into intervals."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, loader_world_size, not_resumable_reason, steps_in
from flambeau.errors import InputError


class StreamIntervals(Loader):
    """Divides each epoch of a stream into the same number of intervals.

    For the training loop each interval is an epoch, which ends with an evaluation. Unlike the
    intervals of ``IntervalLoader``, these never cross the end of a real epoch, where the carried
    state is reset. Their lengths differ by at most one step.

    Args:
        loader: A stream that can start at any step.
        pieces: Intervals per epoch.
        accumulate: Batches per optimizer step; a step is never divided between intervals.

    Raises:
        InputError: ``pieces`` is not positive.
    """

    is_stream = True

    def __init__(self, loader: Loader, pieces: int, accumulate: int = 1) -> None:
        if pieces < 1:
            raise InputError(f"pieces is {pieces}, but must be at least 1.")
        self.loader, self.pieces, self.accumulate = loader, pieces, accumulate
        self.world_size = loader_world_size(loader)
        self.not_resumable_reason = not_resumable_reason(loader)

    @property
    def steps_per_epoch(self) -> int:
        return self.steps_in(0)

    def steps_in(self, epoch: int) -> int:
        """Return the number of batches of an interval."""
        first, end = self._bounds(epoch)
        return end - first

    def continues(self, epoch: int) -> bool:
        """Return whether the interval continues the real epoch of the interval before."""
        return epoch % self.pieces > 0

    def batches(self, epoch: int, start_step: int = 0) -> Iterator[Batch]:
        first, end = self._bounds(epoch)
        rest = self.loader.batches(epoch // self.pieces, first + start_step)
        return islice(rest, end - first - start_step)

    def _bounds(self, interval: int) -> tuple[int, int]:
        """Return the range of batches (first, end) of an interval within its real epoch."""
        epoch, piece = divmod(interval, self.pieces)
        batches = steps_in(self.loader, epoch)
        steps = -(-batches // self.accumulate)
        first, end = (steps * at // self.pieces * self.accumulate for at in (piece, piece + 1))
        return first, min(end, batches)
