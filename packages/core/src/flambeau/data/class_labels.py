"""Convert string labels to class numbers, and check labels in memory before training."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.data.facts import IGNORED
from flambeau.data.memory_loader import MemoryDataset
from flambeau.errors import FlambeauWarning, InputError, did_you_mean
from flambeau.wording import name_some

if TYPE_CHECKING:
    from numpy.typing import NDArray

Array: TypeAlias = "Tensor | NDArray[Any]"

_STRING_KINDS = "UST"
_SHOWN = 5
_FEW = 20  # distinct numbers that are labels even if each is rare
_ROWS_PER_CLASS = 10


def number_labels(
    labels: Iterable[Any], number_of: Mapping[Any, int]
) -> tuple[list[int], int | None]:
    """Return the class number of each label, and the first row whose label has none.

    The list of numbers ends before that row. The row is None if all labels have a number.

    Example:
        >>> number_labels(["b", "a", "c"], {"a": 0, "b": 1})
        ([1, 0], 2)
    """
    numbers: list[int] = []
    for row, label in enumerate(labels):
        number = number_of.get(label)
        if number is None:
            return numbers, row
        numbers.append(number)
    return numbers, None


def encode_string_labels(
    parts: Mapping[str, Mapping[str, Array]], class_names: Sequence[str] | None
) -> tuple[dict[str, dict[str, Array]], Sequence[str] | None]:
    """Replace a target column of strings by class numbers in every part.

    Args:
        parts: Targets by part, including train.
        class_names: The string of each class number; None uses the sorted strings of train.

    Returns:
        The parts with class numbers, and the class names. If the targets are not strings, both
        arguments are returned unchanged.

    Raises:
        InputError: A string is not in ``class_names`` or, without them, not in train. The message
            gives the row.
    """
    columns = {part: dict(targets) for part, targets in parts.items()}
    [name, *others] = list(columns["train"]) or [""]
    if others or not is_strings(columns["train"].get(name)):
        return columns, class_names
    given = class_names is not None
    if class_names is None:
        strings = np.unique(cast("NDArray[Any]", columns["train"][name]))
        class_names = [str(string) for string in strings]
    number_of = {string: number for number, string in enumerate(class_names)}
    for part, targets in columns.items():
        value = targets.get(name)
        if value is None:
            continue  # the comparison of the parts raises the error
        if not is_strings(value):
            raise InputError(
                f"The {part} targets have dtype {value.dtype}, but those of train are strings, so "
                "it is unknown which number stands for which class. Give the same strings to "
                "every part."
            )
        found = [str(string) for string in cast("NDArray[Any]", value)]
        numbers, wrong = number_labels(found, number_of)
        if wrong is not None:
            why = "which is not in class_names" if given else "which no train row has"
            raise InputError(
                f"The {part} targets contain {found[wrong]!r} in row {wrong}, {why}, so the model "
                f"cannot learn it. {did_you_mean(found[wrong], number_of)} Fix the label, remove "
                "the row, or add rows of this class to train."
            )
        targets[name] = np.array(numbers, dtype=np.int64)
    return columns, class_names


def is_strings(value: object) -> bool:
    """Return whether a value is an array ``(n,)`` of text."""
    if not isinstance(value, np.ndarray):
        return False
    array = cast("NDArray[Any]", value)
    return array.dtype.kind in _STRING_KINDS and array.ndim == 1


def float_labels_with_ignored(targets: Tensor) -> int:
    """Return the number of distinct values if floats are whole numbers from 0 on and -100; else 0.

    Args:
        targets: The targets, of any shape; those of other types are 0.
    """
    if not targets.is_floating_point():
        return 0
    distinct = np.unique(targets.double().numpy())
    labels = distinct[distinct != IGNORED]
    is_class = bool((np.isfinite(labels) & (labels >= 0) & (labels == np.floor(labels))).all())
    return len(distinct) if 0 < len(labels) < len(distinct) and is_class else 0


def marks_ignored(target: Tensor, n_classes: int | None) -> bool:
    """Return whether integer targets ``(n,)`` consist of class numbers and ``IGNORED`` (-100).

    Args:
        target: The targets.
        n_classes: Number of classes. If it is not known (None), other numbers than -100 are taken
            for class numbers if they have few gaps and are few or frequent.
    """
    if target.ndim != 1 or target.is_floating_point() or target.is_complex():
        return False
    labels = target[target != IGNORED]
    if len(labels) == len(target) or not len(labels) or int(labels.min()) < 0:
        return False
    if n_classes is not None:
        return int(labels.max()) < n_classes
    distinct = len(np.unique(labels.numpy()))
    is_dense = int(labels.max()) < 10 * distinct + 10
    return is_dense and (distinct <= _FEW or distinct * _ROWS_PER_CLASS <= len(labels))


def check_labels(
    part: str, dataset: MemoryDataset, classes: Sequence[str], ignored: int | None = None
) -> None:
    """Check that integer labels are class numbers.

    Args:
        part: Name of the part, for the message.
        dataset: The samples.
        classes: Class names.
        ignored: The label of samples that do not count, or None.

    Raises:
        InputError: A label is below 0 or too large; the message gives the first such rows.
    """
    n_classes = len(classes)
    for target in dataset.targets.values():
        if target.is_floating_point() or target.ndim != 1:
            continue
        is_wrong = (target < 0) | (target >= n_classes)
        if ignored is not None:
            is_wrong &= target != ignored
        wrong = is_wrong.nonzero().flatten()[:_SHOWN]
        if len(wrong):
            hint = (
                f" If {IGNORED} marks samples that do not count, pass "
                f"Learner(data, task=Classification(names, ignore_index={IGNORED}))."
                if bool((target[wrong] == IGNORED).all())
                else ""
            )
            found = ", ".join(
                f"row {dataset.sample_number(int(i))}: {int(target[i])}" for i in wrong
            )
            raise InputError(
                f"The {part} targets contain labels outside 0..{n_classes - 1} ({found})."
                f"{dataset.position_note(part, int(wrong[0]))} Classes are numbered from 0. If "
                f"there are more classes than in train, give class_names=[…].{hint}"
            )


def check_label_columns(part: str, dataset: MemoryDataset) -> None:
    """Check that multi-label targets have one column per label, with values in [0, 1].

    Raises:
        InputError: The shape or a value is invalid; the message gives the first invalid value.
    """
    for name, target in dataset.targets.items():
        if target.ndim != 2:
            raise InputError(
                f"{name!r} has shape {tuple(target.shape)}, but task='multi_label' needs a column "
                "of 0 and 1 for each label: (rows, labels). For one label per row choose "
                "task='classification'."
            )
        wrong = ((target < 0) | (target > 1)).nonzero()
        if len(wrong):
            row, column = (int(index) for index in wrong[0])
            raise InputError(
                f"{name!r} contains {target[row, column].item():g} in {part} row "
                f"{dataset.sample_number(row)}, column {column}, but task='multi_label' needs "
                f"values from 0 to 1.{dataset.position_note(part, row)} For amounts choose "
                "task='regression'."
            )


def is_one_hot(target: Tensor) -> bool:
    """Return whether each row of targets ``(n, columns)`` has exactly one 1 and zeros otherwise."""
    if target.ndim != 2 or target.shape[1] < 2 or not len(target) or target.is_complex():
        return False
    is_binary = ((target == 0) | (target == 1)).all()
    return bool(is_binary) and bool((target.sum(dim=1) == 1).all())


def labels_to_int64(part: str, dataset: MemoryDataset, *, one_hot: bool = False) -> MemoryDataset:
    """Return the samples with class numbers as int64, from floats (0.0, 1.0) or one-hot rows.

    Args:
        part: Name of the part, for messages.
        dataset: The samples.
        one_hot: Whether 2-D targets are one-hot; otherwise they are returned unchanged.

    Raises:
        InputError: A label is not an integer, or a row does not have exactly one 1; the message
            gives the row.
    """
    targets = dict(dataset.targets)
    for name, value in targets.items():
        if one_hot and is_one_hot(value):
            targets[name] = value.argmax(dim=1)
            continue
        if one_hot:
            is_right = ((value == 1).sum(dim=1) == 1) & ((value != 0).sum(dim=1) == 1)
            row = int((~is_right).nonzero()[0])
            raise InputError(
                f"{name!r} is {cast('Any', value[row]).tolist()!s:.80} in {part} row "
                f"{dataset.sample_number(row)}, but one-hot targets have exactly one 1."
                f"{dataset.position_note(part, row)} Correct the row, or choose "
                "task='multi_label' for several labels per row."
            )
        if not value.is_floating_point() or value.ndim != 1:
            continue
        fractional = (value != value.round()).nonzero().flatten()
        if len(fractional):
            row = int(fractional[0])
            raise InputError(
                f"{name!r} contains {value[row].item():g} in {part} row "
                f"{dataset.sample_number(row)}, which is not a class number."
                f"{dataset.position_note(part, row)} Give integers from 0 for classes, or choose "
                "task='regression' for amounts."
            )
        targets[name] = value.long()
    return dataset.with_columns(targets=targets)


def warn_about_absent_classes(
    parts: Mapping[str, MemoryDataset], classes: Sequence[str], *, fix: str
) -> None:
    """Warn about classes without train rows, and name rows of other parts with these classes.

    Args:
        parts: Data sets by the name of the part; their targets are class numbers.
        classes: Class names in the order of the class numbers.
        fix: What to do, for the message.
    """
    [target, *others] = list(parts["train"].targets.values()) or [None]
    if target is None or others or target.ndim != 1 or target.is_floating_point():
        return
    counts = torch.bincount(target[target >= 0], minlength=len(classes))
    absent = [int(i) for i in (counts == 0).nonzero().flatten()]
    if not absent:
        return
    shown = name_some((repr(classes[i]) for i in absent), most=_SHOWN)
    which = "it" if len(absent) == 1 else "one of them"
    where = "".join(
        f" The {part} rows {_name_rows(dataset, rows)} have {which}."
        for part, dataset in parts.items()
        if part != "train" and len(rows := _rows_of(dataset, absent))
    )
    warnings.warn(
        f"[class-not-in-train] No train row has the class {shown}, so the model cannot learn "
        f"to predict it.{where} {fix}",
        FlambeauWarning,
        stacklevel=2,
    )


def _rows_of(dataset: MemoryDataset, labels: Sequence[int]) -> list[int]:
    target = next(iter(dataset.targets.values()))
    wanted = torch.isin(target, torch.tensor(labels))
    return [int(row) for row in wanted.nonzero().flatten()]


def _name_rows(dataset: MemoryDataset, rows: Sequence[int]) -> str:
    return name_some((dataset.sample_number(row) for row in rows), most=_SHOWN)
