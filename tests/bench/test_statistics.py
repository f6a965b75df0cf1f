"""Intervals and slopes against closed forms and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flambeau.errors import InputError
from flambeau_bench.interval import LEAST_PAIRS, Interval, median_interval
from flambeau_bench.timing import LONGER, slope


def test_few_pairs_give_their_range() -> None:
    values = [4.0, 1.0, 3.0, 2.0]
    assert median_interval(values) == Interval(2.5, 1.0, 4.0, 4)
    assert len(values) < LEAST_PAIRS


def test_equal_pairs_give_a_point() -> None:
    assert median_interval([7.0] * 20) == Interval(7.0, 7.0, 7.0, 20)


def test_no_pair_is_an_error() -> None:
    with pytest.raises(InputError, match="every one was void"):
        median_interval([])


def test_bootstrap_against_the_order_statistics() -> None:
    """For odd n the bootstrap median is an order statistic, whose chances are binomial sums."""
    n = 15
    values = np.random.default_rng(3).normal(size=n)
    ordered = np.sort(values)

    def chance_at_most(rank: int) -> float:
        """P(median of a resample <= ordered[rank]): at least 8 of 15 draws among the lowest."""
        p = (rank + 1) / n
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n // 2 + 1, n + 1))

    low = next(r for r in range(n) if chance_at_most(r) >= 0.025)
    high = next(r for r in range(n) if chance_at_most(r) >= 0.975)
    found = median_interval(values.tolist())
    assert found.median == np.median(values)
    # The chances of these ranks are .044 and .987: far from .025 and .975 by 4,000 draws' noise
    # of .0025.
    assert found.low == ordered[low]
    assert found.high == ordered[high]


def test_the_same_pairs_give_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=30).tolist()
    assert median_interval(values) == median_interval(values)


def test_interval_holds_the_true_median_about_as_often_as_it_says() -> None:
    draws = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        found = median_interval(draws.normal(5.0, 1.0, size=21).tolist(), seed)
        held += found.low <= 5.0 <= found.high
    # 200 trials at .95 have a deviation of .015; the percentile interval of 21 is a little narrow.
    assert 0.88 <= held / 200 <= 1.0


def test_slope_of_a_line_is_that_line() -> None:
    asked: list[int] = []

    def seconds(steps: int) -> float:
        asked.append(steps)
        return 0.003 + 250e-6 * steps

    line = slope(seconds, 40)
    assert asked == [40, LONGER * 40]
    assert line.per_step_us == pytest.approx(250.0)
    assert line.fixed_ms == pytest.approx(3.0)


def test_slope_needs_steps() -> None:
    with pytest.raises(InputError, match="at least one step"):
        slope(lambda steps: 0.0, 0)
