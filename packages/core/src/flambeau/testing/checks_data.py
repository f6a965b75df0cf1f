"""Checks of facts, preprocessing and batches."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import LoaderOptions
from flambeau.errors import FlambeauError
from flambeau.testing.report import brief, broken
from flambeau.testing.subject import Subject, indices_of, named_tensors

SIZE_FACTS = frozenset({"n_valid", "n_test", "split", "memory_bytes"})
"""Facts that may tell how many rows valid and test have; all others are of train rows only."""


def check_facts_repeat(subject: Subject) -> None:
    """The same seed makes the same samples, split and facts, and facts are plain JSON."""
    first, second = subject.data, subject.make_data()
    _same_json(
        "demo(n, seed)",
        "facts",
        (first.facts(), second.facts()),
        "draw with flambeau.random, keyed by the seed; no clocks, no set order, no file order",
    )
    for part in ("train", "valid", "test"):
        if first.split.part(part).tolist() != second.split.part(part).tolist():
            raise broken(
                f"Two data objects from the same seed have different {part} rows.",
                "runs could not be compared or repeated",
                "draw the split with Split.random(n, ..., seed=seed)",
            )
    batches = [_first_batch(subject, data) for data in (first, second)]
    for name, value in named_tensors(batches[0]).items():
        if not torch.equal(value, named_tensors(batches[1])[name]):
            raise broken(
                f"Two data objects from the same seed give different first batches ({name}).",
                "runs could not be compared or repeated",
                "make the samples from the seed alone",
            )


def check_preprocessor_sees_train_only(subject: Subject) -> None:
    """Facts, fitted preprocessor and arguments stay as they are when valid rows go away."""
    data, fix = subject.data, "measure on split.train only"
    split = data.split
    rows = {part: split.part(part).tolist() for part in ("train", "valid", "test")}
    rows["train"] = rows["train"][::2]  # so that the other parts have what train has not
    try:
        poisoned = data.subset(rows)
        clean = data.subset({**rows, "valid": rows["valid"][:1], "test": rows["test"][:1]})
    except FlambeauError as error:
        raise broken(
            f"{type(data).__name__}.subset(rows) fails: {error}",
            "it cannot be seen whether the preprocessor was fitted on train only",
            "define subset(rows), which gives the same data with only these rows in each part",
        ) from error
    facts = [
        {name: value for name, value in each.facts().items() if name not in SIZE_FACTS}
        for each in (poisoned, clean)
    ]
    what = "data with and without most valid and test rows"
    _same_json(what, "facts", (facts[0], facts[1]), fix)
    values = subject.values_of(poisoned)
    for name in ("model_arguments", "task_arguments"):
        found = (getattr(poisoned, name)(values), getattr(clean, name)(values))
        _same_json(what, f"{name}(values)", found, fix)
    fitted = (poisoned.preprocessor(values), clean.preprocessor(values))
    _same_json(what, "preprocessor arguments", (fitted[0].arguments(), fitted[1].arguments()), fix)
    before, after = fitted[0].tensors(), fitted[1].tensors()
    for name in before.keys() | after.keys():
        if name not in before or name not in after or not _identical(before[name], after[name]):
            raise broken(
                f"The preprocessor's tensor {name!r} changes when valid rows are taken away.",
                "valid and test scores are too good when the preprocessor has seen these rows",
                fix,
            )


def check_batches_are_as_declared(subject: Subject) -> None:
    """Every part gives batches of one kind, each sample once, and raw items encode to the same."""
    kinds: dict[str, tuple[torch.dtype, int]] = {}
    for part in _parts(subject.data):
        batches = list(subject.loader(part).batches(0))
        for batch in batches:
            _check_batch(batch, part)
            found = {name: (v.dtype, v.ndim) for name, v in named_tensors(batch).items()}
            kinds = kinds or found
            if found != kinds:
                raise broken(
                    f"A {part} batch holds {found}, but the first train batch {kinds}.",
                    "a model takes the same names, dtypes and axes from every batch",
                    "build all batches in one place",
                )
        seen = sorted(indices_of(batches))
        expected = sorted(subject.data.split.part(part).tolist())
        if seen != expected:
            raise broken(
                f"The {part} batches hold the samples {brief(seen)}, but the split has "
                f"{brief(expected)}.",
                "a sample that is left out, doubled or misnumbered falsifies scores, and the "
                "number keys its random draws",
                "give Batch.indices as split.part(part) has them, each once",
            )
    _check_encoding(subject, kinds)


def check_batches_move(subject: Subject) -> None:
    """``batch.to(device)`` takes every tensor along and leaves the indices on the CPU."""
    batch = _first_batch(subject, subject.data)
    moved = batch.to(torch.device("meta"))  # a device that every machine has
    stayed = [name for name, value in named_tensors(moved).items() if not value.is_meta]
    lost = named_tensors(batch).keys() - named_tensors(moved).keys()
    if stayed or lost or moved.indices is None or moved.indices.is_meta:
        raise broken(
            f"After batch.to(device) {', '.join([*stayed, *lost]) or 'indices'} "
            "are where they should not be.",
            "training on a GPU would fail or wait for the CPU",
            "use Batch as it is, or override `map` in a subclass",
        )
    if (moved.weight, moved.epoch, moved.lr_scale) != (batch.weight, batch.epoch, batch.lr_scale):
        raise broken(
            "batch.to(device) changes weight, epoch or lr_scale.",
            "losses would be weighted wrongly on a GPU",
            "use Batch as it is, or dataclasses.replace in a subclass",
        )


# ---------------------------------------------------------------- inside


def _check_batch(batch: Batch, part: str) -> None:
    n = len(batch)
    why = "the loop, the metrics and the random draws count on it"
    for name, value in named_tensors(batch).items():
        if len(value) != n:
            raise broken(
                f"A {part} batch of {n} samples has {len(value)} rows of {name}.",
                why,
                "keep samples on the first axis of every tensor",
            )
    indices: Tensor | None = batch.indices
    if (
        indices is None
        or indices.dtype != torch.int64
        or indices.shape != (n,)
        or not _on_cpu(indices)
    ):
        raise broken(
            f"Batch.indices of a {part} batch is {indices!r:.80}.",
            why,
            f"give int64 sample numbers ({n},) on the CPU",
        )
    weight: Any = batch.weight
    if weight is not None and not (isinstance(weight, int | float) and 0 < weight < math.inf):
        raise broken(
            f"Batch.weight of a {part} batch is {weight!r:.80}.",
            "it is known on the host before the batch is on the device",
            "give a plain number above 0, or None where only the loss knows",
        )
    if not batch.targets:
        raise broken(
            f"A {part} batch has no targets.", "there is nothing to learn", "fill Batch.targets"
        )


def _check_encoding(subject: Subject, kinds: Mapping[str, tuple[torch.dtype, int]]) -> None:
    raw = subject.data.raw("valid")
    n = len(subject.data.split.valid)
    if len(raw) != n:
        raise broken(
            f'raw("valid") has {len(raw)} items, the split {n} valid rows.',
            "predictions could not be compared with targets",
            "give one raw item a row, in the order of the split",
        )
    encoded = named_tensors(subject.preprocessor.encode([raw[i] for i in range(min(n, 2))]))
    inputs = {name: kind for name, kind in kinds.items() if not name.startswith("target")}
    found = {name: (value.dtype, value.ndim) for name, value in encoded.items()}
    if found != inputs:
        raise broken(
            f"encode(raw items) gives {found}, but the loader's batches hold {inputs}.",
            "the model would see something else when predicting than when training",
            "let encode and the data set use the same code",
        )


def _first_batch(subject: Subject, data: Data) -> Batch:
    dataset = data.dataset("valid", data.preprocessor(subject.values), subject.values)
    return next(iter(dataset.loader(LoaderOptions(subject.batch_size)).batches(0)))


def _same_json(
    what: str, name: str, pair: tuple[Mapping[str, Any], Mapping[str, Any]], fix: str
) -> None:
    first, second = pair
    try:
        texts = [json.dumps(value, sort_keys=True, allow_nan=False) for value in (first, second)]
    except (TypeError, ValueError) as error:
        raise broken(
            f"{name} holds what JSON does not have: {error}.",
            "plans and exports are saved as JSON",
            "use dict, list, str, finite numbers, bool and None",
        ) from error
    if texts[0] != texts[1]:
        differing = [key for key in first if first[key] != second.get(key)] or sorted(
            second.keys() - first.keys()
        )
        raise broken(
            f"{what}: {name} differ in {', '.join(differing)} "
            f"({first.get(differing[0])!r:.60} and {second.get(differing[0])!r:.60}).",
            "what was learnt would depend on something else than the train rows and the seed",
            fix,
        )


def _parts(data: Data) -> list[str]:
    return ["train", "valid", *(["test"] if len(data.split.test) else [])]


def _identical(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"
