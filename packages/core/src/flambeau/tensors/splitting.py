"""Split arrays into the parts of the data, at random or as the user specifies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch

from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.split import PARTS, Rows, Split
from flambeau.data.split_request import SplitRequest, consecutive_rows
from flambeau.errors import ArgumentError, InputError
from flambeau.tensors.base_data import NUMBER_TASKS, distinct_values
from flambeau.tensors.columns import (
    Array,
    Arrays,
    as_columns,
    as_sample_weights,
    as_targets,
    as_tensors,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

Pair: TypeAlias = tuple[Arrays, Arrays]


def split_arrays(
    inputs: Arrays,
    targets: Arrays | None,
    request: SplitRequest,
    *,
    task: str,
    class_names: Sequence[str] | None,
    sample_weight: Array | None = None,
    task_inputs: Mapping[str, Array | Sequence[Any]] | None = None,
) -> tuple[dict[str, MemoryDataset], Split, Sequence[str] | None]:
    """Return the parts, their split, and the class names; see ``TensorData.from_tensors``."""
    from flambeau.data.class_labels import encode_string_labels

    if inputs is None:  # pyright: ignore[reportUnnecessaryComparison] users err
        raise ArgumentError("inputs is None. Give a tensor, an array, or a dict of them.")
    pairs: dict[str, tuple[Arrays, Arrays | None]] = {"train": (inputs, targets)}
    pairs |= request.separate(tuple, pair="(inputs, targets)")
    columns = {part: as_columns(pair[0], "input") for part, pair in pairs.items()}
    labels = {part: as_columns(pair[1], "target") for part, pair in pairs.items()}
    if class_names is None:
        class_names = _own_order(targets, labels["train"])
    labels, names = encode_string_labels(labels, class_names)
    if names is not class_names and task in NUMBER_TASKS:
        raise InputError(
            f"The targets are strings, but task={task!r} needs numbers. Give numbers, or omit task."
        )
    if task_inputs and len(pairs) > 1:
        raise InputError(
            f"task_inputs are given for the rows of inputs, but {', '.join([*pairs][1:])} has rows "
            "of its own. Give all rows as inputs, and the size of each part (valid=0.2) or split=."
        )
    more = {"train": as_tensors(as_columns(task_inputs, "task_input"))}
    weights = {} if sample_weight is None else {"train": as_sample_weights(sample_weight)}
    parts = {
        part: MemoryDataset(
            as_tensors(columns[part]),
            as_targets(labels[part]),
            sample_weight=weights.get(part),
            task_inputs=more.get(part),
        )
        for part in pairs
    }
    rows = consecutive_rows({part: len(dataset) for part, dataset in parts.items()})
    given = rows if len(rows) > 1 else None
    classes, complete = None, set(parts)
    if given is None or request.to_draw(given):
        complete.remove("train")  # it is divided
    if request.to_draw(given):
        classes = classes_to_stratify(parts["train"], task, request.stratify)
    total = sum(map(len, rows.values()))
    split = request.resolve(total, given=given, classes=classes, class_names=_named(names, classes))
    found = {
        part: _number(parts[part], rows[part])
        if part in complete
        else take_rows(parts["train"], split.part(part))
        for part in PARTS
        if len(split.part(part))
    }
    return found, split, names


def _own_order(targets: Arrays | None, labels: Mapping[str, Array]) -> Sequence[str] | None:
    """Return the categories of the only target if it is text with an order; else None."""
    from flambeau.data.class_labels import is_strings
    from flambeau.data.ordered_names import ordered_categories

    if len(labels) != 1 or not is_strings(next(iter(labels.values()))):
        return None
    column = next(iter(targets.values())) if isinstance(targets, Mapping) else targets
    return ordered_categories(column)


def _named(names: Sequence[str] | None, classes: NDArray[Any] | None) -> Sequence[str] | None:
    """Return the class names if every class number has one; the plan refuses other numbers."""
    if names is None or classes is None or not len(classes):
        return None
    return names if classes.min() >= 0 and classes.max() < len(names) else None


def classes_to_stratify(
    whole: MemoryDataset, task: str, stratify: bool | str
) -> NDArray[Any] | None:
    """Return the class of each row, for a stratified split; None if it is not stratified.

    Raises:
        ArgumentError: ``stratify`` is neither a bool nor "auto".
        InputError: ``stratify`` is True, and the targets are not classes.
    """
    from flambeau.data.class_labels import is_one_hot

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
    if task != "multi_label" and is_one_hot(target):
        target = target.argmax(dim=1)
    if stratify is True and target.ndim != 1:
        raise InputError(
            f"stratify=True needs one class per row, but the targets have shape "
            f"{tuple(target.shape)}. Use stratify=False."
        )
    if stratify == "auto":
        is_label = target.ndim == 1 and not target.is_floating_point()
        # Fewer than 5 rows per value: probably amounts or identifiers, not classes.
        if not is_label or task in NUMBER_TASKS or len(distinct_values(target)) > len(target) / 5:
            return None
    return target.numpy()


def take_rows(whole: MemoryDataset, rows: NDArray[np.int64]) -> MemoryDataset:
    """Return the rows at these positions; the positions become their sample numbers."""
    return whole.rows(torch.tensor(rows))


def assign_sample_numbers(
    parts: Mapping[str, MemoryDataset],
) -> tuple[dict[str, MemoryDataset], Split]:
    """Return the parts with consecutive sample numbers over all parts, and their split."""
    rows = consecutive_rows({part: len(dataset) for part, dataset in parts.items()})
    numbered = {part: _number(dataset, rows[part]) for part, dataset in parts.items()}
    return numbered, Split.from_parts(rows)


def _number(dataset: MemoryDataset, rows: Rows) -> MemoryDataset:
    """Return the data set with ``rows`` as the numbers of its samples."""
    return dataset.with_columns(ids=torch.tensor(rows))
