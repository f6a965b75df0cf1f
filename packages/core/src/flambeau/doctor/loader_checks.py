"""Checks of user-defined loaders and data sets: order, dropped samples, augmentation."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler, Subset

from flambeau import random as keyed
from flambeau.data.split import HELD_OUT
from flambeau.data.user_dataset import MapDataset, UserLoaderDataset
from flambeau.data.user_loader import RANDOM_SAMPLERS, sampler_of
from flambeau.doctor.finding import Finding
from flambeau.doctor.training_setup import TrainingSetup
from flambeau.doctor.typed_torch import int_list, unique_counts
from flambeau.global_rng import TemporarySeed
from flambeau.wording import name_some

_SAMPLES_READ = 24  # from a loader with a fixed order, evenly spaced
_MOST_LABELS = 20_000
_BY_CHANCE = 1e-6  # probability of such an order for shuffled labels
_READ_TWICE = 2  # samples that are read twice to detect augmentation


def sorted_labels(setup: TrainingSetup) -> Finding | None:
    """Find train samples that are sorted by class in every epoch."""
    labels = setup.cached(_labels_in_order)
    if labels is None or not _grouped(labels):
        return None
    runs = int((labels.diff() != 0).sum()) + 1
    return Finding(
        "sorted-labels",
        "The train loader returns the samples sorted by class, in the same order in every epoch: "
        f"{len(labels)} evenly spaced samples contain {runs} classes one after the other. "
        "Each step then undoes what the steps before have learned.",
        {"samples": len(labels), "classes": runs},
        "Create the loader with shuffle=True, or pass the data set: TensorData.from_datasets.",
        severity="error",
    )


def train_not_shuffled(setup: TrainingSetup) -> Finding | None:
    """Find a train loader that returns the samples in a fixed order."""
    if not _reads_in_order(setup) or setup.cached(sorted_labels) is not None:
        return None
    return Finding(
        "train-not-shuffled",
        "The train loader returns the samples in the same order in every epoch, which usually "
        "gives a worse model.",
        {"sampler": "SequentialSampler"},
        "Create the loader with shuffle=True.",
    )


def valid_shuffled(setup: TrainingSetup) -> list[Finding]:
    """Find validation and test loaders that shuffle or sample at random."""
    found: list[Finding] = []
    for part in ("valid", "test"):
        dataset = setup.dataset(part)
        sampler = (
            sampler_of(dataset.user_loader) if isinstance(dataset, UserLoaderDataset) else None
        )
        if isinstance(sampler, RANDOM_SAMPLERS):
            found.append(
                Finding(
                    f"{part}-shuffled",
                    f"The {part} loader returns its samples in random order, so predictions cannot "
                    "be matched with samples. Sampling with replacement also changes the scores.",
                    {"sampler": type(sampler).__name__},
                    "Create the loader with shuffle=False and without a random sampler.",
                )
            )
    return found


def valid_drops_samples(setup: TrainingSetup) -> list[Finding]:
    """Find validation and test loaders that drop an incomplete last batch."""
    found: list[Finding] = []
    for part in HELD_OUT:
        loader = _torch_loader(setup.dataset(part))
        if loader is None or not loader.drop_last or not loader.batch_size:
            continue
        if isinstance(loader.dataset, IterableDataset):
            continue
        n = len(loader.sampler)
        if dropped := n % loader.batch_size:
            found.append(
                Finding(
                    "valid-drops-samples",
                    f"The {part} loader drops {dropped:,} of {n:,} samples (drop_last=True), so "
                    "the scores do not include them.",
                    {"dropped": dropped, "samples": n, "batch size": loader.batch_size},
                    "Create the loader with drop_last=False; only train may drop samples.",
                )
            )
    return found


def same_samples(setup: TrainingSetup) -> list[Finding]:
    """Find parts that are the same data set, or overlapping Subsets of one data set."""
    train = _map_dataset(setup.dataset("train"))
    found: list[Finding] = []
    for part in HELD_OUT:
        other = _map_dataset(setup.dataset(part))
        if train is None or other is None:
            continue
        (train_base, rows), (other_base, others) = _base(train), _base(other)
        if train_base is not other_base:
            continue
        shared = sorted(others & rows)
        if shared:
            found.append(
                Finding(
                    "duplicates-across-parts",
                    f"{len(shared):,} of {len(others):,} {part} samples are also train samples "
                    f"({name_some(shared, most=3)}), so the scores measure how well train was "
                    "memorised.",
                    {"samples": len(shared), "of": len(others)},
                    "Split the data set into parts that do not overlap: "
                    "torch.utils.data.random_split.",
                    severity="error",
                )
            )
    return found


def augmented_valid(setup: TrainingSetup) -> Finding | None:
    """Find validation samples whose inputs differ each time they are read.

    Contrastive learning needs random views of a sample. Therefore data without targets, and data
    with several inputs of the same shape that all differ, are not reported.
    """
    samples = _map_dataset(setup.dataset("valid"))
    if samples is None or not len(samples):
        return None
    layout = cast(Any, setup.dataset("valid")).layout
    changed: list[int] = []
    for position in range(min(_READ_TWICE, len(samples))):
        readings: list[Mapping[str, Any]] = []
        for turn in range(2):
            with TemporarySeed().at(keyed.key(setup.seed, "doctor/valid", turn)):
                inputs, targets = layout.inputs_and_targets(samples[position])
            if not targets:
                return None
            readings.append(inputs)
        if _differ(*readings) and not _are_views(*readings):
            changed.append(position)
    if not changed:
        return None
    return Finding(
        "augmented-valid",
        f"Reading validation sample {changed[0]} twice gives two different inputs: it is "
        "augmented, so the scores change from epoch to epoch and are lower than without "
        "augmentation.",
        {"samples that changed": len(changed), "read twice": min(_READ_TWICE, len(samples))},
        "Use a data set without random transforms for valid.",
    )


def _are_views(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return whether there are several inputs of the same shape that all differ between reads."""
    if len(one) < 2 or len({np.shape(value) for value in one.values()}) > 1:
        return False
    return all(_differ({name: one[name]}, {name: other[name]}) for name in one)


# ---------------------------------------------------------------- order


def _reads_in_order(setup: TrainingSetup) -> bool:
    dataset = setup.dataset("train")
    return (
        isinstance(dataset, UserLoaderDataset)
        and type(sampler_of(dataset.user_loader)) is SequentialSampler
    )


def _labels_in_order(setup: TrainingSetup) -> Tensor | None:
    """Return class indices of train samples in the loader's order, if that order is fixed.

    From a list of batches all labels are returned; from a loader over a data set, those of 24
    evenly spaced samples.
    """
    dataset = setup.dataset("train")
    if not isinstance(dataset, UserLoaderDataset) or setup.task.kind != "classification":
        return None
    if isinstance(dataset.user_loader, list | tuple):
        batches = cast("Sequence[object]", dataset.user_loader)
        return _joined(
            [dataset.layout.inputs_and_targets(batch)[1] for batch in batches[:_MOST_LABELS]]
        )
    samples = _map_dataset(dataset)
    if samples is None or not _reads_in_order(setup) or len(samples) < _SAMPLES_READ:
        return None
    positions = int_list(torch.linspace(0, len(samples) - 1, _SAMPLES_READ).long())
    with TemporarySeed().at(keyed.key(setup.seed, "doctor/order")):
        return _joined([dataset.layout.inputs_and_targets(samples[each])[1] for each in positions])


def _joined(targets: Sequence[Mapping[str, Any]]) -> Tensor | None:
    """Return the concatenated class indices; None unless each sample has one integer label."""
    labels: list[Tensor] = []
    for each in targets:
        if len(each) != 1:
            return None
        value = torch.as_tensor(next(iter(each.values())))
        if value.is_floating_point() or value.is_complex() or value.ndim > 1:
            return None
        labels.append(value.reshape(-1).long())
    return torch.cat(labels)[:_MOST_LABELS] if labels else None


def _grouped(labels: Tensor) -> bool:
    """Return whether equal labels are adjacent, which is very unlikely for shuffled labels."""
    counts = int_list(unique_counts(labels)[1])
    if len(counts) < 2 or int((labels.diff() != 0).sum()) != len(counts) - 1:
        return False
    # The share of all orders in which each class is one contiguous block.
    log = math.lgamma(len(counts) + 1) - math.lgamma(len(labels) + 1)
    return log + sum(math.lgamma(count + 1) for count in counts) < math.log(_BY_CHANCE)


# ---------------------------------------------------------------- samples


def _map_dataset(dataset: object) -> Any:
    """Return the user's map-style data set behind a part, or None if there is none."""
    if isinstance(dataset, MapDataset):
        return dataset.items
    loader = _torch_loader(dataset)
    if loader is None:
        return None
    samples: Any = loader.dataset
    readable = hasattr(samples, "__len__") and hasattr(samples, "__getitem__")
    return samples if readable and not isinstance(samples, IterableDataset) else None


def _torch_loader(dataset: object) -> Any:
    """Return the user's torch DataLoader behind a part, or None. Untyped, as torch's types are."""
    loader = cast(Any, dataset.user_loader) if isinstance(dataset, UserLoaderDataset) else None
    return cast(Any, loader) if isinstance(loader, DataLoader) else None


def _base(samples: Any) -> tuple[Any, set[int]]:
    """Return the data set below any Subsets, and the indices that the Subsets select."""
    indices: Sequence[int] = range(len(samples))
    while isinstance(samples, Subset):
        subset = cast(Any, samples)
        indices = [int(subset.indices[index]) for index in indices]
        samples = subset.dataset
    return samples, set(indices)


def _differ(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    for name, value in first.items():
        a, b = (np.asarray(each) for each in (value, second.get(name)))
        if object in (a.dtype, b.dtype):
            continue
        same_kind = a.shape == b.shape and a.dtype == b.dtype
        if not same_kind or not np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"):
            return True
    return False
