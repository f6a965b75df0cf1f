"""Checks of loaders and data sets that the user brought: order, what is left out, augmentation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler, Subset

from flambeau import random as keyed
from flambeau.data.user_dataset import MapDataset
from flambeau.data.user_loader import RANDOM_SAMPLERS, UserLoaderDataset, sampler_of
from flambeau.doctor.finding import Finding
from flambeau.doctor.readings import distinct, whole_numbers
from flambeau.doctor.subject import Subject
from flambeau.doctor.words import listed
from flambeau.global_rng import TemporarySeed
from flambeau.task.classification import Classification

_LOOKED_AT = 24  # samples of a loader that is read in order, spread over all of it
_MOST_OF_LIST = 20_000
_BY_CHANCE = 1e-6  # how rarely labels that were drawn would lie in such an order
_DRAWN_TWICE = 2


def sorted_labels(subject: Subject) -> Finding | None:
    """Train samples that come class by class, epoch after epoch."""
    labels = subject.once(_labels_in_order)
    if labels is None or not _grouped(labels):
        return None
    runs = int((labels.diff() != 0).sum()) + 1
    return Finding(
        "sorted-labels",
        f"The train loader gives its samples class by class, in the same order every epoch: "
        f"{len(labels)} samples that are spread over it have {runs} classes one after the other. "
        "Each step then unlearns what the steps before have learned.",
        {"samples": len(labels), "classes": runs},
        "Build the loader with shuffle=True, or hand over the data set: TensorData.from_datasets.",
        severity="error",
    )


def train_not_shuffled(subject: Subject) -> Finding | None:
    """A train loader that gives the samples in one order."""
    if not _reads_in_order(subject) or subject.once(sorted_labels) is not None:
        return None
    return Finding(
        "train-not-shuffled",
        "The train loader gives the samples in the same order every epoch, which usually trains "
        "worse.",
        {"sampler": "SequentialSampler"},
        "Build it with shuffle=True.",
    )


def valid_shuffled(subject: Subject) -> list[Finding]:
    """Valid and test loaders that draw their samples."""
    found: list[Finding] = []
    for part in ("valid", "test"):
        foreign = subject.dataset(part)
        sampler = sampler_of(foreign.foreign) if isinstance(foreign, UserLoaderDataset) else None
        if isinstance(sampler, RANDOM_SAMPLERS):
            found.append(
                Finding(
                    f"{part}-shuffled",
                    f"The {part} loader draws its samples at random: predictions cannot be matched "
                    "with samples, and drawing with replacement changes the scores.",
                    {"sampler": type(sampler).__name__},
                    "Build it with shuffle=False and without a sampler that draws.",
                )
            )
    return found


def valid_drops_samples(subject: Subject) -> list[Finding]:
    """Valid and test loaders that leave out what does not fill a last batch."""
    found: list[Finding] = []
    for part in ("valid", "test"):
        foreign = subject.dataset(part)
        loader = _torch_loader(foreign)
        if loader is None or not loader.drop_last or not loader.batch_size:
            continue
        if isinstance(loader.dataset, IterableDataset):
            continue
        n = len(loader.sampler)
        if lost := n % loader.batch_size:
            found.append(
                Finding(
                    "valid-drops-samples",
                    f"The {part} loader leaves out {lost:,} of {n:,} samples (drop_last=True), "
                    "which no score counts.",
                    {"left out": lost, "samples": n, "batch size": loader.batch_size},
                    "Build it with drop_last=False; only train may leave samples out.",
                )
            )
    return found


def same_samples(subject: Subject) -> list[Finding]:
    """Train and valid that are the same data set, or Subsets of one that overlap."""
    train = _items(subject.dataset("train"))
    found: list[Finding] = []
    for part in ("valid", "test"):
        other = _items(subject.dataset(part))
        if train is None or other is None:
            continue
        (items, rows), (theirs, others) = _base(train), _base(other)
        if items is not theirs:
            continue
        shared = len(others & rows)
        if shared:
            found.append(
                Finding(
                    "duplicates-across-parts",
                    f"{shared:,} of {len(others):,} {part} samples are train samples too "
                    f"({listed((str(row) for row in sorted(others & rows)), most=3)}): the scores "
                    "say how well train was learned by heart.",
                    {"samples": shared, "of": len(others)},
                    "Cut the data set into parts that do not overlap: "
                    "torch.utils.data.random_split.",
                    severity="error",
                )
            )
    return found


def augmented_valid(subject: Subject) -> Finding | None:
    """Valid samples that come out differently each time they are read."""
    items = _items(subject.dataset("valid"))
    if items is None or not len(items):
        return None
    layout = cast(Any, subject.dataset("valid")).layout
    changed: list[int] = []
    for place in range(min(_DRAWN_TWICE, len(items))):
        readings: list[Mapping[str, Any]] = []
        for turn in range(2):
            with TemporarySeed().at(keyed.key(subject.seed, "doctor/valid", turn)):
                readings.append(layout.parts(items[place])[0])
        if _differ(*readings):
            changed.append(place)
    if not changed:
        return None
    return Finding(
        "augmented-valid",
        f"Reading valid sample {changed[0]} twice gives two different inputs: it is augmented, so "
        "the scores are of other samples every time, and lower than they should be.",
        {"samples that changed": len(changed), "looked at": min(_DRAWN_TWICE, len(items))},
        "Give valid a data set with the transforms of prediction only.",
    )


# ---------------------------------------------------------------- order


def _reads_in_order(subject: Subject) -> bool:
    foreign = subject.dataset("train")
    return (
        isinstance(foreign, UserLoaderDataset)
        and type(sampler_of(foreign.foreign)) is SequentialSampler
    )


def _labels_in_order(subject: Subject) -> Tensor | None:
    """Class numbers of train samples in the order in which every epoch gives them, if it has one.

    Of a loader over a data set 24 that are spread over all of it, of a list of batches all.
    """
    foreign = subject.dataset("train")
    if not isinstance(foreign, UserLoaderDataset) or not isinstance(subject.task, Classification):
        return None
    if isinstance(foreign.foreign, list | tuple):
        batches = cast("Sequence[object]", foreign.foreign)
        return _joined([foreign.layout.parts(batch)[1] for batch in batches[:_MOST_OF_LIST]])
    items = _items(foreign)
    if items is None or not _reads_in_order(subject) or len(items) < _LOOKED_AT:
        return None
    places = whole_numbers(torch.linspace(0, len(items) - 1, _LOOKED_AT).long())
    with TemporarySeed().at(keyed.key(subject.seed, "doctor/order")):
        return _joined([foreign.layout.parts(items[place])[1] for place in places])


def _joined(targets: Sequence[Mapping[str, Any]]) -> Tensor | None:
    """The class numbers one after another; None where there is not one whole number a sample."""
    numbers: list[Tensor] = []
    for each in targets:
        if len(each) != 1:
            return None
        value = torch.as_tensor(next(iter(each.values())))
        if value.is_floating_point() or value.is_complex() or value.ndim > 1:
            return None
        numbers.append(value.reshape(-1).long())
    return torch.cat(numbers)[:_MOST_OF_LIST] if numbers else None


def _grouped(labels: Tensor) -> bool:
    """Whether equal labels lie together, which drawn ones would not do by chance."""
    counts = whole_numbers(distinct(labels)[1])
    if len(counts) < 2 or int((labels.diff() != 0).sum()) != len(counts) - 1:
        return False
    # Of all orders these many have each class in one piece.
    log = math.lgamma(len(counts) + 1) - math.lgamma(len(labels) + 1)
    return log + sum(math.lgamma(count + 1) for count in counts) < math.log(_BY_CHANCE)


# ---------------------------------------------------------------- samples


def _items(dataset: object) -> Any:
    """The user's map-style data set behind a part, or None where there is none."""
    if isinstance(dataset, MapDataset):
        return dataset.items
    loader = _torch_loader(dataset)
    if loader is None:
        return None
    items: Any = loader.dataset
    readable = hasattr(items, "__len__") and hasattr(items, "__getitem__")
    return items if readable and not isinstance(items, IterableDataset) else None


def _torch_loader(dataset: object) -> Any:
    """The user's loader behind a part where it is torch's; untyped, because torch's types are."""
    loader = cast(Any, dataset.foreign) if isinstance(dataset, UserLoaderDataset) else None
    return cast(Any, loader) if isinstance(loader, DataLoader) else None


def _base(items: Any) -> tuple[Any, set[int]]:
    """The data set that Subsets were cut from, and which of its samples are meant."""
    places: Sequence[int] = range(len(items))
    while isinstance(items, Subset):
        subset = cast(Any, items)
        places = [int(subset.indices[place]) for place in places]
        items = subset.dataset
    return items, set(places)


def _differ(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    for name, value in first.items():
        a, b = (np.asarray(each) for each in (value, second.get(name)))
        if object in (a.dtype, b.dtype):
            continue
        same_kind = a.shape == b.shape and a.dtype == b.dtype
        if not same_kind or not np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"):
            return True
    return False
