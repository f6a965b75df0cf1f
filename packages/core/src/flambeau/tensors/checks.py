"""Checks of data in memory before training."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from flambeau.data.memory_loader import MemoryDataset
from flambeau.errors import FlambeauWarning, InputError
from flambeau.tensors.preprocess import dtype_name, first_non_finite, non_finite_rows
from flambeau.wording import name_some

_SHOWN = 5
_CHUNK_NUMBERS = 2**22  # 32 MB of int64 at a time


def match_train_columns(train: MemoryDataset, part: str, dataset: MemoryDataset) -> MemoryDataset:
    """Return the part with its floating-point columns cast to train's dtypes.

    Raises:
        InputError: The columns, the shape of a sample or the kind of dtype differ from train's.
    """
    columns: dict[str, dict[str, Tensor]] = {}
    for kind in ("inputs", "targets"):
        wanted: Mapping[str, Tensor] = getattr(train, kind)
        found: Mapping[str, Tensor] = getattr(dataset, kind)
        if list(wanted) != list(found):
            raise InputError(
                f"The {part} {kind} are {', '.join(found) or 'none'}, but train has "
                f"{', '.join(wanted) or 'none'}. Give the same columns to every part."
            )
        columns[kind] = {
            name: _match_column(wanted[name], value, f"The {part} {kind[:-1]} {name!r}")
            for name, value in found.items()
        }
    return MemoryDataset(columns["inputs"], columns["targets"], dataset.ids, dataset.sample_weight)


def _match_column(wanted: Tensor, found: Tensor, what: str) -> Tensor:
    if wanted.shape[1:] != found.shape[1:]:
        raise InputError(
            f"{what} has shape {tuple(found.shape[1:])} per sample, but train has "
            f"{tuple(wanted.shape[1:])}. Prepare every part the same way."
        )
    if wanted.dtype == found.dtype:
        return found
    if wanted.is_floating_point() and found.is_floating_point():
        return found.to(wanted.dtype)
    raise InputError(
        f"{what} has dtype {dtype_name(found.dtype)}, but train has {dtype_name(wanted.dtype)}. "
        f"Convert it with .to({wanted.dtype})."
    )


def check_finite(part: str, dataset: MemoryDataset) -> None:
    """Raise an error for NaN, infinity, or inputs without values.

    Raises:
        InputError: The message gives the rows and the column of the first value.
    """
    for name, value in dataset.inputs.items():
        if math.prod(value.shape[1:]) == 0:
            raise InputError(
                f"{name!r} has shape {tuple(value.shape)}, so its samples have no values. Give at "
                "least one column."
            )
    for name, value in (*dataset.inputs.items(), *dataset.targets.items()):
        if rows := non_finite_rows(value):
            ids = [_number(dataset, row) for row in rows]
            raise InputError(
                f"{name!r} contains NaN or infinity in {part} row{'s' if len(ids) > 1 else ''} "
                f"{', '.join(map(str, ids))}{', …' if len(ids) == _SHOWN else ''}. "
                f"The first is {first_non_finite(value[rows[0]])}."
                f"{_position_note(dataset, part, rows[0])} Fill in these values or drop the rows."
            )


def check_labels(part: str, dataset: MemoryDataset, classes: Sequence[str]) -> None:
    """Raise an error if integer labels are not class numbers.

    Raises:
        InputError: The message gives the first rows.
    """
    n_classes = len(classes)
    for target in dataset.targets.values():
        if target.is_floating_point() or target.ndim != 1:
            continue
        wrong = ((target < 0) | (target >= n_classes)).nonzero().flatten()[:_SHOWN]
        if len(wrong):
            found = ", ".join(f"row {_number(dataset, int(i))}: {int(target[i])}" for i in wrong)
            raise InputError(
                f"The {part} targets contain labels outside 0..{n_classes - 1} ({found})."
                f"{_position_note(dataset, part, int(wrong[0]))} Classes are numbered from 0. If "
                "there are more classes than in train, give class_names=[…]."
            )


def check_label_columns(part: str, dataset: MemoryDataset) -> None:
    """Raise an error if multi-label targets are not one column per label with values in [0, 1].

    Raises:
        InputError: The message gives the first invalid value.
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
                f"{_number(dataset, row)}, column {column}, but task='multi_label' needs values "
                f"from 0 to 1.{_position_note(dataset, part, row)} For amounts choose "
                "task='regression'."
            )


def labels_to_int64(part: str, dataset: MemoryDataset) -> MemoryDataset:
    """Return the samples with floating-point class numbers (0.0, 1.0) converted to int64.

    Raises:
        InputError: A label is not an integer; the message gives the row.
    """
    targets = dict(dataset.targets)
    for name, value in targets.items():
        if not value.is_floating_point() or value.ndim != 1:
            continue
        fractional = (value != value.round()).nonzero().flatten()
        if len(fractional):
            row = int(fractional[0])
            raise InputError(
                f"{name!r} contains {value[row].item():g} in {part} row {_number(dataset, row)}, "
                f"which is not a class number.{_position_note(dataset, part, row)} Give integers "
                "from 0 for classes, or choose task='regression' for amounts."
            )
        targets[name] = value.long()
    return MemoryDataset(dataset.inputs, targets, dataset.ids, dataset.sample_weight)


def warn_about_absent_classes(
    parts: Mapping[str, MemoryDataset], classes: Sequence[str], *, named: bool
) -> None:
    """Warn about classes without train rows, with the rows of other parts that have them.

    Args:
        parts: Parts whose targets are class numbers.
        classes: Class names in the order of the class numbers.
        named: Whether the user gave the names; otherwise they are numbers up to the highest.
    """
    [target, *others] = list(parts["train"].targets.values()) or [None]
    if target is None or others or target.ndim != 1 or target.is_floating_point():
        return
    counts = torch.bincount(target, minlength=len(classes))
    absent = [int(i) for i in (counts == 0).nonzero().flatten()]
    if not absent:
        return
    shown = name_some((repr(classes[i]) for i in absent), most=_SHOWN)
    where = "".join(
        f" The {part} rows {_name_rows(dataset, rows)} have {'it' if len(absent) == 1 else 'one'}."
        for part, dataset in parts.items()
        if part != "train" and len(rows := _rows_of(dataset, absent))
    )
    fix = (
        "Remove it from class_names, or add train rows of it."
        if named
        else "Number the classes from 0 without gaps: np.unique(labels, return_inverse=True)."
    )
    warnings.warn(
        f"[class-not-in-train] No train row has the class {shown}, so the model cannot learn "
        f"to predict it.{where} {fix}",
        FlambeauWarning,
        stacklevel=2,
    )


def find_rows_also_in_train(train: MemoryDataset, other: MemoryDataset) -> list[tuple[int, int]]:
    """Return the rows of ``other`` with the inputs of a train row: (its number, train's number).

    Rows are compared by a hash first, and in full only where the hashes are equal.
    """
    hashes, other_hashes = _row_hashes(train), _row_hashes(other)
    order = np.argsort(hashes, kind="stable")
    position = np.searchsorted(hashes[order], other_hashes)
    found: list[tuple[int, int]] = []
    for row in np.flatnonzero(position < len(hashes)):
        train_row = int(order[position[row]])
        if hashes[train_row] == other_hashes[row] and all(
            torch.equal(value[train_row], other.inputs[name][int(row)])
            for name, value in train.inputs.items()
        ):
            found.append((_number(other, int(row)), _number(train, train_row)))
    return found


def _row_hashes(dataset: MemoryDataset) -> np.ndarray:
    """Return a hash per row: the product of its bytes with a random integer vector.

    Integer sums are exact, so equal rows have equal hashes.
    """
    total = torch.zeros(len(dataset), dtype=torch.int64)
    for value in dataset.inputs.values():
        real = torch.view_as_real(value) if value.is_complex() else value
        content = real.reshape(len(value), -1).contiguous().view(torch.uint8)
        draws = torch.Generator().manual_seed(0)
        vector = torch.randint(-(2**62), 2**62, (content.shape[1],), generator=draws)
        rows = max(1, _CHUNK_NUMBERS // max(1, content.shape[1]))
        for start in range(0, len(content), rows):
            total[start : start + rows] += content[start : start + rows].to(torch.int64) @ vector
    return total.numpy()


def _rows_of(dataset: MemoryDataset, labels: Sequence[int]) -> list[int]:
    target = next(iter(dataset.targets.values()))
    wanted = torch.isin(target, torch.tensor(labels))
    return [int(row) for row in wanted.nonzero().flatten()]


def _name_rows(dataset: MemoryDataset, rows: Sequence[int]) -> str:
    return name_some((_number(dataset, row) for row in rows), most=_SHOWN)


def _number(dataset: MemoryDataset, row: int) -> int:
    return row if dataset.ids is None else int(dataset.ids[row])


def _position_note(dataset: MemoryDataset, part: str, row: int) -> str:
    """Return the row's position in its part, if the part's rows are numbered after another part."""
    ids = dataset.ids
    if ids is None or int(ids[0]) == 0 or int(ids[-1]) - int(ids[0]) + 1 != len(ids):
        return ""
    if not torch.equal(ids.diff(), torch.ones(len(ids) - 1, dtype=ids.dtype)):
        return ""
    return f" Within {part} it is row {row}."
