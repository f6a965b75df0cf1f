"""Conformal prediction: the quantile, its coverage, groups, and the stored form."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from flambeau.errors import ArgumentError, InputError
from flambeau.task.conformal import (
    MOST_STORED,
    ConformalScores,
    class_scores,
    class_sets,
    interval_scores,
)


@pytest.mark.parametrize("n", [9, 10, 19, 50, 199])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_the_quantile_is_the_order_statistic_of_the_definition(n: int, level: float) -> None:
    scores = torch.randn(n, generator=torch.Generator().manual_seed(n))
    rank = math.ceil(round((n + 1) * level, 9))
    expected = math.inf if rank > n else float(scores.double().sort().values[rank - 1])
    assert ConformalScores.of(scores).quantile(level) == expected


def test_coverage_is_exact_over_many_draws() -> None:
    # With 19 samples and a level of 0.9 the 18th smallest of 20 exchangeable scores covers exactly
    # 18/20. 20,000 draws have a standard error of 0.0021.
    draws = np.random.default_rng(0).normal(size=(20_000, 20))
    quantiles = np.sort(draws[:, :19], axis=1)[:, 17]
    assert ConformalScores.of(torch.from_numpy(draws[0, :19])).quantile(0.9) == quantiles[0]
    assert np.mean(draws[:, 19] <= quantiles) == pytest.approx(0.9, abs=0.0065)


def test_a_weight_of_two_is_two_samples() -> None:
    scores = torch.tensor([0.3, 0.1, 0.2, 0.5, 0.4])
    weights = torch.tensor([2.0, 1.0, 3.0, 1.0, 2.0])
    repeated = scores.repeat_interleave(weights.long())
    for level in (0.2, 0.5, 0.7, 0.9, 0.95):
        expected = ConformalScores.of(repeated).quantile(level)
        assert ConformalScores.of(scores, weights).quantile(level) == expected


def test_coverage_holds_for_a_row_of_a_new_group() -> None:
    # One group has 1,000 rows with small scores, 199 groups one row each: of the rows nearly all
    # are small, of the groups hardly any.
    generator = torch.Generator().manual_seed(0)
    small = 0.01 * torch.rand(1_000, generator=generator)
    large = 1 + torch.rand(199, generator=generator)
    scores = torch.cat([small, large])
    groups = torch.cat([torch.zeros(1_000), torch.arange(1, 200)])
    by_row = ConformalScores.of(scores).quantile(0.8)
    by_group = ConformalScores.of(scores, groups=groups).quantile(0.8)
    assert by_row < 0.01
    share = float((large <= by_group).double().mean())
    assert share == pytest.approx(0.8, abs=0.011)  # 0.8 * 201 of 200 groups, one of them small


def test_the_stored_form_is_short_and_never_covers_less() -> None:
    scores = torch.randn(50_001, generator=torch.Generator().manual_seed(1)).double()
    found = ConformalScores.of(scores)
    assert len(found.scores) == MOST_STORED
    read = ConformalScores.read(json.loads(json.dumps(found.arguments())))
    assert read == found
    for level in (0.5, 0.9, 0.99):
        exact = float(scores.sort().values[math.ceil(50_002 * level) - 1])
        share = float((scores <= read.quantile(level)).double().mean())
        assert read.quantile(level) >= exact
        assert level <= share <= level + 1.5 / MOST_STORED
    few = ConformalScores.of(scores[:30])
    assert "cumulated" not in few.arguments()
    assert ConformalScores.read(json.loads(json.dumps(few.arguments()))) == few


def test_sets_contain_the_class_and_are_never_empty() -> None:
    generator = torch.Generator().manual_seed(2)
    p = torch.randn(4_000, 4, generator=generator).double().softmax(dim=1)
    targets = torch.multinomial(p, 1, generator=generator).squeeze(1)
    quantile = ConformalScores.of(class_scores(p[:2_000], targets[:2_000])).quantile(0.9)
    sets = class_sets(p[2_000:], quantile)
    covered = sets.gather(1, targets[2_000:, None]).double().mean()
    assert float(covered) == pytest.approx(0.9, abs=0.025)  # standard error .0095 of both parts
    assert int(sets.sum(dim=1).min()) >= 1
    assert class_sets(torch.tensor([[0.6, 0.4]]), quantile=0.1).tolist() == [[True, False]]


def test_scores_of_intervals() -> None:
    targets = torch.tensor([0.0, 2.0, 5.0])
    low, high = torch.tensor([1.0, 1.0, 1.0]), torch.tensor([4.0, 4.0, 4.0])
    assert interval_scores(targets, low, high).tolist() == [1.0, -1.0, 1.0]
    point = torch.tensor([1.0, 1.0, 1.0])
    assert interval_scores(targets, point, point).tolist() == [1.0, 1.0, 4.0]


def test_too_few_samples_give_an_infinite_interval() -> None:
    assert ConformalScores.of(torch.rand(8)).quantile(0.9) == math.inf
    assert ConformalScores.of(torch.rand(9)).quantile(0.9) < 1


@pytest.mark.parametrize("level", [0, 1, 1.5, -0.1, True, "0.9", 90])
def test_a_level_that_is_no_share_is_refused(level: object) -> None:
    with pytest.raises(ArgumentError, match="must be a share between 0 and 1"):
        ConformalScores.of(torch.rand(20)).quantile(level)


def test_no_samples_and_nan_are_refused() -> None:
    with pytest.raises(InputError, match="no calibration samples"):
        ConformalScores.of(torch.empty(0))
    with pytest.raises(InputError, match="1 of 2 calibration samples have a nan"):
        ConformalScores.of(torch.tensor([1.0, float("nan")]))
