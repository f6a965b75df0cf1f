"""Which rate the comparison of short runs tries next, and which it takes, on losses made up."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from flambeau.tuning.lr_curve import Level
from flambeau.tuning.lr_race import (
    STEP,
    ShortRun,
    is_noisy,
    losses_of,
    next_number,
    range_of,
    rate_of,
    why_no_decrease,
)

LENGTH = 12


def run(
    number: int, loss: float, batch_order: int = 1, scatter: float = 0.0, seed: int = 0
) -> ShortRun:
    if math.isinf(loss):
        return ShortRun(number, batch_order, STEP**number, LENGTH, (1.0, 2.0, math.inf))
    noise = torch.randn(LENGTH, generator=torch.Generator().manual_seed(seed)) * scatter
    return ShortRun(number, batch_order, STEP**number, LENGTH, tuple((loss + noise).tolist()))


def race(loss: Callable[[int], float]) -> list[ShortRun]:
    runs: list[ShortRun] = []
    while (number := next_number(runs)) is not None:
        assert number not in losses_of(runs)
        runs.append(run(number, loss(number)))
        assert len(runs) < 20
    return runs


@pytest.mark.parametrize("lowest", [-5.0, -1.3, 0.0, 0.4, 3.0])
def test_a_parabola_is_found_exactly(lowest: float) -> None:
    runs = race(lambda k: 1.0 + 0.1 * (k - lowest) ** 2)
    assert rate_of(runs) == pytest.approx(STEP ** (lowest + 0.4))  # for a longer run
    low, high = range_of(runs)
    assert low < rate_of(runs) < high
    assert not is_noisy(runs)
    losses = losses_of(runs)
    best = min(losses, key=losses.__getitem__)
    assert {best - 1, best + 1} <= set(losses), "a worse one on either side"


def test_half_a_step_below_the_best_if_the_next_diverges() -> None:
    runs = race(lambda k: math.inf if k > 1 else 1.0 - 0.1 * k)
    assert rate_of(runs) == pytest.approx(STEP**0.5)
    # As it would where the rate above is finite but far worse.
    runs = race(lambda k: 1e9 if k > 1 else 1.0 - 0.1 * k)
    assert rate_of(runs) == pytest.approx(STEP ** (0.5 + 0.4), rel=1e-3)


def test_lower_rates_are_tried_if_all_diverge() -> None:
    assert next_number([run(0, math.inf)]) == -2
    runs = race(lambda k: math.inf if k > -4 else 1.0 + 0.1 * abs(k + 5))
    assert min(losses_of(runs)) < -4
    assert rate_of(runs) <= STEP**-4


def test_higher_rates_are_tried_if_losses_are_equal() -> None:
    """The next one is worse by less than the noise: the one after it is looked at as well."""

    def loss(k: int) -> ShortRun:
        return run(k, 1.0 + 0.01 * abs(k), scatter=0.5, seed=k + 10)

    runs = [loss(-1), loss(0), loss(1)]
    losses = losses_of(runs)
    best = min(losses, key=losses.__getitem__)
    assert is_noisy(runs)
    assert next_number(runs) == (best - 1 if best - 1 not in losses else max(losses) + 1)
    low, high = range_of(runs)
    assert high / low > STEP**2 * 0.999


def test_runs_are_compared_on_the_same_batches() -> None:
    """Batches that scatter alike for both say which is better; other batches do not."""
    paired = [run(0, 1.0, scatter=0.5, seed=3), run(1, 1.02, scatter=0.5, seed=3)]
    assert not is_noisy(paired)
    apart = [run(0, 1.0, scatter=0.5, seed=3), run(1, 1.02, batch_order=2, scatter=0.5, seed=4)]
    assert is_noisy(apart)


def test_repeats_are_averaged() -> None:
    runs = [run(0, 1.0), run(0, 2.0, batch_order=2), run(1, 1.4)]
    assert losses_of(runs) == {0: pytest.approx(1.5), 1: pytest.approx(1.4)}


def test_no_rate_without_a_significant_decrease() -> None:
    level = Level(2.0, 0.3, 10)
    assert "does not decrease at any learning rate" in why_no_decrease(
        level, [run(0, 1.9), run(1, 1.95)]
    )
    assert why_no_decrease(level, [run(0, 1.0), run(1, 1.95)]) == ""
    assert "all 2 short runs" in why_no_decrease(level, [run(0, math.inf), run(-2, math.inf)])
    # Without any scatter, a hundredth.
    still = Level(2.0, 0.0, 10)
    assert why_no_decrease(still, [run(0, 1.99)])
    assert why_no_decrease(still, [run(0, 1.97)]) == ""
