"""The first train batches of the coming epoch, read without consuming them."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from itertools import islice
from typing import TYPE_CHECKING, cast

from flambeau.data.batch import Batch
from flambeau.data.loader import why_not_resumable
from flambeau.errors import InputError

if TYPE_CHECKING:
    from flambeau.training.run import Run


def first_batches(run: Run, at_most: int) -> Iterator[Batch]:
    """The first train batches of the coming epoch, on the device; the run will get them again.

    Those without samples for this process are left out.

    Raises:
        InputError: The train loader cannot give the same batches twice.
    """
    loader = run.parts.train
    if why_not := why_not_resumable(loader):
        raise InputError(f"The train batches cannot be looked at beforehand: {why_not}")
    batches = loader.batches(run.state.position.epoch)
    try:
        for batch in islice(batches, at_most):
            if len(batch):
                yield batch.to(run.parts.device)
    finally:
        # Told to end, a loader stops reading ahead at once, not when Python next collects cycles.
        if isinstance(batches, Generator):
            cast("Generator[Batch]", batches).close()
