"""Intervals and slopes compared with closed forms and NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flambeau.errors import InputError
from flambeau_bench.interval import MIN_PAIRS, Interval, median_interval
from flambeau_bench.timing import LONG_FACTOR, slope


def test_few_pairs_give_their_range() -> None:
    values = [4.0, 1.0, 3.0, 2.0]
    assert median_interval(values) == Interval(2.5, 1.0, 4.0, 4)
    assert len(values) < MIN_PAIRS


def test_equal_pairs_give_a_point() -> None:
    assert median_interval([7.0] * 20) == Interval(7.0, 7.0, 7.0, 20)


def test_no_pairs_is_an_error() -> None:
    with pytest.raises(InputError, match="every pair was invalid"):
        median_interval([])


def test_bootstrap_equals_order_statistics() -> None:
    """For odd n the bootstrap median is an order statistic with binomial probabilities."""
    n = 15
    values = np.random.default_rng(3).normal(size=n)
    ordered = np.sort(values)

    def probability_at_most(rank: int) -> float:
        """P(median of a resample <= ordered[rank]): at least 8 of 15 draws among the lowest."""
        p = (rank + 1) / n
        return sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n // 2 + 1, n + 1))

    low = next(r for r in range(n) if probability_at_most(r) >= 0.025)
    high = next(r for r in range(n) if probability_at_most(r) >= 0.975)
    found = median_interval(values.tolist())
    assert found.median == np.median(values)
    # The probabilities of these ranks are .044 and .987. Their distance from .025 and .975 is large
    # compared with the noise of 4,000 draws, .0025.
    assert found.low == ordered[low]
    assert found.high == ordered[high]


def test_the_same_pairs_give_the_same_interval() -> None:
    values = np.random.default_rng(0).normal(size=30).tolist()
    assert median_interval(values) == median_interval(values)


def test_the_interval_contains_the_median_in_about_95_percent() -> None:
    draws = np.random.default_rng(1)
    contained = 0
    for seed in range(200):
        found = median_interval(draws.normal(5.0, 1.0, size=21).tolist(), seed)
        contained += found.low <= 5.0 <= found.high
    # The standard deviation of 200 trials at .95 is .015; the interval of 21 values is too narrow.
    assert 0.88 <= contained / 200 <= 1.0


def test_the_slope_of_a_line_is_exact() -> None:
    runs: list[int] = []

    def seconds(steps: int) -> float:
        runs.append(steps)
        return 0.003 + 250e-6 * steps

    line = slope(seconds, 40)
    assert runs == [40, LONG_FACTOR * 40]
    assert line.per_step_us == pytest.approx(250.0)
    assert line.fixed_ms == pytest.approx(3.0)


def test_slope_needs_steps() -> None:
    with pytest.raises(InputError, match="at least one step"):
        slope(lambda steps: 0.0, 0)
