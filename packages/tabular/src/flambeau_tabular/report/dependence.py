"""``partial_dependence``: how the mean prediction changes with one column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.errors import ArgumentError, did_you_mean
from flambeau.report.interpretation import Interpretation
from flambeau.report.intervals import resampled_counts
from flambeau_tabular.columns.category_column import CategoryColumn
from flambeau_tabular.columns.date_column import DateColumn
from flambeau_tabular.columns.number_column import NumberColumn
from flambeau_tabular.explain import column_slots
from flambeau_tabular.report.problem import Predicted, Problem
from flambeau_tabular.report.scored import Scored, scored_of
from flambeau_tabular.report.views import View, view_of

_MOST_CATEGORIES, _MOST_OUTPUTS, _RESAMPLES = 12, 6, 200
_MISSING = "(missing)"


@dataclass(frozen=True, eq=False)
class Dependence:
    """The mean prediction for each value of a column.

    Attributes:
        column: Name of the column.
        kind: Its kind.
        grid: Values of the column: numbers, microseconds since 1970, or names of categories.
        outputs: Names of the outputs: classes, labels, numbers or quantiles.
        mean: Mean prediction over the rows, ``(grid, outputs)``.
        low: Lower end of the 95% interval of the mean, over rows.
        high: Its upper end.
        spread: The 10% and the 90% quantile of the predictions of single rows for the first output,
            ``(grid, 2)``.
        rows: Number of rows.
    """

    column: str
    kind: str
    grid: tuple[Any, ...]
    outputs: tuple[str, ...]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    spread: NDArray[np.float64]
    rows: int


def partial_dependence(
    found: Interpretation,
    columns: Sequence[str],
    *,
    points: int = 30,
    most_rows: int = 500,
    seed: int = 0,
) -> list[Dependence]:
    """Return the partial dependence on each of the columns.

    For each value of the column, all rows get this value, and their predictions are averaged. If
    columns depend on each other, some of these rows cannot occur.

    Args:
        found: ``learner.interpret(part)`` of a learner on tables.
        columns: Names of the columns: numbers, dates and categories.
        points: Values between the 5% and the 95% quantile of a number or date. Fewer distinct
            values are all used; of categories the 12 most frequent ones.
        most_rows: Rows that are used.
        seed: Seed of the resampling for the interval.

    Raises:
        ArgumentError: The report is not on a table, or a column is no input or is free text.

    Source:
        Friedman, "Greedy function approximation", 2001; the grid is that of
        ``sklearn.inspection.partial_dependence``.
    """
    scored = scored_of(found, most_rows)
    known = [each.name for each in scored.spec.columns if each.kind != "text"]
    for name in columns:
        if name not in known:
            raise ArgumentError(f"No dependence on {name!r}. {did_you_mean(name, known)}")
    return [dependence_of(scored, name, points, seed) for name in columns]


def dependence_of(scored: Scored, name: str, points: int = 30, seed: int = 0) -> Dependence:
    """Return the partial dependence on a column for rows that are already scored."""
    column = next(each for each in scored.spec.columns if each.name == name)
    view = view_of(scored.data.frame, name, scored.data.columns[name], scored.ids)
    grid, encoded = _grid(column, view, points)
    slots = column_slots(scored.spec)[name]
    n, size = len(scored), len(grid)
    inputs = {key: each.repeat(size, 1) for key, each in scored.inputs.items()}
    for tensor, where in slots.items():
        values = encoded[tensor].repeat_interleave(n, dim=0)
        inputs[tensor][:, where] = values.to(inputs[tensor].dtype)
    outputs, values = _outputs(scored.problem, scored.predict(inputs))
    each = values.view(size, n, -1)
    weights = scored.rows.each()
    mean = torch.einsum("gno,n->go", each, weights) / weights.sum()
    low, high = mean, mean
    if scored.rows.units > 1:
        counts = torch.cat(list(resampled_counts(n, _RESAMPLES, scored.rows.groups, seed)))
        counts = counts * weights
        means = torch.einsum("gno,rn->rgo", each, counts) / counts.sum(dim=1)[:, None, None]
        low, high = (means.quantile(q, dim=0) for q in (0.025, 0.975))
    spread = torch.stack([each[..., 0].quantile(q, dim=1) for q in (0.1, 0.9)], dim=1)
    mean, low, high, spread = (part.numpy() for part in (mean, low, high, spread))
    return Dependence(name, column.kind, grid, outputs, mean, low, high, spread, n)


def number_grid(values: NDArray[np.float64], points: int) -> NDArray[np.float64]:
    """Return the values at which the dependence is computed; see `partial_dependence`."""
    distinct = np.unique(values)
    if len(distinct) <= points:
        return distinct
    low, high = np.quantile(values, [0.05, 0.95])
    return np.linspace(low, high, points) if low < high else distinct[:points]


def _grid(
    column: NumberColumn | DateColumn | CategoryColumn | object, view: View | None, points: int
) -> tuple[tuple[Any, ...], dict[str, Tensor]]:
    """Return the values of the column and their encoded tensors."""
    if view is None or view.missing.all():
        return (), {}
    if isinstance(column, CategoryColumn):
        counts = np.bincount(view.codes[view.codes >= 0], minlength=len(view.names))  # pyright: ignore[reportOptionalSubscript, reportOptionalOperand]
        order = np.argsort(-counts, kind="stable")[:_MOST_CATEGORIES]
        if column.kind == "ordered" or len(view.names) <= _MOST_CATEGORIES:
            order = np.sort(order)
        names = [view.names[at] for at in order]
        cells = [*names, None] if view.missing.any() else names
        codes = column.encode(pa.chunked_array([pa.array(cells, pa.large_string())]))
        shown = tuple(_MISSING if each is None else each for each in cells)
        return shown, {"categories": torch.from_numpy(codes)[:, None]}
    known = view.numbers[~view.missing]  # pyright: ignore[reportOptionalSubscript]
    grid = number_grid(known, points)
    if isinstance(column, DateColumn):
        kind = pa.timestamp("us", "UTC") if column.zoned else pa.timestamp("us")
        cells = pa.array(grid.astype(np.int64), pa.int64()).cast(kind)
    else:
        cells = pa.array(grid)
    numbers, missing = column.encode(pa.chunked_array([cells]))  # pyright: ignore[reportAttributeAccessIssue]
    flags = torch.from_numpy(missing.astype(np.uint8))[:, None]
    return tuple(grid.tolist()), {"numbers": torch.from_numpy(numbers), "flags": flags}


def _outputs(problem: Problem, predicted: Predicted) -> tuple[tuple[str, ...], Tensor]:
    """Return the outputs that are shown, with their names."""
    names, values = problem.names, predicted.values
    if problem.kind == "classes" and len(names) == 2:
        return (names[1],), values[:, 1:]
    if problem.kind == "quantiles":
        first = predicted.quantiles[:, 0]
        middle = problem.levels.index(0.5)
        order = [middle, *(at for at in range(len(problem.levels)) if at != middle)]
        order = order[:_MOST_OUTPUTS]
        return tuple(f"{problem.levels[at]:g} quantile" for at in order), first[:, order]
    if len(names) <= _MOST_OUTPUTS:
        return names, values
    top = values.mean(dim=0).topk(_MOST_OUTPUTS).indices.tolist()
    return tuple(names[at] for at in top), values[:, top]
