"""``table_drift``: how the columns of other rows are distributed compared with the train rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from flambeau import random as keyed
from flambeau.data.split import PARTS
from flambeau.errors import InputError
from flambeau.report.text_table import text_table
from flambeau_tabular.column_kind import UNUSED
from flambeau_tabular.columns import Frame
from flambeau_tabular.frame_rows import as_frame
from flambeau_tabular.report.scored import sampled
from flambeau_tabular.report.views import View, view_of

if TYPE_CHECKING:
    from flambeau_tabular.data import TabularData

_MOST_ROWS, _PERMUTATIONS, _MOST_NAMES = 5_000, 200, 50


@dataclass(frozen=True)
class ColumnDrift:
    """How a column differs between train and other rows.

    Attributes:
        column: Name of the column.
        effect: Share of the rows that would have to change for equal distributions, 0..1: the
            largest difference of the cumulative distributions of a number or date
            (Kolmogorov-Smirnov), half the sum of the differences of the shares of categories (total
            variation). Missing cells are a value of their own.
        noise: The mean effect if the same rows are assigned to both sides at random.
        drifts: Whether the effect is larger than chance explains in any column (5%).
        change: What changed most, as text.
    """

    column: str
    effect: float
    noise: float
    drifts: bool
    change: str


@dataclass(frozen=True)
class Drift:
    """How the columns of other rows differ from the train rows, the largest effect first.

    Attributes:
        name: What the other rows are.
        columns: The columns.
        train_rows: Number of train rows.
        rows: Number of other rows.
    """

    name: str
    columns: tuple[ColumnDrift, ...]
    train_rows: int
    rows: int

    def __str__(self) -> str:
        rows = [
            [each.column, each.effect, each.noise, "drifts" if each.drifts else "", each.change]
            for each in self.columns
        ]
        title = f"train ({self.train_rows:,} rows) → {self.name} ({self.rows:,} rows)"
        return f"{title}\n{text_table(['column', 'effect', 'noise', '', 'change'], rows)}"


def table_drift(data: TabularData, other: Any, *, seed: int = 0) -> Drift:
    """Return how the columns of other rows are distributed compared with the train rows.

    At most 5,000 rows of each side are compared. Whole groups are permuted if the data have groups.

    Args:
        data: The data with the train rows.
        other: A part ("valid", "test"), or a frame, such as rows to predict.
        seed: Seed of the permutations.

    Raises:
        InputError: A side has fewer than two rows, or the frame lacks a column.
    """
    train = sampled(data.split.train, _MOST_ROWS, "drift train")
    groups: NDArray[Any] | None = None
    if isinstance(other, str) and other in PARTS:
        frame, name = data.frame, other
        rows = sampled(data.split.part(other), _MOST_ROWS, f"drift {other}")
        if data.structure.groups is not None:
            groups = data.structure.groups[np.concatenate([train, rows])]
    else:
        frame, name = as_frame(other), "new rows"
        rows = sampled(np.arange(len(frame)), _MOST_ROWS, "drift rows")
    if len(train) < 2 or len(rows) < 2:
        raise InputError(f"There are {len(train)} train rows and {len(rows)} rows to compare.")
    views = _views(data, frame, train, rows)
    first = np.arange(len(train) + len(rows)) < len(train)
    sides = permuted_sides(first, groups, seed)
    found = [(view, *_effects(view, sides)) for view in views]
    if not found:
        return Drift(name, (), len(train), len(rows))
    effects = np.stack([effects for _, effects, _ in found])
    null = effects[:, 1:]
    means, spread = null.mean(axis=1), null.std(axis=1).clip(1e-12)
    # The largest of all columns in each permutation: chance in any of them, not in each of them.
    largest = ((null - means[:, None]) / spread[:, None]).max(axis=0)
    limit = np.quantile(largest, 0.95)
    columns = [
        ColumnDrift(
            view.name,
            float(each[0]),
            float(mean),
            bool((each[0] - mean) / deviation > limit),
            change,
        )
        for (view, each, change), mean, deviation in zip(found, means, spread, strict=True)
    ]
    columns.sort(key=lambda each: (not each.drifts, -each.effect))
    return Drift(name, tuple(columns), len(data.split.train), len(rows))


def permuted_sides(
    first: NDArray[np.bool_], groups: NDArray[Any] | None, seed: int = 0
) -> NDArray[np.bool_]:
    """Return which rows are on the first side: as given, then in 200 permutations ``(201, n)``.

    Groups are permuted as a whole, if no group is on both sides.
    """
    n = len(first)
    found = np.empty((_PERMUTATIONS + 1, n), dtype=bool)
    found[0] = first
    numbers, units = np.arange(n), first
    if groups is not None:
        names = np.unique(groups)
        at = np.searchsorted(names, groups)
        share = np.bincount(at, weights=first) / np.bincount(at)
        if bool(((share == 0) | (share == 1)).all()):
            numbers, units = at, share == 1
    draws = keyed.generator(seed, "drift", n)
    for row in range(1, _PERMUTATIONS + 1):
        order = torch.randperm(len(units), generator=draws).numpy()
        found[row] = units[order][numbers]
    return found


def cumulative_distance(
    values: NDArray[np.float64], sides: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the Kolmogorov-Smirnov distance of both sides for each row of ``sides``.

    NaN is the lowest value.
    """
    order = np.argsort(np.where(np.isnan(values), -np.inf, values), kind="stable")
    ordered = np.where(np.isnan(values), np.nanmin(values, initial=0.0) - 1, values)[order]
    # Distributions are compared after the last of equal values.
    last = np.append(ordered[1:] != ordered[:-1], True)
    found = np.empty(len(sides))
    for row, side in enumerate(sides):
        is_first = side[order]
        n_first = is_first.sum()
        one = np.cumsum(is_first) / max(1, n_first)
        other = np.cumsum(~is_first) / max(1, len(is_first) - n_first)
        found[row] = np.abs(one - other)[last].max()
    return found


def variation_distance(codes: NDArray[np.int64], sides: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the total variation of the shares of codes from 0 on, for each row of ``sides``."""
    size = int(codes.max()) + 1
    found = np.empty(len(sides))
    for row, side in enumerate(sides):
        one = np.bincount(codes[side], minlength=size) / max(1, side.sum())
        other = np.bincount(codes[~side], minlength=size) / max(1, (~side).sum())
        found[row] = np.abs(one - other).sum() / 2
    return found


def _views(
    data: TabularData, frame: Frame, train: NDArray[np.int64], rows: NDArray[np.int64]
) -> list[View]:
    """Return each column of the train rows, followed by the other rows."""
    found: list[View] = []
    for name, kind in data.columns.items():
        if kind.kind in UNUSED:
            continue
        first = view_of(data.frame, name, kind, train)
        second = view_of(frame, name, kind, rows)
        if first is None or second is None:
            continue
        if first.numbers is not None and second.numbers is not None:
            numbers = np.concatenate([first.numbers, second.numbers])
            found.append(View(name, kind.kind, numbers))
            continue
        names = list(dict.fromkeys([*first.names, *second.names]))
        at = {each: number for number, each in enumerate(names)}
        tables = [np.array([*(at[each] for each in view.names), -1]) for view in (first, second)]
        codes = [table[view.codes] for table, view in zip(tables, (first, second), strict=True)]
        found.append(View(name, kind.kind, None, np.concatenate(codes), tuple(names)))
    return found


def _effects(view: View, sides: NDArray[np.bool_]) -> tuple[NDArray[np.float64], str]:
    """Return the effect for each assignment of the rows, and what changed most."""
    if view.numbers is not None:
        effects = cumulative_distance(view.numbers, sides)
        return effects, _number_change(view, sides[0])
    codes = np.asarray(view.codes) + 1  # 0 is missing
    counts = np.bincount(codes, minlength=len(view.names) + 1)
    kept = np.argsort(-counts[1:], kind="stable")[:_MOST_NAMES] + 1
    table = np.full(len(counts), len(kept) + 1)
    table[0] = 0
    table[kept] = np.arange(1, len(kept) + 1)
    few = table[codes]
    names = ["missing", *(view.names[at - 1] for at in kept), "others"]
    shares = [
        np.bincount(few[side], minlength=len(names)) / max(1, side.sum())
        for side in (sides[0], ~sides[0])
    ]
    most = int(np.abs(shares[1] - shares[0]).argmax())
    change = f"{names[most]}: {shares[0][most]:.1%} → {shares[1][most]:.1%}"
    return variation_distance(few, sides), change


def _number_change(view: View, first: NDArray[np.bool_]) -> str:
    numbers = np.asarray(view.numbers)
    missing = [float(np.isnan(numbers[side]).mean()) for side in (first, ~first)]
    medians = [
        view.text(float(np.nanmedian(numbers[side]))) if not np.isnan(numbers[side]).all() else "–"
        for side in (first, ~first)
    ]
    change = f"median {medians[0]} → {medians[1]}"
    if abs(missing[1] - missing[0]) >= 0.01:
        change += f", missing {missing[0]:.1%} → {missing[1]:.1%}"
    return change
