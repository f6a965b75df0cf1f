"""Data sets and loaders that a user has: torch's, Hugging Face's, a ``DataLoader``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeAlias, cast, overload

import numpy as np
from torch.utils.data import IterableDataset, TensorDataset

from flambeau.data.batch import Batch
from flambeau.data.collate import BatchLayout
from flambeau.data.data import Facts
from flambeau.data.loader import Dataset, LoaderOptions
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.split import Rows, Split
from flambeau.data.user_dataset import MapDataset, MapDatasetReader
from flambeau.data.user_loader import (
    UserLoaderDataset,
    check_order,
    count_batches,
    count_samples,
    read_first_batches,
)
from flambeau.errors import ArgumentError, InputError
from flambeau.global_rng import TemporarySeed
from flambeau.tensors.base_data import BaseTensorData, describe_columns
from flambeau.tensors.hugging_face import is_hugging_face, load_numeric_columns, with_torch_format
from flambeau.tensors.preprocess import TensorPreprocessor, dtype_name

_PEEK_BATCHES = 2
_PEEK_SAMPLES = 32


Source: TypeAlias = MapDataset | UserLoaderDataset | MemoryDataset


class UserData(BaseTensorData):
    """Parts that are read while training; facts rest on the first samples of train.

    Built by ``TensorData.from_datasets`` and ``TensorData.from_loaders``.
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

    @classmethod
    def from_map_style(
        cls,
        given: Mapping[str, Any],
        layout: BatchLayout,
        *,
        task: str,
        class_names: Sequence[str] | None,
    ) -> Self:
        """Return map-style data sets, by part, as data; see ``TensorData.from_datasets``."""
        split = _counted({part: len(each) for part, each in given.items()})
        parts = {
            part: MapDataset(with_torch_format(each), layout, first_id=int(split.part(part)[0]))
            for part, each in given.items()
        }
        return cls(parts, split, _first_samples(parts["train"]), task=task, class_names=class_names)

    @classmethod
    def from_loaders(
        cls,
        train: Iterable[Any],
        valid: Iterable[Any],
        test: Iterable[Any] | None,
        *,
        layout: BatchLayout,
        task: str,
        class_names: Sequence[str] | None,
    ) -> Self:
        """Return the user's loaders as data; see ``TensorData.from_loaders``."""
        given = {"train": train, "valid": valid} | ({} if test is None else {"test": test})
        for part, loader in given.items():
            count_batches(loader, part)
            check_order(loader, part)
        first = read_first_batches(train, layout, _PEEK_BATCHES)
        sizes = {
            part: count_samples(loader) or count_batches(loader, part) * len(first[0])
            for part, loader in given.items()
        }
        parts = {
            part: UserLoaderDataset(loader, layout, part, first[0] if part == "train" else None)
            for part, loader in given.items()
        }
        notes = tuple(
            f"{part}: the number of samples is batches × {len(first[0])}, as the loader does not "
            "report it"
            for part, loader in given.items()
            if not count_samples(loader)
        )
        return cls(parts, _counted(sizes, notes), first, task=task, class_names=class_names)

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        return self._part(part)

    def preprocessor(self, values: Mapping[str, Any]) -> TensorPreprocessor:
        if values.get("normalisation", "none") == "standard":
            raise InputError(
                "normalisation='standard' needs mean and std of all train rows, and these data "
                "are read while training. Standardise in the data set and choose "
                "choices={'normalisation': 'none'}, or load the data and use TensorData.from_tensors."
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
        if isinstance(self._parts["train"], UserLoaderDataset):
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


def as_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names as a tuple."""
    # A single string goes through, so that BatchLayout can say what is wrong with it.
    return cast(Any, names) if names is None or isinstance(names, str) else tuple(names)


def dataset_of(part: str, items: Any, layout: BatchLayout) -> Source:
    """Return a user's map-style data set as one of ours, in memory where it is plain numbers.

    Raises:
        ArgumentError: It is not map-style, or a column does not exist.
        InputError: It is empty.
    """
    is_map_style = hasattr(items, "__len__") and hasattr(items, "__getitem__")
    if not is_map_style or isinstance(cast(object, items), IterableDataset):
        raise ArgumentError(
            f"The {part} data set is a {type(items).__name__} without __len__ and __getitem__, so "
            "it can be neither shuffled nor resumed. Use a map-style data set, or put it into a "
            "DataLoader (with __len__) and use TensorData.from_loaders."
        )
    if not len(items):
        raise InputError(f"The {part} data set is empty.")
    if type(items) is TensorDataset:
        return MemoryDataset(*layout.inputs_and_targets(items.tensors))
    if is_hugging_face(items):
        columns = load_numeric_columns(items, layout)
        if columns is not None:
            return MemoryDataset(*columns)
    return MapDataset(items, layout)


def _first_samples(train: MapDataset) -> list[Batch]:
    n = min(len(train), _PEEK_BATCHES * _PEEK_SAMPLES)
    reader = MapDatasetReader(train, seed=0)
    with TemporarySeed().at(0):
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
