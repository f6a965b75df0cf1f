"""``mann_whitney_p`` with ties and few values, against all orders of the values."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from flambeau.report.rank_test import EXACT_PAIRS, mann_whitney_p


def p_of_all_orders(first: list[float], second: list[float]) -> float:
    """Return the two-sided p-value by drawing every first group from the values."""
    ranks = stats.rankdata([*first, *second])
    n = len(first)
    found = ranks[:n].sum()
    sums = np.array([sum(each) for each in combinations(ranks, n)])
    tails = (sums <= found + 1e-9).mean(), (sums >= found - 1e-9).mean()
    return min(1.0, 2.0 * min(tails))


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ([0.5] * 4, [0.9] * 4),
        ([0.5, 0.5, 0.6, 0.6], [0.9, 0.9, 0.9, 0.8]),
        ([0.5, 0.6, 0.7, 0.7, 0.8], [0.7, 0.7, 0.8, 0.9]),
        ([0.9, 0.7, 0.7], [0.7, 0.5, 0.4, 0.4, 0.4, 0.3, 0.3]),
        ([0.4, 0.4, 0.5, 0.3, 0.3, 0.3, 0.2], [0.9, 0.4, 0.4]),
        ([0.5] * 3, [0.5] * 4),
        ([1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]),
    ],
)
def test_the_p_value_is_that_of_all_orders(first: list[float], second: list[float]) -> None:
    assert mann_whitney_p(first, second) == pytest.approx(p_of_all_orders(first, second), rel=1e-12)


def test_tied_values_of_few_runs_are_no_surer_than_distinct_ones() -> None:
    assert mann_whitney_p([0.5] * 4, [0.9] * 4) == pytest.approx(2 / 70)


def test_many_values_beside_a_few_have_an_exact_p_value() -> None:
    draws = np.random.default_rng(0)
    few, many = draws.normal(1.0, size=EXACT_PAIRS), draws.normal(size=500)
    expected = stats.mannwhitneyu(few, many, method="exact").pvalue
    assert mann_whitney_p(list(few), list(many)) == pytest.approx(expected, rel=1e-9)
    assert mann_whitney_p(list(many), list(few)) == pytest.approx(expected, rel=1e-9)
