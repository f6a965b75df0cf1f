"""Columns of a table from arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flambeau.errors import InputError


def columns_of_arrays(
    numbers: Any | None, categories: Any | None, names: Sequence[str] | None
) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the columns of arrays by name, and the kind of each; see `TabularData.from_arrays`.

    Raises:
        InputError: An array has more than two axes, or there is not one name per column.
    """
    columns: dict[str, Any] = {}
    kinds: dict[str, str] = {}
    for what, values, kind in (
        ("number", numbers, "number"),
        ("category", categories, "category"),
    ):
        if values is None:
            continue
        array = np.asanyarray(values)  # masked cells are missing
        if array.ndim == 1:
            array = array[:, None]
        if array.ndim != 2:
            raise InputError(
                f"The array of {kind} columns has the shape {array.shape}. Give one row per sample "
                "and one column per feature: (rows, columns)."
            )
        for at in range(array.shape[1]):
            columns[f"{what}_{at}"] = array[:, at]
            kinds[f"{what}_{at}"] = kind
    if not columns:
        raise InputError("There are no columns. Give numbers or categories, (rows, columns).")
    if names is None:
        return columns, kinds
    if len(names) != len(columns):
        raise InputError(f"names has {len(names)} names, but there are {len(columns)} columns.")
    renamed = dict(zip(columns, names, strict=True))
    return (
        {renamed[name]: values for name, values in columns.items()},
        {renamed[name]: kind for name, kind in kinds.items()},
    )


def columns_of_targets(targets: Any) -> dict[str, Any]:
    """Return the targets by name: "target" or, for several columns, "target_0", …."""
    if isinstance(targets, Mapping):
        return dict(targets)
    array = np.asanyarray(targets)
    if array.ndim == 2 and array.shape[1] > 1:
        return {f"target_{at}": array[:, at] for at in range(array.shape[1])}
    return {"target": array.reshape(len(array), -1)[:, 0] if array.ndim == 2 else targets}
