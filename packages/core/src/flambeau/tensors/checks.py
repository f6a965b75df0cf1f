"""Checks of data in memory before training."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from flambeau.data.memory_loader import MemoryDataset
from flambeau.errors import InputError
from flambeau.tensors.preprocess import dtype_name, first_non_finite, non_finite_rows

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
    return dataset.with_columns(inputs=columns["inputs"], targets=columns["targets"])


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

    If there are several targets, NaN marks those that a sample does not have.

    Raises:
        InputError: The message gives the rows and the column of the first value.
    """
    for name, value in dataset.inputs.items():
        if math.prod(value.shape[1:]) == 0:
            raise InputError(
                f"{name!r} has shape {tuple(value.shape)}, so its samples have no values. Give at "
                "least one column."
            )
    targets = dataset.targets
    if len(targets) > 1:
        targets = {name: _without_nan(value) for name, value in targets.items()}
    for name, value in (*dataset.inputs.items(), *targets.items(), *dataset.task_inputs.items()):
        if rows := non_finite_rows(value):
            ids = [dataset.sample_number(row) for row in rows]
            raise InputError(
                f"{name!r} contains NaN or infinity in {part} row{'s' if len(ids) > 1 else ''} "
                f"{', '.join(map(str, ids))}{', …' if len(ids) == _SHOWN else ''}. "
                f"The first is {first_non_finite(value[rows[0]])}."
                f"{dataset.position_note(part, rows[0])} Fill in these values or drop the rows."
            )


def _without_nan(value: Tensor) -> Tensor:
    return torch.where(value.isnan(), 0, value) if value.is_floating_point() else value


def find_rows_also_in_train(train: MemoryDataset, other: MemoryDataset) -> list[tuple[int, int]]:
    """Return pairs (row number in ``other``, row number in ``train``) of rows with equal inputs.

    Rows are compared by a hash first, and in full only if the hashes are equal.
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
            found.append((other.sample_number(int(row)), train.sample_number(train_row)))
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
