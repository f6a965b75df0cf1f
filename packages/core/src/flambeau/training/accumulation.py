"""Gradient accumulation: the micro-batches of each optimizer step.

``training.step.train_step`` adds up their gradients, so that a step equals one large batch.
"""

from __future__ import annotations

from collections.abc import Iterator

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader


def grouped_batches(
    loader: Loader, accumulate: int, epoch: int, start_step: int
) -> Iterator[list[Batch]]:
    """Yield the micro-batches of each optimizer step; the last step may have fewer.

    Args:
        loader: The train loader.
        accumulate: Micro-batches per step.
        epoch: The epoch of the batches.
        start_step: Optimizer steps of the epoch that are already done.
    """
    batches = loader.batches(epoch, start_step * accumulate)
    if accumulate == 1:
        for batch in batches:
            yield [batch]
        return
    group: list[Batch] = []
    for batch in batches:
        group.append(batch)
        if len(group) == accumulate:
            yield group
            group = []
    if group:
        yield group
