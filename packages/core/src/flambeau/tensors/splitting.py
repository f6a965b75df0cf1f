"""Splitting of arrays into train, validation and test parts, at random or as the user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.split import PARTS, Split
from flambeau.errors import ArgumentError, InputError, SplitError
from flambeau.tensors.base_data import distinct_values
from flambeau.tensors.columns import (
    Array,
    Arrays,
    as_columns,
    as_sample_weights,
    as_targets,
    as_tensors,
    encode_string_labels,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pair: TypeAlias = tuple[Arrays, Arrays]


def split_arrays(
    inputs: Arrays,
    targets: Arrays | None,
    *,
    valid: float | Pair,
    test: float | Pair,
    split: Split | None,
    seed: int,
    stratify: bool | str,
    task: str,
    class_names: Sequence[str] | None,
    sample_weight: Array | None = None,
) -> tuple[dict[str, MemoryDataset], Split, Sequence[str] | None]:
    """Return the parts, their split, and the class names; see ``TensorData.from_tensors``."""
    if inputs is None:  # pyright: ignore[reportUnnecessaryComparison] users err
        raise ArgumentError("inputs is None. Give a tensor, an array, or a dict of them.")
    pairs = {"train": (inputs, targets)} | _explicit_pairs(valid, test, split)
    columns = {part: as_columns(pair[0], "input") for part, pair in pairs.items()}
    labels = {part: as_columns(pair[1], "target") for part, pair in pairs.items()}
    labels, names = encode_string_labels(labels, class_names)
    if names is not class_names and task == "regression":
        raise InputError(
            "The targets are strings, but task='regression' needs numbers. Give numbers, or omit "
            "task."
        )
    weights = {} if sample_weight is None else {"train": as_sample_weights(sample_weight)}
    parts = {
        part: MemoryDataset(
            as_tensors(columns[part]),
            as_targets(labels[part]),
            sample_weight=weights.get(part),
        )
        for part in pairs
    }
    if len(parts) > 1:
        return (*assign_sample_numbers(parts), names)
    whole = parts["train"]
    if split is None:
        classes = _classes_to_stratify(whole, task, stratify)
        sizes = cast("float", valid), cast("float", test)
        split = Split.random(len(whole), *sizes, seed, classes)
    elif not isinstance(split, Split):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        raise ArgumentError(
            f"split is a {type(split).__name__}, not a Split. Row numbers become one with "
            "Split.from_indices(train, valid)."
        )
    split.check_length(len(whole))
    parts = {part: take_rows(whole, split.part(part)) for part in PARTS if len(split.part(part))}
    return parts, split, names


def _explicit_pairs(
    valid: float | Pair, test: float | Pair, split: Split | None
) -> dict[str, tuple[Arrays, Arrays | None]]:
    """Return the validation and test parts given as arrays; empty for a random split."""
    pairs = {
        part: value
        for part, value in (("valid", valid), ("test", test))
        if isinstance(value, tuple)
    }
    if not pairs:
        return {}
    if split is not None or "valid" not in pairs or not (test == 0 or "test" in pairs):
        raise SplitError(
            "Arrays for valid or test cannot be combined with a random split or with split=…. "
            "Give valid=(inputs, targets), omit split, and give test in the same form or omit it."
        )
    for part, pair in pairs.items():
        if len(pair) != 2:
            raise ArgumentError(
                f"{part} is a tuple of {len(pair)}. Give two elements: {part}=(inputs, targets)."
            )
    return dict(pairs)


def _classes_to_stratify(
    whole: MemoryDataset, task: str, stratify: bool | str
) -> NDArray[Any] | None:
    if stratify is False or (stratify == "auto" and len(whole.targets) != 1):
        return None
    if stratify not in (True, "auto"):
        raise ArgumentError(f"stratify is {stratify!r}, but must be True, False or 'auto'.")
    if len(whole.targets) != 1:
        raise InputError(
            f"stratify=True needs exactly one target, but there are {len(whole.targets)}. Use "
            "stratify=False."
        )
    [target] = whole.targets.values()
    if stratify is True and target.ndim != 1:
        raise InputError(
            f"stratify=True needs one class per row, but the targets have shape "
            f"{tuple(target.shape)}. Use stratify=False."
        )
    if stratify == "auto":
        is_label = target.ndim == 1 and not target.is_floating_point()
        # Fewer than 5 rows per value: probably amounts or identifiers, not classes.
        if not is_label or task == "regression" or len(distinct_values(target)) > len(target) / 5:
            return None
    return target.numpy()


def take_rows(whole: MemoryDataset, rows: NDArray[np.int64]) -> MemoryDataset:
    """Return the rows at these positions; the positions become their sample numbers."""
    ids = torch.tensor(rows)
    weights = whole.sample_weight
    return MemoryDataset(
        {name: value.index_select(0, ids) for name, value in whole.inputs.items()},
        {name: value.index_select(0, ids) for name, value in whole.targets.items()},
        ids,
        None if weights is None else weights.index_select(0, ids),
    )


def assign_sample_numbers(
    parts: Mapping[str, MemoryDataset],
) -> tuple[dict[str, MemoryDataset], Split]:
    """Return the parts with consecutive sample numbers over all parts, and their split."""
    numbered: dict[str, MemoryDataset] = {}
    start = 0
    for part, dataset in parts.items():
        ids = torch.arange(start, start + len(dataset))
        numbered[part] = MemoryDataset(dataset.inputs, dataset.targets, ids, dataset.sample_weight)
        start += len(dataset)
    rows = {part: cast(Tensor, dataset.ids).numpy() for part, dataset in numbered.items()}
    return numbered, Split.from_indices(rows["train"], rows["valid"], rows.get("test", ()))
