import math

import pytest
import torch

from flambeau.errors import InputError
from flambeau.report import bootstrap, paired_difference, wilson
from flambeau.report.intervals import bootstrap_groups, resampled_counts


def mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean(dim=1)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (9, 10), (10, 10), (500, 1000)])
def test_wilson_solves_its_defining_equation(successes: int, n: int) -> None:
    """Its ends are the shares p with |p̂ - p| = z √(p(1 - p)/n): found here by bisection."""
    z, share = 1.959963984540054, successes / n

    def end(inside: float, outside: float) -> float:
        for _ in range(200):
            middle = (inside + outside) / 2
            if abs(share - middle) <= z * math.sqrt(middle * (1 - middle) / n):
                inside = middle
            else:
                outside = middle
        return inside

    found = wilson(successes, n)
    assert found.value == share
    assert found.low == pytest.approx(end(share, 0.0), abs=1e-9)
    assert found.high == pytest.approx(end(share, 1.0), abs=1e-9)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilson_levels_and_invalid_arguments() -> None:
    assert wilson(5, 20, 0.99).low < wilson(5, 20).low
    for successes, n in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(InputError, match=f"{successes} successes in {n} trials"):
            wilson(successes, n)
    with pytest.raises(InputError, match="level"):
        wilson(1, 2, 95)


def test_the_bootstrap_of_a_mean_has_the_expected_width() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    found = bootstrap(mean, values, resamples=4000)
    half = 1.96 * float(values.std(correction=0)) / 20
    # 4,000 resamples determine an end to about 2% of the half width; 10% is five times that.
    assert found.value == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.1 * half)


def test_the_bootstrap_equals_a_loop_over_its_resamples() -> None:
    from flambeau import random as keyed

    values = torch.arange(12.0)
    draws = keyed.generator(7, "bootstrap", 12)
    rows = torch.randint(12, (300, 12), generator=draws)
    slow = sorted(float(values[row].mean()) for row in rows)

    def quantile(share: float) -> float:
        position = share * (len(slow) - 1)
        low = int(position)
        return slow[low] + (position - low) * (slow[low + 1] - slow[low])

    found = bootstrap(mean, values, resamples=300, seed=7)
    assert found.low == pytest.approx(quantile(0.025), abs=1e-5)
    assert found.high == pytest.approx(quantile(0.975), abs=1e-5)


def test_the_interval_depends_on_the_seed() -> None:
    values = torch.arange(30.0)
    assert bootstrap(mean, values) == bootstrap(mean, values)
    assert bootstrap(mean, values) != bootstrap(mean, values, seed=1)


def test_95_percent_of_intervals_contain_the_mean() -> None:
    draws = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(200):
        found = bootstrap(mean, torch.rand(60, generator=draws), resamples=200)
        hits += found.low <= 0.5 <= found.high
    # Binomial(200, .95): 5 standard deviations below is .87; n = 60 gives about .94.
    assert 0.87 <= hits / 200 <= 1


def test_a_paired_interval_is_narrower_than_separate_ones() -> None:
    draws = torch.Generator().manual_seed(0)
    hard = torch.rand(500, generator=draws)
    first = hard + 0.02 * torch.rand(500, generator=draws)
    second = hard + 0.02 * torch.rand(500, generator=draws) + 0.01
    found = paired_difference(mean, first, second)
    assert found.value == pytest.approx(float(first.mean() - second.mean()), abs=1e-6)
    assert found.low < found.value < found.high < 0
    apart = bootstrap(mean, first)
    assert found.high - found.low < (apart.high - apart.low) / 10


def test_columns_are_resampled_together() -> None:
    """A statistic of two columns receives the same rows of both."""
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    found = bootstrap(lambda a, b: (a - b).abs().amax(dim=(1, 2)), x, x)
    assert (found.low, found.value, found.high) == (0, 0, 0)


def test_invalid_columns_are_refused() -> None:
    with pytest.raises(InputError, match="1 sample"):
        bootstrap(mean, torch.ones(1))
    with pytest.raises(InputError, match=r"\[3, 4\]"):
        bootstrap(lambda a, b: a.mean(dim=1), torch.ones(3), torch.ones(4))
    with pytest.raises(InputError, match="no columns"):
        bootstrap(mean)
    with pytest.raises(InputError, match="resamples"):
        bootstrap(mean, torch.ones(3), resamples=0)


def test_groups_are_resampled_as_a_whole() -> None:
    groups = torch.tensor([5, 5, 2, 2, 2, 9])
    (counts,) = resampled_counts(6, 40, groups, seed=1)
    assert counts.shape == (40, 6)
    assert bool((counts[:, 0] == counts[:, 1]).all() and (counts[:, 2] == counts[:, 4]).all())
    # Three groups are drawn in each resample.
    assert bool((counts[:, 0] + counts[:, 2] + counts[:, 5] == 3).all())


def test_interval_of_groups_equals_a_loop() -> None:
    values = torch.tensor([1.0, 2, 4, 8, 16, 32]).double()
    groups, weights = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([1.0, 2, 1, 1, 1, 3]).double()

    def mean(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return (x * w).sum(dim=1) / w.sum(dim=1)

    found = bootstrap_groups(mean, values, groups=groups, weights=weights, resamples=30)
    (counts,) = resampled_counts(6, 30, groups)
    means = [float((values * weights * row).sum() / (weights * row).sum()) for row in counts]
    low, high = torch.tensor(means).double().quantile(torch.tensor([0.025, 0.975]).double())
    assert (found.low, found.high) == pytest.approx((float(low), float(high)))
    assert found.value == pytest.approx(float((values * weights).sum() / weights.sum()))


def test_interval_of_one_group_is_refused() -> None:
    with pytest.raises(InputError, match="1 group"):
        bootstrap_groups(lambda x, w: x.mean(dim=1), torch.ones(4), groups=torch.zeros(4))
