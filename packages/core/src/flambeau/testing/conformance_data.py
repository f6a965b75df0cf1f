"""Conformance checks of facts, preprocessing and batches."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.data import Data
from flambeau.data.loader import LoaderOptions, is_stream
from flambeau.data.split import HELD_OUT, PARTS
from flambeau.errors import FlambeauError
from flambeau.testing.conformance_report import conformance_error
from flambeau.testing.domain_under_test import DomainUnderTest, indices_of, named_tensors
from flambeau.wording import name_some

SIZE_FACTS = frozenset({*(f"n_{part}" for part in HELD_OUT), "split", "memory_bytes"})
"""Facts that may depend on the number of held-out rows; others use train rows only."""


def check_facts_are_deterministic(tested: DomainUnderTest) -> None:
    """Check that equal seeds give equal samples, split and facts, and that facts are JSON."""
    first, second = tested.data, tested.make_data()
    _same_json(
        "demo(n, seed)",
        "facts",
        (first.facts(), second.facts()),
        "use flambeau.random with the seed; avoid clocks and the order of sets and files",
    )
    for part in PARTS:
        if first.split.part(part).tolist() != second.split.part(part).tolist():
            raise conformance_error(
                f"Two data objects from the same seed have different {part} rows.",
                "runs would not be reproducible",
                "use Split.random(n, ..., seed=seed)",
            )
    batches = [_first_batch(tested, data) for data in (first, second)]
    for name, value in named_tensors(batches[0]).items():
        if not torch.equal(value, named_tensors(batches[1])[name]):
            raise conformance_error(
                f"Two data objects from the same seed give different first batches ({name}).",
                "runs would not be reproducible",
                "let the samples depend only on the seed",
            )


def check_preprocessor_is_fitted_on_train_only(tested: DomainUnderTest) -> None:
    """Check that facts, preprocessor and arguments do not depend on held-out rows."""
    data, fix = tested.data, "use only the rows of split.train"
    split = data.split
    rows = {part: split.part(part).tolist() for part in PARTS}
    rows["train"] = rows["train"][::2]  # so that the other parts have values that train lacks
    try:
        with_valid = data.subset(rows)
        without_valid = data.subset({**rows, **{part: rows[part][:1] for part in HELD_OUT}})
    except FlambeauError as error:
        raise conformance_error(
            f"{type(data).__name__}.subset(rows) fails: {error}",
            "the check cannot compare data with and without validation rows",
            "define subset(rows), which returns the data with only these rows in each part",
        ) from error
    facts = [
        {name: value for name, value in each.facts().items() if name not in SIZE_FACTS}
        for each in (with_valid, without_valid)
    ]
    what = "data with and without most validation, test and calibration rows"
    _same_json(what, "facts", (facts[0], facts[1]), fix)
    values = tested.values_of(with_valid)
    fitted = (with_valid.preprocessor(values), without_valid.preprocessor(values))
    for name in ("model_arguments", "task_arguments"):
        found = (
            getattr(with_valid, name)(fitted[0], values),
            getattr(without_valid, name)(fitted[1], values),
        )
        _same_json(what, name, found, fix)
    _same_json(what, "preprocessor arguments", (fitted[0].arguments(), fitted[1].arguments()), fix)
    before, after = fitted[0].tensors(), fitted[1].tensors()
    for name in before.keys() | after.keys():
        if name not in before or name not in after or not _identical(before[name], after[name]):
            raise conformance_error(
                f"The preprocessor's tensor {name!r} changes when validation rows are removed.",
                "valid and test scores are too high if the preprocessor is fitted on these rows",
                fix,
            )


def check_batches_are_valid(tested: DomainUnderTest) -> None:
    """Check the batches of all parts: tensors, indices, weight, and encoding of raw inputs."""
    kinds: dict[str, tuple[torch.dtype, int]] = {}
    for part in _parts(tested.data):
        loader = tested.loader(part)
        batches = list(loader.batches(0))
        for batch in batches:
            _check_batch(batch, part)
            found = {name: (v.dtype, v.ndim) for name, v in named_tensors(batch).items()}
            kinds = kinds or found
            if found != kinds:
                raise conformance_error(
                    f"A {part} batch has {found}, but the first train batch has {kinds}.",
                    "a model needs the same names, dtypes and numbers of axes in every batch",
                    "use the same code to build all batches",
                )
        if is_stream(loader):
            _check_stream(tested, part, batches)
            continue
        seen = sorted(indices_of(batches))
        expected = sorted(tested.data.split.part(part).tolist())
        if seen != expected:
            raise conformance_error(
                f"The {part} batches contain the samples {name_some(seen)}, but the split has "
                f"{name_some(expected)}.",
                "missing or repeated samples give wrong scores, and random numbers are keyed by "
                "the sample index",
                "set Batch.indices to the values of split.part(part), each once",
            )
    _check_encoding(tested, kinds)


def check_batches_move_to_a_device(tested: DomainUnderTest) -> None:
    """Check that ``batch.to(device)`` moves the tensors, and that indices and extras follow."""
    batch = _first_batch(tested, tested.data)
    moved = batch.to(torch.device("meta"))  # available on every machine
    stayed = [name for name, value in named_tensors(moved).items() if not value.is_meta]
    lost = named_tensors(batch).keys() - named_tensors(moved).keys()
    if stayed or lost or moved.indices is None or moved.indices.is_meta:
        raise conformance_error(
            "After batch.to(device), these are missing or on a wrong device: "
            f"{', '.join([*stayed, *lost]) or 'indices'}.",
            "training on a GPU would fail or wait for the CPU",
            "use Batch itself, or override `map` in a subclass",
        )
    if (moved.weight, moved.epoch, moved.lr_scale) != (batch.weight, batch.epoch, batch.lr_scale):
        raise conformance_error(
            "batch.to(device) changes weight, epoch or lr_scale.",
            "losses would have wrong weights on a GPU",
            "use Batch itself, or dataclasses.replace in a subclass",
        )
    if moved.extras != batch.extras:
        raise conformance_error(
            "batch.to(device) changes the extras.",
            "what a sample keeps on the CPU would be lost on a GPU",
            "use Batch itself, or dataclasses.replace in a subclass",
        )
    few = batch.first(1)
    if few.extras != {name: values[:1] for name, values in batch.extras.items()}:
        raise conformance_error(
            "batch.first(1) does not keep the extras of the first sample.",
            "extras would belong to other samples",
            "use Batch itself, or override `rows` in a subclass",
        )


# ---------------------------------------------------------------- helpers


def _check_batch(batch: Batch, part: str) -> None:
    n = len(batch)
    why = "the training loop, metrics and random numbers depend on it"
    for name, value in named_tensors(batch).items():
        if len(value) != n:
            raise conformance_error(
                f"A {part} batch of {n} samples has {len(value)} rows of {name}.",
                why,
                "use the first axis of every tensor for the samples",
            )
    indices: Tensor | None = batch.indices
    if (
        indices is None
        or indices.dtype != torch.int64
        or indices.shape != (n,)
        or not _on_cpu(indices)
    ):
        raise conformance_error(
            f"Batch.indices of a {part} batch is {indices!r:.80}.",
            why,
            f"set it to the int64 sample indices ({n},) on the CPU",
        )
    weight: Any = batch.weight
    if weight is not None and not (isinstance(weight, int | float) and 0 < weight < math.inf):
        raise conformance_error(
            f"Batch.weight of a {part} batch is {weight!r:.80}.",
            "the training loop reads it on the CPU, before it moves the batch",
            "set it to a number above 0, or to None if only the loss can compute it",
        )
    if not batch.targets:
        raise conformance_error(
            f"A {part} batch has no targets.", "the loss needs targets", "set Batch.targets"
        )


def _check_stream(tested: DomainUnderTest, part: str, batches: Sequence[Batch]) -> None:
    """Check that every target of a stream is in one batch, whatever the number of rows."""
    weight = sum(batch.weight or 0.0 for batch in batches)
    dataset = tested.data.dataset(part, tested.preprocessor, tested.values)
    other = dataset.loader(LoaderOptions(max(1, tested.batch_size // 2)))
    expected = sum(batch.weight or 0.0 for batch in other.batches(0))
    if weight != expected:
        raise conformance_error(
            f"The {part} batches of an epoch have the weight {weight:,g} in "
            f"{tested.batch_size} rows and {expected:,g} in half as many.",
            "tokens that are left out or repeated at the ends of rows give wrong scores",
            "make every token the target of one position, and set Batch.weight to their number",
        )


def _check_encoding(tested: DomainUnderTest, kinds: Mapping[str, tuple[torch.dtype, int]]) -> None:
    raw = tested.data.raw("valid")
    n = len(tested.data.split.valid)
    if len(raw) != n:
        raise conformance_error(
            f'raw("valid") has {len(raw)} inputs, but the split has {n} validation rows.',
            "predictions could not be compared with targets",
            "return one raw input per row, in the order of the split",
        )
    encoded = named_tensors(tested.preprocessor.encode([raw[i] for i in range(min(n, 2))]))
    inputs = {name: kind for name, kind in kinds.items() if not name.startswith("target")}
    found = {name: (value.dtype, value.ndim) for name, value in encoded.items()}
    if found != inputs:
        raise conformance_error(
            f"encode(raw inputs) returns {found}, but the loader's batches have {inputs}.",
            "the model would get other inputs in prediction than in training",
            "use the same code in encode and in the data set",
        )


def _first_batch(tested: DomainUnderTest, data: Data) -> Batch:
    dataset = data.dataset("valid", data.preprocessor(tested.values), tested.values)
    return next(iter(dataset.loader(LoaderOptions(tested.batch_size)).batches(0)))


def _same_json(
    what: str, name: str, pair: tuple[Mapping[str, Any], Mapping[str, Any]], fix: str
) -> None:
    first, second = pair
    try:
        texts = [json.dumps(value, sort_keys=True, allow_nan=False) for value in (first, second)]
    except (TypeError, ValueError) as error:
        raise conformance_error(
            f"{name} has a value that JSON cannot represent: {error}.",
            "plans and exports are saved as JSON",
            "use dict, list, str, finite numbers, bool and None",
        ) from error
    if texts[0] != texts[1]:
        differing = [key for key in first if first[key] != second.get(key)] or sorted(
            second.keys() - first.keys()
        )
        raise conformance_error(
            f"{what}: {name} differ in {', '.join(differing)} "
            f"({first.get(differing[0])!r:.60} and {second.get(differing[0])!r:.60}).",
            "training would depend on more than the train rows and the seed",
            fix,
        )


def _parts(data: Data) -> list[str]:
    return [part for part in PARTS if len(data.split.part(part))]


def _identical(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"
