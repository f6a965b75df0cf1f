"""Distribute the rows of tensor data over other parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from flambeau.data.memory_loader import MemoryDataset
from flambeau.data.split import PARTS, Rows, Split
from flambeau.errors import InputError
from flambeau.tensors.splitting import classes_to_stratify

if TYPE_CHECKING:
    from numpy.typing import NDArray


def check_in_part(split: Split, rows: Mapping[str, Sequence[int]]) -> None:
    """Check that the rows of each part are in the same part of ``split``.

    Raises:
        InputError: A row is in another part or in none.
    """
    for part, chosen in rows.items():
        wanted = np.asarray(chosen, dtype=np.int64)
        if (unknown := wanted[~np.isin(wanted, split.part(part))]).size:
            raise InputError(
                f"subset got row {unknown[0]}, which is not in the {part} part. Take row numbers "
                f"from data.split.{part}."
            )


def redistributed(
    parts: Mapping[str, MemoryDataset], split: Split, wanted: Split
) -> dict[str, MemoryDataset]:
    """Return the samples of each part of ``wanted``, which keep their numbers.

    Args:
        parts: The samples of each part of ``split``.
        split: The present split.
        wanted: The parts to return, in the row numbers of ``split``.

    Raises:
        InputError: A row is in no part of ``split``.
    """
    return {
        part: _taken(parts, split, wanted.part(part)) for part in PARTS if len(wanted.part(part))
    }


def strata(
    parts: Mapping[str, MemoryDataset], split: Split, rows: Rows, task: str
) -> NDArray[Any] | None:
    """Return the class of each row; None if the targets are not classes."""
    return classes_to_stratify(_taken(parts, split, rows), task, "auto")


def _taken(parts: Mapping[str, MemoryDataset], split: Split, rows: Rows) -> MemoryDataset:
    """Return the rows with these numbers, whatever part they are in."""
    of_part = {part: split.part(part) for part in parts}
    numbers = np.concatenate(list(of_part.values()))
    order = np.argsort(numbers, kind="stable")
    at = np.searchsorted(numbers, rows, sorter=order).clip(max=len(numbers) - 1)
    positions = order[at]
    if (missing := rows[numbers[positions] != rows]).size:
        raise InputError(
            f"Row {missing[0]} is in no part of the data. Take row numbers from data.split."
        )
    whole = _joined([parts[part] for part in of_part])
    return whole.rows(torch.tensor(positions)).with_columns(ids=torch.tensor(rows))


def _joined(datasets: Sequence[MemoryDataset]) -> MemoryDataset:
    """Return the samples of several data sets with the same columns as one."""
    first = datasets[0]
    if len(datasets) == 1:
        return first

    def columns(kind: str) -> dict[str, Tensor]:
        names: Mapping[str, Tensor] = getattr(first, kind)
        return {name: torch.cat([getattr(each, kind)[name] for each in datasets]) for name in names}

    weights = None
    if any(each.sample_weight is not None for each in datasets):
        weights = torch.cat(
            [torch.ones(len(e)) if e.sample_weight is None else e.sample_weight for e in datasets]
        )
    return MemoryDataset(
        columns("inputs"),
        columns("targets"),
        sample_weight=weights,
        task_inputs=columns("task_inputs"),
    )
