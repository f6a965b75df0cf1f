"""Read the first train batches of an epoch without changing the position of the run."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice
from typing import cast

from flambeau.data.batch import Batch
from flambeau.data.loader import not_resumable_reason
from flambeau.errors import InputError
from flambeau.training.components import Components


def first_batches(components: Components, epoch: int, at_most: int) -> Iterator[Batch]:
    """Yield the first train batches of an epoch, on the device; training will use them again.

    Batches without samples for this process are skipped.

    Args:
        components: Train loader and device.
        epoch: Epoch whose batches are read.
        at_most: Largest number of batches.

    Raises:
        InputError: The train loader cannot give the same batches twice.
    """
    loader = components.train
    if why_not := not_resumable_reason(loader):
        raise InputError(f"The train batches cannot be read before the epoch: {why_not}")
    batches = loader.batches(epoch)
    try:
        for batch in islice(batches, at_most):
            if len(batch):
                yield batch.to(components.device)
    finally:
        # Stops prefetching at once, not when Python next collects cycles.
        if isinstance(batches, Generator):
            cast("Generator[Batch]", batches).close()
