"""``Dataset`` classes that wrap a user's map-style data set or a user's loader."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.collate import BatchLayout, as_batch
from flambeau.data.loader import LoaderOptions
from flambeau.data.own_generators import OwnGenerators
from flambeau.data.readable_arrays import refuse_masked
from flambeau.data.user_loader import UserLoader, count_samples, known_batches
from flambeau.data.worker_loader import WorkerLoader, name_positions
from flambeau.errors import InputError
from flambeau.global_rng import seed_globals

# torch types it in part only.
_collate: Callable[[Sequence[Any]], Any] = cast(Any, torch.utils.data).default_collate


class MapDataset:
    """A user's map-style data set, read sample by sample in worker processes.

    Before a sample is read, the global generators are seeded by (seed, epoch, sample), so random
    augmentation in ``__getitem__`` does not depend on the batch or worker. Generators that the data
    set keeps as attributes are seeded in the same way. If the data set has a method ``set_epoch``,
    it is called before the first sample of an epoch. Nothing is cached.

    Samples are collated with torch's ``default_collate``; Python floats and NumPy's float64 are
    converted to torch's default dtype.

    Args:
        items: An object with ``__len__`` and ``__getitem__``.
        layout: Which fields of a sample are inputs and which are targets.
        first_id: Number of the first sample; the following samples have consecutive numbers.
    """

    def __init__(self, items: Any, layout: BatchLayout, first_id: int = 0) -> None:
        self.items = items
        self.layout = layout
        self.first_id = first_id
        self.own_generators = OwnGenerators([items])
        self._epoch: int | None = None

    def __len__(self) -> int:
        return len(self.items)

    def loader(self, options: LoaderOptions) -> WorkerLoader:
        """Return a loader with ``options.num_workers`` worker processes."""
        return WorkerLoader(MapDatasetReader(self, options.seed), options)

    def start_epoch(self, epoch: int) -> None:
        """Call ``set_epoch`` of the user's data set, if it has that method and the epoch is new."""
        if epoch != self._epoch:
            self._epoch = epoch
            if hasattr(self.items, "set_epoch"):
                self.items.set_epoch(epoch)

    def sample(self, position: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return one sample's inputs and targets as the user's data set returns them."""
        return self.layout.inputs_and_targets(self.items[position])


class MapDatasetReader:
    """A ``LazyDataset`` that reads samples of a ``MapDataset``, seeding the generators for each."""

    def __init__(self, source: MapDataset, seed: int) -> None:
        self.source = source
        self.seed = seed

    def __len__(self) -> int:
        return len(self.source)

    def batch(self, positions: Sequence[int], epoch: int) -> Batch:
        self.source.start_epoch(epoch)
        samples = [self._sample(position, epoch) for position in positions]
        try:
            for position, fields in zip(positions, samples, strict=True):
                for name, value in (*fields[0].items(), *fields[1].items()):
                    refuse_masked(f"{name!r} of the sample at position {position}", value)
            inputs, targets = _collate(samples)
        except (TypeError, RuntimeError) as error:
            images = "For images use ImageData.from_datasets. "
            raise InputError(
                f"The samples at positions {name_positions(positions)} cannot be collated into a "
                f"batch: {error}. {images if 'PIL.' in str(error) else ''}Return tensors of equal "
                "shape, or pass a DataLoader with a collate_fn to TensorData.from_loaders."
            ) from error
        first_inputs, first_targets = samples[0]
        batch = as_batch(
            _to_default_dtype(inputs, first_inputs), _to_default_dtype(targets, first_targets)
        )
        batch.indices = torch.tensor(positions) + self.source.first_id
        batch.epoch = epoch
        return batch

    def _sample(self, position: int, epoch: int) -> tuple[dict[str, Any], dict[str, Any]]:
        number = self.source.first_id + position
        key = keyed.key(self.seed, "sample", epoch, number)
        seed_globals(key)
        if self.source.own_generators:
            self.source.own_generators.seed(key)
        try:
            return self.source.sample(position)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"Reading sample {position} of the data set failed: {type(error).__name__}: {error}"
            ) from error


def _to_default_dtype(collated: Mapping[str, Any], first: Mapping[str, Any]) -> dict[str, Any]:
    """Cast fields that were Python floats or NumPy float64 in ``first`` to torch's default."""
    fields = dict(collated)
    for name, value in first.items():
        if isinstance(value, float) or getattr(value, "dtype", None) == np.float64:
            fields[name] = fields[name].to(torch.get_default_dtype())
    return fields


class UserLoaderDataset:
    """A ``Dataset`` that wraps a user-defined loader; its batch size and order do not change.

    Args:
        loader: The user's loader.
        layout: Which fields of its batches are inputs and targets.
        part: "train", "valid", "test" or "calibration".
        first: The first batch, if it was read to inspect the data.
    """

    def __init__(
        self, loader: Iterable[Any], layout: BatchLayout, part: str, first: Batch | None = None
    ) -> None:
        self.user_loader = loader
        self.layout = layout
        self.part = part
        self.first = first

    def __len__(self) -> int:
        """Number of samples if the loader reports it, else the number of batches; at least 1."""
        n = count_samples(self.user_loader) or known_batches(self.user_loader, self.part)
        return n or len(self.first or "?")

    def loader(self, options: LoaderOptions) -> UserLoader:
        """Return a ``UserLoader`` seeded with ``options.seed``."""
        return UserLoader(
            self.user_loader,
            self.layout,
            seed=options.seed,
            part=self.part,
            rank=options.rank,
            world_size=options.world_size,
        )
