"""``mann_whitney_p``: whether two sets of scores differ beyond their spread."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

EXACT_PAIRS = 8
"""With at most so many values in the smaller set the p-value is exact."""


def mann_whitney_p(first: Sequence[float], second: Sequence[float]) -> float:
    """Return the two-sided p-value of the Mann–Whitney test.

    It is exact, also with ties, if the smaller set has at most ``EXACT_PAIRS`` values; else it is
    that of the normal approximation with the corrections for ties and for continuity.

    Args:
        first: Values of one set, at least one.
        second: Values of the other set, at least one.

    Source:
        Mann and Whitney, "On a test of whether one of two random variables is stochastically larger
        than the other", 1947. With ties the exact p-value is that of the permutation test of the
        mean ranks.

    Example:
        >>> round(mann_whitney_p([1.0, 2.0, 3.0, 4.0], [1.5, 2.5, 3.5, 4.5]), 2)
        0.69
    """
    values = np.concatenate([np.asarray(first), np.asarray(second)])
    ordered = np.sort(values)
    # Equal values share the mean of their ranks; twice a mean rank is a whole number.
    ranks = ordered.searchsorted(values, "left") + ordered.searchsorted(values, "right") + 1
    n, m = len(first), len(second)
    if min(n, m) <= EXACT_PAIRS:
        return _exact_p(ranks, slice(n) if n <= m else slice(n, None))
    u = float(ranks[:n].sum()) / 2.0 - n * (n + 1) / 2.0
    _, counts = np.unique(values, return_counts=True)
    ties = float((counts**3 - counts).sum()) / ((n + m) * (n + m - 1))
    variance = n * m / 12.0 * (n + m + 1 - ties)
    if variance <= 0.0:
        return 1.0
    z = max(0.0, abs(u - n * m / 2.0) - 0.5) / math.sqrt(variance)
    return math.erfc(z / math.sqrt(2.0))


def _exact_p(ranks: NDArray[np.int64], chosen: slice) -> float:
    """Return twice the smaller share of the sets with a sum of ranks at least as extreme.

    Args:
        ranks: Twice the rank of each value ``(n + m,)``.
        chosen: Where the smaller set is.
    """
    found, n = int(ranks[chosen].sum()), len(ranks[chosen])
    largest = int(np.sort(ranks)[-n:].sum())
    # Row k: how many sets of k values have each sum of ranks. Each value is in a set or not.
    counts = np.zeros((n + 1, largest + 1))
    counts[0, 0] = 1.0
    for rank in map(int, ranks):
        counts[1:, rank:] += counts[:-1, :-rank]
    of_n = counts[n]
    tail = min(float(of_n[: found + 1].sum()), float(of_n[found:].sum()))
    return min(1.0, 2.0 * tail / float(of_n.sum()))
