"""``worst_slices``: parts of the rows, defined by one or two columns, with the highest loss."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from statistics import NormalDist

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau.report.interpretation import Interpretation
from flambeau.report.text_table import text_table
from flambeau.task.numerics import distinct
from flambeau_tabular.report.measures import Rows, row_losses
from flambeau_tabular.report.scored import Scored, scored_of
from flambeau_tabular.report.views import View, view_of

_BINS, _MOST_CATEGORIES, _PAIRED = 5, 15, 6
_FEWEST_GROUPS = 10
_OVERLAP = 0.8  # of two slices; the second says nothing new


@dataclass(frozen=True)
class Slice:
    """A part of the rows.

    Attributes:
        name: What the rows have in common, such as "age ≥ 61 and job = nurse".
        rows: Number of rows.
        share: Their share.
        loss: Mean loss of these rows.
        other_loss: Mean loss of all other rows.
        error: Standard error of the difference; rows of one group count as one.
        p: Probability of so large a difference by chance in any of the slices that were examined
            (Holm's correction).
        accuracy: Share of correct predictions in the slice; None for numbers.
        other_accuracy: Share of correct predictions in all other rows.
    """

    name: str
    rows: int
    share: float
    loss: float
    other_loss: float
    error: float
    p: float
    accuracy: float | None = None
    other_accuracy: float | None = None


@dataclass(frozen=True)
class Slices:
    """The slices whose loss is higher than that of the other rows by more than chance.

    Attributes:
        slices: The slices, that with the largest excess over all its rows first.
        examined: Number of slices that were examined.
        loss: Name of the loss.
        level: Largest ``p`` of a slice that is named.
    """

    slices: tuple[Slice, ...]
    examined: int
    loss: str
    level: float

    def __str__(self) -> str:
        if not self.slices:
            return f"None of {self.examined} slices has a higher {self.loss} than chance explains."
        rows = [[each.name, each.rows, each.loss, each.other_loss, each.p] for each in self.slices]
        headers = ["slice", "rows", self.loss, "other rows", "p"]
        return f"{self.examined} slices examined\n{text_table(headers, rows)}"


def worst_slices(
    found: Interpretation, *, least_rows: int = 50, level: float = 0.05, most: int = 10
) -> Slices:
    """Return the parts of the rows on which the model is worse than on the other rows.

    Examined are: each category, a fifth of each number or date, and missing cells; and pairs of
    these for the six columns whose slices differ most. A slice is named if its loss is higher than
    that of all other rows by more than chance would explain in so many comparisons; a pair only if
    it is worse than each of its two conditions alone, by two standard errors.

    Args:
        found: ``learner.interpret(part)`` of a learner on tables.
        least_rows: Fewest rows of a slice (and of the rest); with groups also 10 groups.
        level: Probability that any slice is named although none is worse.
        most: Number of slices that are returned.

    Raises:
        ArgumentError: The report is not on a table.

    Source:
        Holm, "A simple sequentially rejective multiple test procedure", 1979. The standard errors
        are those of means over groups (Liang and Zeger, 1986).
    """
    return slices_of(scored_of(found, 50_000), least_rows, level, most)


def slices_of(scored: Scored, least_rows: int = 50, level: float = 0.05, most: int = 10) -> Slices:
    """Return the worst slices of rows that are already scored."""
    name, losses = slice_losses(scored)
    tested: dict[str, tuple[NDArray[np.bool_], float, float, float]] = {}
    by_column: dict[str, list[str]] = {}
    single: dict[str, NDArray[np.bool_]] = {}
    for column, kind in scored.data.columns.items():
        view = view_of(scored.data.frame, column, kind, scored.ids)
        if view is None or kind.kind == "text":
            continue
        for title, chosen in slices_of_column(view):
            if _test(tested, title, chosen, losses, scored.rows, least_rows):
                by_column.setdefault(column, []).append(title)
                single[title] = chosen
    strongest = sorted(
        by_column,
        key=lambda each: -max(tested[title][1] / tested[title][3] for title in by_column[each]),
    )
    explained: set[str] = set()
    for first, second in combinations(strongest[:_PAIRED], 2):
        for one in by_column[first]:
            for other in by_column[second]:
                title, chosen = f"{one} and {other}", single[one] & single[other]
                if _test(tested, title, chosen, losses, scored.rows, least_rows):
                    alone = max(tested[each][1] + tested[each][2] for each in (one, other))
                    _, excess, outside, error = tested[title]
                    if excess + outside < alone + 2 * error:
                        explained.add(title)  # by one of its two conditions
    named = _named(scored, tested, explained, level, most)
    return Slices(tuple(named), len(tested), name, level)


def slice_losses(scored: Scored) -> tuple[str, Tensor]:
    """Return the name of the loss by which slices are compared, and the loss of each row."""
    problem = scored.problem
    if problem.kind == "numbers":  # squares depend on a few rows
        return "absolute error", (scored.predicted.values - scored.rows.targets).abs().mean(dim=1)
    name = {"amounts": "deviance", "quantiles": "pinball loss"}.get(problem.kind, "log-loss")
    return name, row_losses(problem, scored.predicted, scored.rows.targets)


def slices_of_column(view: View) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the title and the rows of each slice of a column."""
    if view.missing.any() and not view.missing.all():
        yield f"{view.name} is missing", view.missing
    if view.codes is not None:
        counts = np.bincount(view.codes[view.codes >= 0], minlength=len(view.names))
        for at in np.argsort(-counts, kind="stable")[:_MOST_CATEGORIES].tolist():
            yield f"{view.name} = {view.names[at]}", view.codes == at
        return
    numbers = view.numbers
    if numbers is None or view.missing.all():
        return
    known = numbers[~view.missing]
    edges = np.unique(np.quantile(known, np.arange(1, _BINS) / _BINS, method="higher"))
    edges = edges[(edges > known.min()) & (edges <= known.max())]
    if not len(edges):
        return
    for at in range(len(edges) + 1):
        low = edges[at - 1] if at else None
        high = edges[at] if at < len(edges) else None
        chosen = ~view.missing
        if low is not None:
            chosen = chosen & (numbers >= low)
        if high is not None:
            chosen = chosen & (numbers < high)
        values = np.unique(numbers[chosen])
        only = len(values) == 1
        title = f"{view.name} = {view.text(values[0])}" if only else _range_title(view, low, high)
        yield title, chosen


def _range_title(view: View, low: float | None, high: float | None) -> str:
    if low is None and high is not None:
        return f"{view.name} < {view.text(high)}"
    if high is None and low is not None:
        return f"{view.name} ≥ {view.text(low)}"
    return f"{view.text(low or 0.0)} ≤ {view.name} < {view.text(high or 0.0)}"


def difference(chosen: Tensor, losses: Tensor, rows: Rows) -> tuple[float, float, float]:
    """Return the mean loss of the chosen rows, that of the others, and the standard error.

    Rows of one group are dependent: the error is that of sums over groups.
    """
    weights = rows.each()
    inside, outside = weights * chosen, weights * ~chosen
    means = [float(side @ losses / side.sum()) for side in (inside, outside)]
    parts = inside / inside.sum() * (losses - means[0])
    parts = parts - outside / outside.sum() * (losses - means[1])
    if rows.groups is not None:
        names, position = distinct(rows.groups)
        parts = torch.zeros(len(names), dtype=torch.float64).index_add_(0, position, parts)
    n = len(parts)
    return means[0], means[1], float((parts.square().sum() * n / max(1, n - 1)).sqrt())


def _test(
    tested: dict[str, tuple[NDArray[np.bool_], float, float, float]],
    title: str,
    chosen: NDArray[np.bool_],
    losses: Tensor,
    rows: Rows,
    least_rows: int,
) -> bool:
    """Add the slice to those that were examined, unless it or the rest is too small."""
    n = int(chosen.sum())
    if n < least_rows or len(chosen) - n < least_rows:
        return False
    mask = torch.from_numpy(chosen)
    if rows.groups is not None and len(distinct(rows.groups[mask])[0]) < _FEWEST_GROUPS:
        return False
    inside, outside, error = difference(mask, losses, rows)
    if not error > 0:
        return False
    tested[title] = (chosen, inside - outside, outside, error)
    return True


def holm(p_values: list[float]) -> list[float]:
    """Return p-values for the question whether any of so many comparisons is due to chance."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    found = [0.0] * len(p_values)
    reached = 0.0
    for rank, at in enumerate(order):
        reached = max(reached, min(1.0, p_values[at] * (len(p_values) - rank)))
        found[at] = reached
    return found


def _named(
    scored: Scored,
    tested: dict[str, tuple[NDArray[np.bool_], float, float, float]],
    explained: set[str],
    level: float,
    most: int,
) -> Iterator[Slice]:
    titles = list(tested)
    chance = NormalDist()
    p = holm([1 - chance.cdf(tested[title][1] / tested[title][3]) for title in titles])
    worse = [at for at, each in enumerate(titles) if p[at] <= level and each not in explained]
    # By the loss that they add to the total.
    worse.sort(key=lambda at: -tested[titles[at]][1] * tested[titles[at]][0].sum())
    right = None
    if scored.problem.kind == "classes":
        right = (scored.predicted.decided == scored.rows.targets).double()
    for at in _different(worse, [tested[title][0] for title in titles], most):
        chosen, excess, outside, error = tested[titles[at]]
        accuracy = other = None
        if right is not None:
            accuracy, other, _ = difference(torch.from_numpy(chosen), right, scored.rows)
        n = int(chosen.sum())
        yield Slice(
            titles[at],
            n,
            n / len(chosen),
            outside + excess,
            outside,
            error,
            p[at],
            accuracy,
            other,
        )


def _different(order: list[int], masks: list[NDArray[np.bool_]], most: int) -> list[int]:
    """Return the first slices in this order that do not share most rows with an earlier one."""
    kept: list[int] = []
    for at in order:
        if len(kept) == most:
            break
        shared = [
            (masks[at] & masks[each]).sum() / (masks[at] | masks[each]).sum() for each in kept
        ]
        if max(shared, default=0.0) < _OVERLAP:
            kept.append(at)
    return kept
