"""A map-style data set of the user's, read sample by sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.collate import BatchLayout, as_batch
from flambeau.data.loader import LoaderOptions
from flambeau.data.worker_loader import WorkerLoader, name_positions
from flambeau.errors import InputError
from flambeau.global_rng import seed_globals

# torch types it in part only.
_collate: Callable[[Sequence[Any]], Any] = cast(Any, torch.utils.data).default_collate


class MapDataset:
    """A user's map-style data set, read by worker processes sample by sample.

    Each sample is read with the global generators keyed by (seed, epoch, sample), so random
    augmentation in ``__getitem__`` is the same whatever batch or worker the sample is in. Nothing
    is cached. Samples are put together by torch's ``default_collate``; Python floats and NumPy's
    float64 become torch's default dtype.

    Args:
        items: Has ``__len__`` and ``__getitem__``.
        layout: Which parts of a sample are inputs and targets.
        first_id: Number of the first sample; the others count on.
    """

    def __init__(self, items: Any, layout: BatchLayout, first_id: int = 0) -> None:
        self.items = items
        self.layout = layout
        self.first_id = first_id

    def __len__(self) -> int:
        return len(self.items)

    def loader(self, options: LoaderOptions) -> WorkerLoader:
        """A loader over ``options.num_workers`` processes."""
        return WorkerLoader(MapDatasetReader(self, options.seed), options)

    def sample(self, position: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and targets of one sample, as the data set gives them."""
        return self.layout.parts(self.items[position])


class MapDatasetReader:
    """The ``LazyDataset`` of a ``MapDataset`` under a seed."""

    def __init__(self, source: MapDataset, seed: int) -> None:
        self.source = source
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, positions: Sequence[int], epoch: int) -> Batch:
        samples = [self._sample(position, epoch) for position in positions]
        try:
            inputs, targets = _collate(samples)
        except (TypeError, RuntimeError) as error:
            raise InputError(
                f"The samples at {name_positions(positions)} cannot be put together: {error}. "
                "Return tensors of one shape, or pass a DataLoader with a collate_fn to "
                "TensorData.from_loaders."
            ) from error
        first_inputs, first_targets = samples[0]
        batch = as_batch(_narrowed(inputs, first_inputs), _narrowed(targets, first_targets))
        batch.indices = torch.tensor(positions) + self.source.first_id
        batch.epoch = epoch
        return batch

    def _sample(self, position: int, epoch: int) -> tuple[dict[str, Any], dict[str, Any]]:
        number = self.source.first_id + position
        seed_globals(keyed.key(self.seed, "sample", epoch, number))
        try:
            return self.source.sample(position)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"Sample {position} of the data set cannot be read: {type(error).__name__}: {error}"
            ) from error


def _narrowed(collated: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """float64 that nobody asked for (Python's and NumPy's default) to torch's default dtype."""
    parts = dict(collated)
    for name, value in first.items():
        if isinstance(value, float) or getattr(value, "dtype", None) == np.float64:
            parts[name] = parts[name].to(torch.get_default_dtype())
    return parts
