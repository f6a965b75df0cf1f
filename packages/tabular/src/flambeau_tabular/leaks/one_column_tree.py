"""How well one column alone predicts: a small tree, scored on rows that it was not fitted on.

The rows are sorted by the column; every second one fits the tree, the others score it, and the
reverse. So the scores do not depend on the order of the rows.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_MOST_LEAVES, FEWEST_IN_LEAF = 64, 5


def score_alone(
    values: Floats, wanted: Floats, *, is_ordered: bool, leaf: int = FEWEST_IN_LEAF
) -> tuple[str, float]:
    """Return "AUROC" and its value for classes ``(n, classes)``, "R²" for a number ``(n,)``."""
    if wanted.ndim == 2:
        return "AUROC", auroc_alone(values, wanted, is_ordered=is_ordered, leaf=leaf)
    return "R²", r2_alone(values, wanted, is_ordered=is_ordered, leaf=leaf)


def auroc_alone(
    values: Floats, classes: Floats, *, is_ordered: bool, leaf: int = FEWEST_IN_LEAF
) -> float:
    """Return the AUROC of a small tree on one column, the mean over the classes.

    Args:
        values: The column, ``(n,)``, NaN where missing.
        classes: 0 and 1 per class, ``(n, classes)``.
        is_ordered: Whether the values are ordered; else each value is a leaf.
        leaf: Least number of rows in a leaf of ordered values.
    """
    predicted = held_out_means(values, classes, is_ordered=is_ordered, leaf=leaf)
    wanted = range(1, 2) if classes.shape[1] == 2 else range(classes.shape[1])
    scores = [auroc(predicted[:, at], classes[:, at] > 0) for at in wanted]
    known = [score for score in scores if score == score]  # noqa: PLR0124  NaN: one class only
    return float(np.mean(known)) if known else float("nan")


def r2_alone(
    values: Floats, target: Floats, *, is_ordered: bool, leaf: int = FEWEST_IN_LEAF
) -> float:
    """Return R² of a small tree on one column: of the target or of its ranks, the larger one.

    Ranks show a column that is a function of the target with a long tail, such as its logarithm.
    """
    both = np.stack([target, ranks(target)], axis=1)
    both -= both.mean(0)
    scores = []
    for wanted in (both[:, :1], both[:, 1:]):
        predicted = held_out_means(values, wanted, is_ordered=is_ordered, leaf=leaf)
        total = float((wanted**2).sum())
        scores.append(1 - float(((wanted - predicted) ** 2).sum()) / total if total > 0 else 0.0)
    return max(scores)


def held_out_means(
    values: Floats, wanted: Floats, *, is_ordered: bool, leaf: int = FEWEST_IN_LEAF
) -> Floats:
    """Return for each row the mean of ``wanted`` in its leaf, fitted on the other half of the rows.

    Args:
        values: The column, ``(n,)``, NaN where missing; missing cells are a leaf.
        wanted: What to predict, ``(n, k)``.
        is_ordered: Whether the values are ordered; else each value is a leaf.
        leaf: Least number of rows in a leaf of ordered values.
    """
    order = np.lexsort((*wanted.T, values))
    predicted = np.empty_like(wanted)
    for fitted, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        tree = fit_tree(values[fitted], wanted[fitted], is_ordered=is_ordered, leaf=leaf)
        predicted[other] = tree.predict(values[other])
    return predicted


@dataclass(frozen=True, eq=False)
class OneColumnTree:
    """Means of what is to be predicted, by ranges of a column or by its values.

    Attributes:
        cuts: Ascending ends of the ranges; or the values, ascending.
        means: ``(leaves, k)``; last but one for other values, and last for missing cells.
        is_ordered: Whether ``cuts`` are ends of ranges.
    """

    cuts: Floats
    means: Floats
    is_ordered: bool

    def predict(self, values: Floats) -> Floats:
        """Return ``(n, k)`` for values ``(n,)``."""
        leaves = np.searchsorted(self.cuts, values)
        if not self.is_ordered:
            last = len(self.cuts) - 1
            known = (last >= 0) & (self.cuts[np.minimum(leaves, last)] == values)
            leaves = np.where(known, leaves, len(self.means) - 2)
        return self.means[np.where(np.isnan(values), len(self.means) - 1, leaves)]


def fit_tree(
    values: Floats, wanted: Floats, *, is_ordered: bool, leaf: int = FEWEST_IN_LEAF
) -> OneColumnTree:
    """Return the regression tree of one column, grown best first like that of scikit-learn.

    For ordered values it has at most 64 leaves with at least ``leaf`` rows each; else each value is
    a leaf.
    """
    overall = wanted.mean(0)
    missing = np.isnan(values)
    empty = wanted[missing].mean(0) if missing.any() else overall
    distinct, at = np.unique(values[~missing], return_inverse=True)
    if not len(distinct):
        return OneColumnTree(distinct, np.stack([overall, empty]), is_ordered)
    counts = np.bincount(at)
    sums = np.stack([np.bincount(at, each) for each in wanted[~missing].T], axis=1)
    sums = sums.astype(np.float64, copy=False)
    if not is_ordered:
        return OneColumnTree(distinct, np.vstack([sums / counts[:, None], overall, empty]), False)
    starts = _grow(counts, sums, leaf)
    sizes = np.add.reduceat(counts, starts)
    means = np.add.reduceat(sums, starts) / sizes[:, None]
    cuts = (distinct[starts[1:] - 1] + distinct[starts[1:]]) / 2
    return OneColumnTree(cuts, np.vstack([means, overall, empty]), True)


def auroc(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Return the probability that a positive row has a higher score than a negative one.

    NaN if all rows are of one class.
    """
    n_positive = int(positive.sum())
    n_negative = len(positive) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    above = float(ranks(scores)[positive].sum()) - n_positive * (n_positive - 1) / 2
    return above / n_positive / n_negative


def ranks(values: Floats) -> Floats:
    """Return the ranks from 0; equal values have their mean rank."""
    _, at, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts + 1) / 2)[at]


def _grow(counts: NDArray[np.int64], sums: Floats, leaf: int) -> NDArray[np.int64]:
    """Return the first distinct value of each leaf, ascending."""
    n = np.concatenate([[0], np.cumsum(counts)])
    total = np.concatenate([np.zeros((1, sums.shape[1])), np.cumsum(sums, axis=0)])
    starts = [0]
    splits = [_best_cut(n, total, 0, len(counts), leaf)]
    while splits and len(starts) < _MOST_LEAVES:
        loss, cut, first, end = heapq.heappop(splits)
        if loss >= 0:
            break
        starts.append(cut)
        splits_of_both = (
            _best_cut(n, total, first, cut, leaf),
            _best_cut(n, total, cut, end, leaf),
        )
        for each in splits_of_both:
            heapq.heappush(splits, each)
    return np.sort(np.array(starts))


def _best_cut(
    n: NDArray[np.int64], total: Floats, first: int, end: int, leaf: int
) -> tuple[float, int, int, int]:
    """Return the change of the squared error by the best cut, where it is, and the range."""
    left, right = n[first + 1 : end] - n[first], n[end] - n[first + 1 : end]
    allowed = np.flatnonzero((left >= leaf) & (right >= leaf))
    if not len(allowed):
        return 0.0, first, first, end
    sums = total[first + 1 + allowed] - total[first]
    whole = total[end] - total[first]
    explained = (sums**2).sum(1) / left[allowed] + ((whole - sums) ** 2).sum(1) / right[allowed]
    best = int(explained.argmax())
    gain = float(explained[best] - (whole**2).sum() / (n[end] - n[first]))
    return -gain, first + 1 + int(allowed[best]), first, end
