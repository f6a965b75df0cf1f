"""What data in memory are looked at for before anything is trained on them."""

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

_SHOWN = 5
_CHUNK_NUMBERS = 2**22  # 32 MB of int64 at a time


def match_train_columns(train: MemoryDataset, part: str, dataset: MemoryDataset) -> MemoryDataset:
    """The part with floating-point columns in train's dtype.

    Raises:
        InputError: Another column, shape of a sample or kind of number than in train.
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
            name: _like(wanted[name], value, f"The {part} {kind[:-1]} {name!r}")
            for name, value in found.items()
        }
    return MemoryDataset(columns["inputs"], columns["targets"], dataset.ids)


def _like(wanted: Tensor, found: Tensor, what: str) -> Tensor:
    if wanted.shape[1:] != found.shape[1:]:
        raise InputError(
            f"{what} has shape {tuple(found.shape[1:])} a sample, but train has "
            f"{tuple(wanted.shape[1:])}. Prepare every part the same way."
        )
    if wanted.dtype == found.dtype:
        return found
    if wanted.is_floating_point() and found.is_floating_point():
        return found.to(wanted.dtype)
    raise InputError(
        f"{what} holds {dtype_name(found.dtype)}, but train has {dtype_name(wanted.dtype)}. "
        f"Prepare every part the same way: .to({wanted.dtype})."
    )


def check_finite(part: str, dataset: MemoryDataset) -> None:
    """Refuses NaN and infinity, and inputs without any number.

    Raises:
        InputError: It names rows, and the column of the first one.
    """
    for name, value in dataset.inputs.items():
        if math.prod(value.shape[1:]) == 0:
            raise InputError(
                f"{name!r} has shape {tuple(value.shape)}: its samples hold no numbers, so there "
                "is nothing to learn from. Give at least one column."
            )
    for name, value in (*dataset.inputs.items(), *dataset.targets.items()):
        if rows := non_finite_rows(value):
            ids = [_number(dataset, row) for row in rows]
            raise InputError(
                f"{name!r} holds NaN or infinity in {part} row{'s' if len(ids) > 1 else ''} "
                f"{', '.join(map(str, ids))}{', …' if len(ids) == _SHOWN else ''}. "
                f"The first is {first_non_finite(value[rows[0]])}.{_place(dataset, part, rows[0])} "
                "Fill these values in or drop the rows."
            )


def check_labels(part: str, dataset: MemoryDataset, classes: Sequence[str]) -> None:
    """Checks that integer labels are class numbers.

    Raises:
        InputError: It names the first rows.
    """
    n_classes = len(classes)
    for target in dataset.targets.values():
        if target.is_floating_point() or target.ndim != 1:
            continue
        wrong = ((target < 0) | (target >= n_classes)).nonzero().flatten()[:_SHOWN]
        if len(wrong):
            found = ", ".join(f"row {_number(dataset, int(i))}: {int(target[i])}" for i in wrong)
            raise InputError(
                f"The {part} targets hold labels outside 0..{n_classes - 1} ({found})."
                f"{_place(dataset, part, int(wrong[0]))} Classes are counted from 0; if there "
                "are more than train shows, say so: class_names=[…]."
            )


def check_label_columns(part: str, dataset: MemoryDataset) -> None:
    """Checks targets for several labels a sample: a column a label, each from 0 to 1.

    Raises:
        InputError: It names the first value that is none.
    """
    for name, target in dataset.targets.items():
        if target.ndim != 2:
            raise InputError(
                f"{name!r} has shape {tuple(target.shape)}, but task='multi_label' expects a "
                "column of 0 and 1 for each label: (rows, labels). For one label a row choose "
                "task='classification'."
            )
        wrong = ((target < 0) | (target > 1)).nonzero()
        if len(wrong):
            row, column = (int(index) for index in wrong[0])
            raise InputError(
                f"{name!r} holds {target[row, column].item():g} in {part} row "
                f"{_number(dataset, row)}, column {column}, but task='multi_label' expects 0 or 1 "
                f"(or a share between them).{_place(dataset, part, row)} Choose "
                "task='regression' if these are amounts."
            )


def labels_to_int64(part: str, dataset: MemoryDataset) -> MemoryDataset:
    """The same samples with class numbers that came as floats (0.0, 1.0) as int64.

    Raises:
        InputError: One is no whole number; it names the row.
    """
    targets = dict(dataset.targets)
    for name, value in targets.items():
        if not value.is_floating_point() or value.ndim != 1:
            continue
        broken = (value != value.round()).nonzero().flatten()
        if len(broken):
            row = int(broken[0])
            raise InputError(
                f"{name!r} holds {value[row].item():g} in {part} row {_number(dataset, row)}, "
                f"which is no class number.{_place(dataset, part, row)} Give whole numbers from "
                "0 for classes, or choose task='regression' for amounts."
            )
        targets[name] = value.long()
    return MemoryDataset(dataset.inputs, targets, dataset.ids)


def warn_about_absent_classes(
    parts: Mapping[str, MemoryDataset], classes: Sequence[str], *, named: bool
) -> None:
    """Warns of classes that no train row has, and names the rows of other parts that have them.

    Args:
        parts: With class numbers as targets.
        classes: Names in the order of the numbers.
        named: Whether the user gave the names; else they are the numbers up to the highest.
    """
    [target, *others] = list(parts["train"].targets.values()) or [None]
    if target is None or others or target.ndim != 1 or target.is_floating_point():
        return
    counts = torch.bincount(target, minlength=len(classes))
    absent = [int(i) for i in (counts == 0).nonzero().flatten()]
    if not absent:
        return
    shown = ", ".join(repr(classes[i]) for i in absent[:_SHOWN])
    more = f", … ({len(absent)} in all)" if len(absent) > _SHOWN else ""
    where = "".join(
        f" The {part} rows {_some(dataset, rows)} have {'it' if len(absent) == 1 else 'one'}."
        for part, dataset in parts.items()
        if part != "train" and len(rows := _rows_of(dataset, absent))
    )
    mend = (
        "Leave it out of class_names, or give train rows of it."
        if named
        else "Number the classes from 0 without gaps: np.unique(labels, return_inverse=True)."
    )
    warnings.warn(
        f"[class-not-in-train] No train row has the class {shown}{more}, so the model gets an "
        f"output for which it learns nothing.{where} {mend}",
        FlambeauWarning,
        stacklevel=2,
    )


def find_rows_also_in_train(train: MemoryDataset, other: MemoryDataset) -> list[tuple[int, int]]:
    """Rows of ``other`` whose inputs are those of a train row: (its number, train's number).

    Rows are compared by the products of their bytes with one random vector, and only those of
    equal products in full.
    """
    marks, others = _marks(train), _marks(other)
    order = np.argsort(marks, kind="stable")
    place = np.searchsorted(marks[order], others)
    found: list[tuple[int, int]] = []
    for row in np.flatnonzero(place < len(marks)):
        here = int(order[place[row]])
        if marks[here] == others[row] and all(
            torch.equal(value[here], other.inputs[name][int(row)])
            for name, value in train.inputs.items()
        ):
            found.append((_number(other, int(row)), _number(train, here)))
    return found


def _marks(dataset: MemoryDataset) -> np.ndarray:
    """A number a row that equal rows share: whole numbers, which no order of adding changes."""
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


def _some(dataset: MemoryDataset, rows: Sequence[int]) -> str:
    shown = ", ".join(str(_number(dataset, row)) for row in rows[:_SHOWN])
    return f"{shown}, …" if len(rows) > _SHOWN else shown


def _number(dataset: MemoryDataset, row: int) -> int:
    return row if dataset.ids is None else int(dataset.ids[row])


def _place(dataset: MemoryDataset, part: str, row: int) -> str:
    """Where the row stands in arrays that were given for the part alone, whose rows count on."""
    ids = dataset.ids
    if ids is None or int(ids[0]) == 0 or int(ids[-1]) - int(ids[0]) + 1 != len(ids):
        return ""
    if not torch.equal(ids.diff(), torch.ones(len(ids) - 1, dtype=ids.dtype)):
        return ""
    return f" Counted within {part} it is row {row}."
