"""``Transform``: a random change of a training batch on the device, such as augmentation."""

from __future__ import annotations

from typing import Protocol

from flambeau.data.batch import Batch


class Transform(Protocol):
    """A random transform of a training batch on the device (augmentation, mixup).

    It draws with ``flambeau.random.uniform(seed, purpose, batch.epoch, batch.indices, n)``, so the
    numbers drawn for a sample do not depend on its batch, worker or rank.
    """

    def __call__(self, batch: Batch, seed: int) -> Batch:
        """Return the transformed batch; the argument is not modified."""
        ...
