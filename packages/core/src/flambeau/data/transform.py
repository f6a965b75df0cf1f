"""Device transforms: a batch in, a batch out, every draw keyed by sample."""

from __future__ import annotations

from typing import Protocol

from flambeau.data.batch import Batch


class Transform(Protocol):
    """A random change of a whole training batch on the device (augmentation, mixup).

    It draws with ``flambeau.random.uniform(seed, purpose, batch.epoch, batch.indices, n)``, so a
    sample's change is the same whatever batch, worker or rank it is in.
    """

    def __call__(self, batch: Batch, seed: int) -> Batch:
        """The changed batch; the one passed in stays as it was."""
        ...
