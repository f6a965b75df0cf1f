"""``UserData``: map-style data sets (torch, Hugging Face) and user-defined loaders as ``Data``."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Self, TypeAlias, cast, overload

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, Subset, TensorDataset

from flambeau.data.batch import Batch
from flambeau.data.collate import BatchLayout, widened_target
from flambeau.data.facts import IGNORED
from flambeau.data.loader import Dataset, LoaderOptions
from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.preprocess import Preprocessor
from flambeau.data.reading import readings_as_facts
from flambeau.data.split import Split
from flambeau.data.split_request import consecutive_rows
from flambeau.data.user_dataset import MapDataset, MapDatasetReader, UserLoaderDataset
from flambeau.data.user_loader import (
    check_order,
    count_samples,
    known_batches,
    read_first_batches,
)
from flambeau.errors import ArgumentError, InputError
from flambeau.global_rng import TemporarySeed
from flambeau.tensors.base_data import BaseTensorData, describe_columns
from flambeau.tensors.preprocess import TensorPreprocessor, dtype_name

_PEEK_BATCHES = 2
_PEEK_SAMPLES = 32


Source: TypeAlias = MapDataset | UserLoaderDataset | MemoryDataset


class UserData(BaseTensorData):
    """Data that are read during training; facts are measured on the first train samples.

    Created by ``TensorData.from_datasets`` and ``TensorData.from_loaders``.
    """

    def __init__(
        self,
        parts: Mapping[str, Source],
        split: Split,
        first: Sequence[Batch],
        *,
        task: str = "auto",
        class_names: Sequence[str] | None = None,
        like: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__(split, task, class_names, like)
        self._parts = dict(parts)
        self._first = first

    @classmethod
    def from_map_style(
        cls,
        datasets: Mapping[str, Any],
        layout: BatchLayout,
        *,
        task: str,
        class_names: Sequence[str] | None,
        like: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Create the data from map-style data sets by part; see ``TensorData.from_datasets``."""
        from flambeau.tensors.hugging_face import with_torch_format

        split = _consecutive_split({part: len(each) for part, each in datasets.items()})
        parts = {
            part: MapDataset(with_torch_format(each), layout, first_id=int(split.part(part)[0]))
            for part, each in datasets.items()
        }
        first = _first_samples(parts["train"])
        for part, each in parts.items():
            if part != "train":
                with _named(part):
                    _check_like_train(part, _first_samples(each, 1)[0], first[0])
        return cls(parts, split, first, task=task, class_names=class_names, like=like)

    @classmethod
    def from_loaders(
        cls,
        loaders: Mapping[str, Iterable[Any]],
        *,
        layout: BatchLayout,
        task: str,
        class_names: Sequence[str] | None,
        like: str | os.PathLike[str] | None = None,
    ) -> Self:
        """Create the data from user-defined loaders by part; see ``TensorData.from_loaders``."""
        for part, loader in loaders.items():
            known_batches(loader, part)
            check_order(loader, part)
        first = read_first_batches(loaders["train"], layout, _PEEK_BATCHES)
        if not first:
            raise InputError("The train loader has no batches. It needs at least one.")
        for part, loader in loaders.items():
            if part != "train":
                with _named(part):
                    found = read_first_batches(loader, layout, 1)
                    if found:
                        _check_like_train(part, found[0], first[0])
        batches = {part: known_batches(loader, part) for part, loader in loaders.items()}
        sizes = {
            part: count_samples(loader) or (batches[part] or len(first)) * len(first[0])
            for part, loader in loaders.items()
        }
        parts = {
            part: UserLoaderDataset(loader, layout, part, first[0] if part == "train" else None)
            for part, loader in loaders.items()
        }
        notes = tuple(
            f"{part}: the number of samples is unknown, because the loader has no len(); only the "
            "first batches are counted"
            if batches[part] is None
            else f"{part}: the number of samples is estimated as batches × {len(first[0])}, "
            "because the loader does not report it"
            for part, loader in loaders.items()
            if not count_samples(loader)
        )
        split = _consecutive_split(sizes, notes)
        return cls(parts, split, first, task=task, class_names=class_names, like=like)

    def dataset(self, part: str, preprocessor: Preprocessor, values: Mapping[str, Any]) -> Dataset:
        return self._part(part)

    def preprocessor(self, values: Mapping[str, Any]) -> TensorPreprocessor:
        if values.get("normalisation", "none") == "standard":
            raise InputError(
                "normalisation='standard' needs the mean and std of all train samples, but these "
                "data are read during training. Standardise in the data set and pass "
                "choices={'normalisation': 'none'}, or load the data and use "
                "TensorData.from_tensors."
            )
        columns = describe_columns(self._first[0].inputs)
        return TensorPreprocessor(columns, dtype=values.get("input_dtype"))

    def raw(self, part: str) -> Sequence[Any]:
        """Return the inputs of each sample; for a user-defined loader all batches are read."""
        source = self._part(part)
        if isinstance(source, MapDataset):
            return _RawSamples(len(source), lambda position: source.sample(position)[0])
        options = LoaderOptions(batch_size=256)
        batches = [batch.inputs for batch in source.loader(options).batches(0)]
        rows = [
            {name: value[row] for name, value in inputs.items()}
            for inputs in batches
            for row in range(len(next(iter(inputs.values()))))
        ]
        return _RawSamples(len(rows), rows.__getitem__)

    def _measure(self) -> dict[str, Any]:
        n = sum(len(batch) for batch in self._first)
        first = self._first[0]
        facts: dict[str, Any] = {
            "inputs": describe_columns(first.inputs),
            "targets": describe_columns(first.targets),
            "in_memory": False,
            "n_read": n,
            "evidence": f"shapes and dtypes of the first {n} train samples",
        }
        train = self._parts["train"]
        if isinstance(train, UserLoaderDataset):
            facts["loader_batch_size"] = len(first)
            batches = known_batches(train.user_loader, "train")
            facts.update({"has_length": False} if batches is None else {"loader_batches": batches})
            facts["estimated"] = [
                part
                for part, each in self._parts.items()
                if isinstance(each, UserLoaderDataset) and not count_samples(each.user_loader)
            ]
        if len(first.targets) == 1:
            target = first.target
            facts["target_dtype"] = dtype_name(target.dtype)
            facts["target_shape"] = list(target.shape[1:])
            facts["target_binary"] = all(
                bool(((b.target == 0) | (b.target == 1)).all()) for b in self._first
            )
            if self._task == "auto" and self._class_names is None:
                from flambeau.data.class_labels import float_labels_with_ignored
                from flambeau.tensors.target_readings import doubts_about_first_targets

                alike = [b.target for b in self._first if b.target.shape[1:] == target.shape[1:]]
                values = torch.cat(alike).detach().cpu()
                facts |= readings_as_facts(doubts_about_first_targets(values))
                # Known of the first samples only, so for other targets they are left out.
                if n_labels := float_labels_with_ignored(values):
                    facts["target_min"] = float(IGNORED)
                    facts["target_distinct"] = n_labels
            if self._class_names is not None:
                from flambeau.data.class_labels import marks_ignored

                labels = torch.cat([batch.target for batch in self._first])
                if marks_ignored(labels.cpu(), len(self._class_names)):
                    n_ignored = int((labels == IGNORED).sum())
                    facts["target_ignored"] = {"label": IGNORED, "rows": n_ignored}
        if self._class_names is not None:
            facts["class_names"] = list(self._class_names)
        return facts

    def _check_labels(self, classes: Sequence[str]) -> None:
        """Check the labels of the first samples; later ones are checked when they are used."""
        ignored = self._ignored_label()
        for batch in self._first:
            target = batch.target
            wrong = (target < 0) | (target >= len(classes))
            if ignored is not None:
                wrong &= target != ignored
            if target.ndim == 1 and not target.is_floating_point() and bool(wrong.any()):
                raise InputError(
                    f"The first train samples contain the label {int(target[wrong][0])}, but there "
                    f"are {len(classes)} classes, 0 to {len(classes) - 1}. Give all classes "
                    "(class_names=[…] or n_classes=…), or fix the labels."
                )

    def _part(self, part: str) -> Source:
        self.split.part(part)  # raises an error for an unknown name
        if part not in self._parts:
            raise InputError(f"The data have no {part} part. Give {part}=… when creating the data.")
        return self._parts[part]


class _RawSamples(Sequence[Any]):
    """A sequence of samples, read on access: a tensor for one input, a dict for several."""

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
            return [self[row] for row in self._rows[index]]
        inputs = self._read(self._rows[index])
        return next(iter(inputs.values())) if len(inputs) == 1 else inputs


def given_parts(
    train: Any, valid: Any, test: Any, calibration: Any, class_names: Sequence[str] | None
) -> dict[str, Any]:
    """Return the given data sets or loaders by part, without those that are None.

    Raises:
        InputError: The data sets or ``class_names`` number classes differently.
    """
    from flambeau.data.class_numbering import check_parts

    others = {"valid": valid, "test": test, "calibration": calibration}
    found = {"train": train} | {part: each for part, each in others.items() if each is not None}
    check_parts(found, class_names)
    return found


def as_names(names: Sequence[str] | None) -> tuple[str, ...] | None:
    """Return the names as a tuple."""
    # A single string or a set is passed on, so that BatchLayout raises its error.
    if names is None or isinstance(names, str | AbstractSet):
        return cast(Any, names)
    return tuple(names)


def dataset_of(part: str, items: Any, layout: BatchLayout) -> Source:
    """Return a ``Dataset`` for a user's map-style data set, in memory if it is all numbers.

    Raises:
        ArgumentError: It is not map-style, or a column does not exist.
        InputError: It is empty.
    """
    if isinstance(items, Mapping):  # also a DatasetDict of Hugging Face
        names = ", ".join(map(repr, cast("Mapping[object, Any]", items)))
        raise ArgumentError(
            f"The {part} data set is a {type(cast(object, items)).__name__} with the keys {names}. "
            "Give one data set per part: "
            "TensorData.from_datasets(sets['train'], sets['validation'], sets['test'])."
        )
    if isinstance(items, float | int):
        raise ArgumentError(
            f"{part}={items} is a size, but data sets are not divided. Give a data set for each "
            "part: torch.utils.data.random_split(data_set, [0.8, 0.2])."
        )
    is_map_style = hasattr(items, "__len__") and hasattr(items, "__getitem__")
    if not is_map_style or isinstance(cast(object, items), IterableDataset):
        raise ArgumentError(
            f"The {part} data set is a {type(items).__name__} without __len__ and __getitem__, so "
            "it cannot be shuffled or resumed. Use a map-style data set, or pass a DataLoader "
            "(with __len__) to TensorData.from_loaders."
        )
    if not len(items):
        raise InputError(f"The {part} data set is empty. It needs at least one sample.")
    tensors = _tensors_of(items)
    if tensors is not None:
        inputs, targets = layout.inputs_and_targets(tensors)
        widened = {name: widened_target(name, value) for name, value in targets.items()}
        return MemoryDataset(inputs, widened)
    from flambeau.tensors.hugging_face import is_hugging_face, load_numeric_columns

    if is_hugging_face(items):
        columns = load_numeric_columns(items, layout)
        if columns is not None:
            return MemoryDataset(*columns)
    return MapDataset(items, layout)


def _tensors_of(items: Any) -> tuple[Tensor, ...] | None:
    """Return the tensors of a ``TensorDataset`` or of a ``Subset`` of one; None for others."""
    if type(items) is TensorDataset:
        return items.tensors
    if type(items) is not Subset or (tensors := _tensors_of(cast(Any, items).dataset)) is None:
        return None
    rows = torch.as_tensor(list(cast("Subset[Any]", items).indices))
    return tuple(each[rows] for each in tensors)


@contextmanager
def _named(part: str) -> Generator[None]:
    """Add the name of the part to an error about its first samples."""
    try:
        yield
    except InputError as error:
        text = str(error)
        if f" {part} " in text:
            raise
        raise InputError(f"The first samples of {part} are invalid: {text}") from error


def _check_like_train(part: str, first: Batch, train: Batch) -> None:
    from flambeau.tensors.first_batches import check_like_train

    check_like_train(part, first, train)


def _first_samples(train: MapDataset, most: int = _PEEK_BATCHES * _PEEK_SAMPLES) -> list[Batch]:
    n = min(len(train), most)
    reader = MapDatasetReader(train, seed=0)
    with TemporarySeed().at(0):
        return [
            reader.batch(range(start, min(start + _PEEK_SAMPLES, n)), epoch=0)
            for start in range(0, n, _PEEK_SAMPLES)
        ]


def _consecutive_split(sizes: Mapping[str, int], notes: tuple[str, ...] = ()) -> Split:
    """Return a split whose parts have consecutive row numbers."""
    return replace(Split.from_parts(consecutive_rows(sizes)), notes=notes)
