"""How strongly two columns depend on each other, from 0 to 1, whatever their kinds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from flambeau_tabular.columns import TableSpec
from flambeau_tabular.explain import column_slots

_ROWS, _MOST_COLUMNS = 2_000, 100


def associated_columns(
    spec: TableSpec, inputs: dict[str, Tensor], least: float = 0.8
) -> list[tuple[str, ...]]:
    """Return groups of columns that are associated with each other, directly or through others.

    Of more than 100 columns, none.

    Args:
        spec: The fitted columns.
        inputs: Encoded rows; the first 2,000 are used.
        least: Smallest association within a group.
    """
    columns = _columns(spec, inputs)
    names = list(columns)
    if len(names) > _MOST_COLUMNS:
        return []
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for at, first in enumerate(names):
        for second in names[at + 1 :]:
            if association(*columns[first], *columns[second]) >= least:
                parent[root(second)] = root(first)
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(root(name), []).append(name)
    return [tuple(each) for each in groups.values() if len(each) > 1]


def association(
    first: NDArray[np.float64], first_coded: bool, second: NDArray[np.float64], second_coded: bool
) -> float:
    """Return the association of two columns without missing cells, 0..1.

    Two numbers: the absolute rank correlation. Two categories: Cramér's V, corrected for its bias.
    A number and a category: the square root of the share of the variance of the ranks that the
    categories explain, corrected for the number of categories.

    Source:
        Bergsma, "A bias-correction for Cramér's V and Tschuprow's T", 2013.
    """
    if len(first) < 3:
        return 0.0
    if first_coded and second_coded:
        return _cramer(first.astype(np.int64), second.astype(np.int64))
    if not first_coded and not second_coded:
        one, other = _ranks(first), _ranks(second)
        spread = one.std() * other.std()
        if not spread:
            return 0.0
        return float(abs(((one - one.mean()) * (other - other.mean())).mean() / spread))
    codes, numbers = (first, second) if first_coded else (second, first)
    return _correlation_ratio(codes.astype(np.int64), _ranks(numbers))


def _columns(
    spec: TableSpec, inputs: dict[str, Tensor]
) -> dict[str, tuple[NDArray[np.float64], bool]]:
    """Return the cells of each column as one number or code per row, and whether it is a code."""
    found: dict[str, tuple[NDArray[np.float64], bool]] = {}
    for name, slots in column_slots(spec).items():
        for tensor, is_coded in (("numbers", False), ("categories", True)):
            if tensor in slots:
                # Of a date the last number, the elapsed days.
                cells = inputs[tensor][:_ROWS, slots[tensor]][:, -1]
                found[name] = (cells.double().numpy(), is_coded)
    return found


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the ranks, equal values with their mean rank."""
    order = np.sort(values)
    left, right = (np.searchsorted(order, values, side=side) for side in ("left", "right"))
    return (left + right - 1) / 2.0


def _cramer(first: NDArray[np.int64], second: NDArray[np.int64]) -> float:
    n = len(first)
    one, other = _dense(first), _dense(second)
    rows, columns = int(one.max()) + 1, int(other.max()) + 1
    if min(rows, columns) < 2 or max(rows, columns) > n / 5:
        return 0.0
    table = np.bincount(one * columns + other, minlength=rows * columns).reshape(rows, columns)
    expected = np.outer(table.sum(axis=1), table.sum(axis=0)) / n
    phi2 = float(((table - expected) ** 2 / expected).sum()) / n
    phi2 = max(0.0, phi2 - (rows - 1) * (columns - 1) / (n - 1))
    width = min(
        rows - (rows - 1) ** 2 / (n - 1) - 1,
        columns - (columns - 1) ** 2 / (n - 1) - 1,
    )
    return float(np.sqrt(phi2 / width)) if width > 0 else 0.0


def _correlation_ratio(codes: NDArray[np.int64], numbers: NDArray[np.float64]) -> float:
    n, dense = len(codes), _dense(codes)
    k = int(dense.max()) + 1
    total = float(((numbers - numbers.mean()) ** 2).sum())
    if k < 2 or k > n / 5 or not total:
        return 0.0
    counts = np.bincount(dense, minlength=k)
    means = np.bincount(dense, weights=numbers, minlength=k) / counts
    between = float((counts * (means - numbers.mean()) ** 2).sum())
    # Epsilon squared: without it, many categories explain noise.
    share = 1 - (1 - between / total) * (n - 1) / (n - k)
    return float(np.sqrt(max(0.0, share)))


def _dense(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.searchsorted(np.unique(codes), codes)
