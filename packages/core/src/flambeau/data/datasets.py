"""Data sets and loaders that a user has: torch's, Hugging Face's, a ``DataLoader``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast, overload

import numpy as np
import torch
from torch.utils.data import IterableDataset, TensorDataset

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.data.dataset import Data, Facts
from flambeau.data.foreign import (
    ForeignDataset,
    check_order,
    count_batches,
    count_samples,
    peek,
)
from flambeau.data.gather import MemoryDataset
from flambeau.data.generators import BorrowedGlobals, seed_globals
from flambeau.data.hugging_face import as_memory, class_names_of, is_hugging_face, with_tensors
from flambeau.data.layout import Layout, as_batch
from flambeau.data.loader import Dataset, LoaderOptions
from flambeau.data.plain import PlainData, describe_columns, names_of_classes
from flambeau.data.preprocess import Preprocessor
from flambeau.data.split import Rows, Split
from flambeau.data.tensor_preprocessor import TensorPreprocessor, dtype_name
from flambeau.data.tensors import TensorData, number_parts
from flambeau.data.workers import WorkerLoader, name_positions
from flambeau.errors import ArgumentError, InputError

# torch types it in part only.
_collate: Callable[[Sequence[Any]], Any] = cast(Any, torch.utils.data).default_collate

_PEEK_BATCHES = 2
_PEEK_SAMPLES = 32


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

    def __init__(self, items: Any, layout: Layout, first_id: int = 0) -> None:
        self.items = items
        self.layout = layout
        self.first_id = first_id

    def __len__(self) -> int:
        return len(self.items)

    def loader(self, options: LoaderOptions) -> WorkerLoader:
        """A loader over ``options.num_workers`` processes."""
        return WorkerLoader(_MapReader(self, options.seed), options)

    def sample(self, position: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """Inputs and targets of one sample, as the data set gives them."""
        return self.layout.parts(self.items[position])


class _MapReader:
    """The ``ItemDataset`` of a ``MapDataset`` under a seed."""

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
                "Data.from_loaders."
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


Source: TypeAlias = MapDataset | ForeignDataset | MemoryDataset


class ForeignData(PlainData):
    """Parts that are read while training; facts rest on the first samples of train.

    Built by ``Data.from_datasets`` and ``Data.from_loaders``.
    """

    def __init__(
        self,
        parts: Mapping[str, Source],
        split: Split,
        first: Sequence[Batch],
        *,
        task: str = "auto",
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__(split, task, class_names)
        self._parts = dict(parts)
        self._first = first

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        return self._part(part)

    def preprocessor(self, values: Mapping[str, Any]) -> TensorPreprocessor:
        if values.get("normalisation", "none") == "standard":
            raise InputError(
                "normalisation='standard' needs mean and std of all train rows, and these data "
                "are read while training. Standardise in the data set and choose "
                "choices={'normalisation': 'none'}, or load the data and use Data.from_tensors."
            )
        columns = describe_columns(self._first[0].inputs)
        return TensorPreprocessor(columns, dtype=values.get("input_dtype"))

    def raw(self, part: str) -> Sequence[Any]:
        """The inputs of each sample; those of a loader are read batch by batch, all of them."""
        source = self._part(part)
        if isinstance(source, MapDataset):
            return _RawSamples(len(source), lambda place: source.sample(place)[0])
        options = LoaderOptions(batch_size=256)
        batches = [batch.inputs for batch in source.loader(options).batches(0)]
        rows = [
            {name: value[row] for name, value in inputs.items()}
            for inputs in batches
            for row in range(len(next(iter(inputs.values()))))
        ]
        return _RawSamples(len(rows), rows.__getitem__)

    def _measure(self) -> Facts:
        n = sum(len(batch) for batch in self._first)
        first = self._first[0]
        facts: dict[str, Any] = {
            "inputs": describe_columns(first.inputs),
            "targets": describe_columns(first.targets),
            "in_memory": False,
            "evidence": f"shapes and types from the first {n} train samples",
        }
        if isinstance(self._parts["train"], ForeignDataset):
            facts["loader_batch_size"] = len(first)
        if len(first.targets) == 1:
            target = first.target
            facts["target_dtype"] = dtype_name(target.dtype)
            facts["target_shape"] = list(target.shape[1:])
            facts["target_binary"] = all(
                bool(((b.target == 0) | (b.target == 1)).all()) for b in self._first
            )
        if self._class_names is not None:
            facts["class_names"] = list(self._class_names)
        return facts

    def _check_labels(self, classes: Sequence[str]) -> None:
        """Of the first samples; what comes later is refused in its step."""
        for batch in self._first:
            target = batch.target
            wrong = (target < 0) | (target >= len(classes))
            if target.ndim == 1 and not target.is_floating_point() and bool(wrong.any()):
                raise InputError(
                    f"The first train samples hold the label {int(target[wrong][0])}, but there "
                    f"are {len(classes)} classes, 0 to {len(classes) - 1}. Give the data all of "
                    "them (class_names=[…] or n_classes=…), or mend the labels."
                )

    def _part(self, part: str) -> Source:
        self.split.part(part)  # an unknown name is an error that says the known ones
        if part not in self._parts:
            raise InputError(f"There is no {part} part. Give {part}=… when building the data.")
        return self._parts[part]


class _RawSamples(Sequence[Any]):
    """Samples that are read when they are asked for; one input comes without its name."""

    def __init__(self, n: int, read: Callable[[int], Mapping[str, Any]]) -> None:
        self._rows = range(n)
        self._read = read

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[place] for place in self._rows[index]]
        inputs = self._read(self._rows[index])
        return next(iter(inputs.values())) if len(inputs) == 1 else inputs


def from_datasets(
    train: Any,
    valid: Any,
    test: Any = None,
    *,
    n_inputs: int | None = None,
    inputs: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    task: str = "auto",
    class_names: Sequence[str] | None = None,
    n_classes: int | None = None,
) -> Data:
    """See ``Data.from_datasets``."""
    layout = Layout(n_inputs, _names(inputs), _names(targets))
    given = {"train": train, "valid": valid} | ({} if test is None else {"test": test})
    classes = names_of_classes(class_names, n_classes) or class_names_of(train, layout)
    parts: dict[str, Source] = {part: _source(part, each, layout) for part, each in given.items()}
    memory = {part: each for part, each in parts.items() if isinstance(each, MemoryDataset)}
    if len(memory) == len(parts):
        numbered, split = number_parts(memory)
        return TensorData(numbered, split, task=task, class_names=classes)
    # Read all of them the same way, so that train and valid cannot differ.
    split = _counted({part: len(each) for part, each in given.items()})
    parts = {
        part: MapDataset(with_tensors(each), layout, first_id=int(split.part(part)[0]))
        for part, each in given.items()
    }
    first = _first_samples(cast(MapDataset, parts["train"]))
    return ForeignData(parts, split, first, task=task, class_names=classes)


def from_loaders(
    train: Iterable[Any],
    valid: Iterable[Any],
    test: Iterable[Any] | None = None,
    *,
    n_inputs: int | None = None,
    inputs: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    task: str = "auto",
    class_names: Sequence[str] | None = None,
    n_classes: int | None = None,
) -> Data:
    """See ``Data.from_loaders``."""
    layout = Layout(n_inputs, _names(inputs), _names(targets))
    given = {"train": train, "valid": valid} | ({} if test is None else {"test": test})
    for part, loader in given.items():
        count_batches(loader, part)
        check_order(loader, part)
    first = peek(train, layout, _PEEK_BATCHES)
    sizes = {
        part: count_samples(loader) or count_batches(loader, part) * len(first[0])
        for part, loader in given.items()
    }
    parts = {
        part: ForeignDataset(loader, layout, part, first[0] if part == "train" else None)
        for part, loader in given.items()
    }
    classes = names_of_classes(class_names, n_classes)
    notes = tuple(
        f"{part}: samples are batches × {len(first[0])}, for the loader does not count them"
        for part, loader in given.items()
        if not count_samples(loader)
    )
    split = _counted(sizes, notes)
    return ForeignData(parts, split, first, task=task, class_names=classes)


def _names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    # A single string goes through, so that Layout can say what is wrong with it.
    return cast(Any, names) if names is None or isinstance(names, str) else tuple(names)


def _source(part: str, items: Any, layout: Layout) -> Source:
    is_map_style = hasattr(items, "__len__") and hasattr(items, "__getitem__")
    if not is_map_style or isinstance(cast(object, items), IterableDataset):
        raise ArgumentError(
            f"The {part} data set is a {type(items).__name__} without __len__ and __getitem__, so "
            "it can be neither shuffled nor resumed. Use a map-style data set, or put it into a "
            "DataLoader (with __len__) and use Data.from_loaders."
        )
    if not len(items):
        raise InputError(f"The {part} data set is empty.")
    if type(items) is TensorDataset:
        return MemoryDataset(*layout.parts(items.tensors))
    if is_hugging_face(items):
        columns = as_memory(items, layout)
        if columns is not None:
            return MemoryDataset(*columns)
    return MapDataset(items, layout)


def _first_samples(train: MapDataset) -> list[Batch]:
    n = min(len(train), _PEEK_BATCHES * _PEEK_SAMPLES)
    reader = _MapReader(train, seed=0)
    with BorrowedGlobals().at(0):
        return [
            reader.batch(range(start, min(start + _PEEK_SAMPLES, n)), epoch=0)
            for start in range(0, n, _PEEK_SAMPLES)
        ]


def _counted(sizes: Mapping[str, int], notes: tuple[str, ...] = ()) -> Split:
    rows: dict[str, Rows] = {}
    start = 0
    for part, size in sizes.items():
        rows[part] = np.arange(start, start + size)
        start += size
    test = rows.get("test", np.empty(0, np.int64))
    return Split(rows["train"], rows["valid"], test, method="given", notes=notes)
