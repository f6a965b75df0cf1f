"""``FoldScores`` against slow loops over all rows, and the coverage of its intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flambeau.errors import ArgumentError, InputError
from flambeau.task.conformal import ConformalScores, class_sets
from flambeau.task.fold_scores import FoldScores

SIZES = (7, 12, 9)


def draws(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def some_scores(weights: bool = False) -> tuple[FoldScores, list[torch.Tensor], list[torch.Tensor]]:
    generator = draws()
    scores = [torch.rand(n, generator=generator, dtype=torch.float64) for n in SIZES]
    each = [torch.ones(n, dtype=torch.float64) for n in SIZES]
    if weights:
        each = [torch.randint(1, 4, (n,), generator=generator).double() for n in SIZES]
    return FoldScores.of(scores, each, [None] * 3), scores, each


@pytest.mark.parametrize("weights", [False, True])
@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_the_ends_are_those_of_a_loop_over_all_rows(level: float, weights: bool) -> None:
    found, scores, each = some_scores(weights)
    low = torch.randn(20, 3, generator=draws(1), dtype=torch.float64)
    high = low + torch.rand(20, 3, generator=draws(2), dtype=torch.float64)
    lower, upper = found.ends(low, high, level)
    total = sum(float(weight.sum()) for weight in each)
    for row in range(20):
        above = sorted(
            (float(high[row, k] + score), float(weight))
            for k in range(3)
            for score, weight in zip(scores[k], each[k], strict=True)
        )
        below = sorted(
            (-float(low[row, k] - score), float(weight))
            for k in range(3)
            for score, weight in zip(scores[k], each[k], strict=True)
        )
        for values, end in ((above, float(upper[row])), (below, -float(lower[row]))):
            wanted = level * (total + 1) - 1e-9
            reached = np.cumsum([weight for _, weight in values])
            value = values[int(np.argmax(reached >= wanted))][0]
            assert end == pytest.approx(value, abs=1e-12)


def test_the_ends_are_the_ranks_of_the_paper() -> None:
    """The ends have the ranks of Barber et al., section 3: ⌊α(n+1)⌋ and ⌈(1-α)(n+1)⌉."""
    found, scores, _ = some_scores()
    center = torch.tensor([[0.3, -0.2, 0.1]], dtype=torch.float64)
    lower, upper = found.ends(center, center, 0.8)
    n = sum(SIZES)
    below = np.sort(np.concatenate([float(center[0, k]) - scores[k].numpy() for k in range(3)]))
    above = np.sort(np.concatenate([float(center[0, k]) + scores[k].numpy() for k in range(3)]))
    assert float(lower[0]) == pytest.approx(below[math.floor(0.2 * (n + 1)) - 1], abs=1e-12)
    assert float(upper[0]) == pytest.approx(above[math.ceil(0.8 * (n + 1)) - 1], abs=1e-12)


def test_too_few_rows_give_infinite_ends_and_all_classes() -> None:
    found, _, _ = some_scores()
    lower, upper = found.ends(torch.zeros(1, 3), torch.zeros(1, 3), 0.99)
    assert (float(lower[0]), float(upper[0])) == (-math.inf, math.inf)
    assert bool(found.class_sets(torch.full((1, 3, 4), 0.25), 0.99).all())


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
def test_the_sets_are_those_of_a_loop_over_all_rows(level: float) -> None:
    found, scores, _ = some_scores()
    p = torch.randn(30, 3, 4, generator=draws(3), dtype=torch.float64).softmax(dim=2)
    sets = found.class_sets(p, level)
    for row in range(30):
        best = int(p[row].mean(dim=0).argmax())
        for label in range(4):
            smaller = sum(int((scores[k] < 1 - p[row, k, label]).sum()) for k in range(3))
            expected = smaller < level * (sum(SIZES) + 1) - 1e-9 or label == best
            assert bool(sets[row, label]) == expected


def test_one_fold_is_split_conformal() -> None:
    scores = torch.rand(40, generator=draws(), dtype=torch.float64)
    found = FoldScores.of([scores], [torch.ones(40)], [None])
    quantile = ConformalScores.of(scores).quantile(0.9)
    center = torch.randn(9, 1, generator=draws(1), dtype=torch.float64)
    lower, upper = found.ends(center, center, 0.9)
    assert torch.allclose(upper, center[:, 0] + quantile, rtol=0, atol=1e-12)
    assert torch.allclose(lower, center[:, 0] - quantile, rtol=0, atol=1e-12)
    p = torch.randn(50, 1, 5, generator=draws(2), dtype=torch.float64).softmax(dim=2)
    assert torch.equal(found.class_sets(p, 0.9), class_sets(p[:, 0], quantile))


def test_negative_scores_narrow_to_one_point_at_most() -> None:
    found = FoldScores.of([torch.full((20,), -3.0)], [torch.ones(20)], [None])
    lower, upper = found.ends(torch.tensor([[0.0]]), torch.tensor([[2.0]]), 0.8)
    assert float(lower[0]) == float(upper[0]) == pytest.approx(1.0)


def test_scores_of_many_rows_never_cover_less_than_all_of_them() -> None:
    scores = [torch.randn(n, generator=draws(n)).abs().double() for n in (5_000, 7_000)]
    found = FoldScores.of(scores, [torch.ones(len(each)) for each in scores], [None, None])
    assert sum(len(each.scores) for each in found.folds) == 4_000
    center = torch.randn(50, 2, generator=draws(1), dtype=torch.float64)
    _, upper = found.ends(center, center, 0.9)
    rank = math.ceil(0.9 * 12_001)
    for row in range(50):
        every = torch.cat([center[row, k] + scores[k] for k in (0, 1)]).sort().values
        above = int((every < upper[row]).sum()) + 1
        assert rank <= above <= rank + 12


def test_they_are_stored_as_json_and_damaged_ones_refused() -> None:
    found, _, _ = some_scores(weights=True)
    assert FoldScores.read(found.arguments()) == found
    with pytest.raises(InputError, match="damaged"):
        FoldScores.read([{"scores": [1.0]}])
    with pytest.raises(ArgumentError, match="share between 0 and 1"):
        found.ends(torch.zeros(1, 3), torch.zeros(1, 3), 1.0)


def test_mean_coverage_of_cv_plus_intervals() -> None:
    """200 draws of 60 rows and 40 new ones: 8,000 new targets, and a guarantee of 1 - 2α at least.

    For a stable model such as least squares the coverage is close to 1 - α; the standard error of
    the mean over the draws is about 0.004.
    """
    numbers, covered = np.random.default_rng(0), []
    for _ in range(200):
        x, new = numbers.normal(size=(60, 5)), numbers.normal(size=(40, 5))
        y, y_new = (each.sum(1) + numbers.standard_t(4, len(each)) for each in (x, new))
        scores, centers = [], []
        for fold in range(5):
            own = np.arange(60) % 5 == fold
            weights = np.linalg.lstsq(x[~own], y[~own], rcond=None)[0]
            scores.append(torch.tensor(np.abs(y[own] - x[own] @ weights)))
            centers.append(torch.tensor(new @ weights))
        found = FoldScores.of(scores, [torch.ones(12)] * 5, [None] * 5)
        center = torch.stack(centers, dim=1)
        low, high = found.ends(center, center, 0.9)
        covered.append(
            float(((low <= torch.tensor(y_new)) & (torch.tensor(y_new) <= high)).double().mean())
        )
    assert np.mean(covered) == pytest.approx(0.91, abs=0.02)
