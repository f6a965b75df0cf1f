"""Looking at a run without touching it: its first batches, and a model put back as it was."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, cast

import torch
from torch import nn

from flambeau.data.batch import Batch
from flambeau.data.loader import why_not_resumable
from flambeau.errors import InputError
from flambeau.training.generators import generator_states, restore_generators

if TYPE_CHECKING:
    from flambeau.training.run import Run


@contextmanager
def undisturbed(model: nn.Module) -> Generator[None]:
    """A block after which buffers, modes and global generators are as they were before it.

    Weights are the block's own business: compute no gradients in it.
    """
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    modes = {module: module.training for module in model.modules()}
    generators = generator_states()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode
        with torch.no_grad():
            for name, value in model.named_buffers():
                if name in buffers:  # a forward pass may register new ones
                    value.copy_(buffers[name])
        restore_generators(generators)


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
