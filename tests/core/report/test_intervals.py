import math

import pytest
import torch

from flambeau.errors import InputError
from flambeau.report import bootstrap, paired_difference, wilson


def mean(values: torch.Tensor) -> torch.Tensor:
    return values.mean(dim=1)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 10), (9, 10), (10, 10), (500, 1000)])
def test_wilson_solves_its_equation(successes: int, n: int) -> None:
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


def test_wilson_is_wider_at_a_higher_level_and_refuses_what_is_no_share() -> None:
    assert wilson(5, 20, 0.99).low < wilson(5, 20).low
    for successes, n in ((1, 0), (-1, 5), (6, 5)):
        with pytest.raises(InputError, match=f"{successes} in {n}"):
            wilson(successes, n)
    with pytest.raises(InputError, match="level"):
        wilson(1, 2, 95)


def test_the_bootstrap_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = torch.randn(400, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 3
    found = bootstrap(mean, values, resamples=4000)
    half = 1.96 * float(values.std(correction=0)) / 20
    # 4,000 resamples fix an end to about 2% of the half width; 10% leaves five deviations.
    assert found.value == pytest.approx(float(values.mean()))
    assert found.low == pytest.approx(found.value - half, abs=0.1 * half)
    assert found.high == pytest.approx(found.value + half, abs=0.1 * half)


def test_the_bootstrap_equals_a_slow_loop_over_its_draws() -> None:
    from flambeau import random as keyed

    values = torch.arange(12.0)
    draws = keyed.generator(7, "bootstrap", 12)
    rows = torch.randint(12, (300, 12), generator=draws)
    slow = sorted(float(values[row].mean()) for row in rows)

    def quantile(share: float) -> float:
        place = share * (len(slow) - 1)
        low = int(place)
        return slow[low] + (place - low) * (slow[low + 1] - slow[low])

    found = bootstrap(mean, values, resamples=300, seed=7)
    assert found.low == pytest.approx(quantile(0.025), abs=1e-5)
    assert found.high == pytest.approx(quantile(0.975), abs=1e-5)


def test_the_same_seed_gives_the_same_interval_and_another_one_does_not() -> None:
    values = torch.arange(30.0)
    assert bootstrap(mean, values) == bootstrap(mean, values)
    assert bootstrap(mean, values) != bootstrap(mean, values, seed=1)


def test_95_of_100_intervals_hold_the_truth() -> None:
    draws = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(200):
        found = bootstrap(mean, torch.rand(60, generator=draws), resamples=200)
        held += found.low <= 0.5 <= found.high
    # Binomial(200, .95): 5 deviations below is .87; percentile intervals of 60 hold about .94.
    assert 0.87 <= held / 200 <= 1


def test_pairs_make_a_narrower_interval_than_two_models_apart() -> None:
    draws = torch.Generator().manual_seed(0)
    hard = torch.rand(500, generator=draws)
    first = hard + 0.02 * torch.rand(500, generator=draws)
    second = hard + 0.02 * torch.rand(500, generator=draws) + 0.01
    found = paired_difference(mean, first, second)
    assert found.value == pytest.approx(float(first.mean() - second.mean()), abs=1e-6)
    assert found.low < found.value < found.high < 0
    apart = bootstrap(mean, first)
    assert found.high - found.low < (apart.high - apart.low) / 10


def test_columns_stay_together() -> None:
    """A statistic of two columns sees the same rows of both."""
    x = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    found = bootstrap(lambda a, b: (a - b).abs().amax(dim=(1, 2)), x, x)
    assert (found.low, found.value, found.high) == (0, 0, 0)


def test_what_cannot_be_resampled_is_refused() -> None:
    with pytest.raises(InputError, match="1 sample"):
        bootstrap(mean, torch.ones(1))
    with pytest.raises(InputError, match=r"\[3, 4\]"):
        bootstrap(lambda a, b: a.mean(dim=1), torch.ones(3), torch.ones(4))
    with pytest.raises(InputError, match="none"):
        bootstrap(mean)
    with pytest.raises(InputError, match="resamples"):
        bootstrap(mean, torch.ones(3), resamples=0)
