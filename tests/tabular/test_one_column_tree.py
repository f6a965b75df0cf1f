"""The tree of one column equals scikit-learn's, and its scores do not depend on the rows' order."""

from __future__ import annotations

import numpy as np
import pytest

from flambeau_tabular.leaks.one_column_tree import (
    auroc,
    auroc_alone,
    fit_tree,
    held_out_means,
    r2_alone,
)


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("leaf", [5, 40])
def test_the_tree_is_that_of_scikit_learn(width: int, leaf: int) -> None:
    tree = pytest.importorskip("sklearn.tree")
    draws = np.random.default_rng(width)
    x = draws.normal(size=1500).round(2)
    y = np.stack([np.sin(3 * x + at) + draws.normal(0, 0.3, 1500) for at in range(width)], axis=1)
    reference = tree.DecisionTreeRegressor(max_leaf_nodes=64, min_samples_leaf=leaf, random_state=0)
    reference.fit(x[:, None], y)
    found = fit_tree(x, y, is_ordered=True, leaf=leaf)
    assert len(found.means) - 2 == reference.get_n_leaves()
    at = np.linspace(-4, 4, 1001) + 0.0013  # not on a cut
    expected = reference.predict(at[:, None]).reshape(-1, width)
    np.testing.assert_allclose(found.predict(at), expected, rtol=0, atol=1e-12)


def test_auroc_is_that_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    draws = np.random.default_rng(0)
    scores = draws.random(400).round(1)
    positive = draws.random(400) < scores
    assert auroc(scores, positive) == pytest.approx(metrics.roc_auc_score(positive, scores), 1e-12)
    assert np.isnan(auroc(scores, np.ones(400, bool)))


def test_rows_are_scored_by_the_other_half_only() -> None:
    # Sorted by the column: rows 0, 2, 4 … fit for rows 1, 3, 5 …, and the reverse.
    values = np.repeat([1.0, 2.0, np.nan], 4)
    wanted = np.array([0, 0, 1, 1, 5, 5, 5, 5, 7, 7, 9, 9.0])[:, None]
    found = held_out_means(values, wanted, is_ordered=False)
    np.testing.assert_array_equal(found[:, 0], [0.5] * 4 + [5.0] * 4 + [8.0] * 4)
    # A column with another value in each row predicts nothing: the mean of the other half.
    every = held_out_means(np.arange(12.0), wanted, is_ordered=False)
    np.testing.assert_allclose(every[::2, 0], wanted[1::2].mean())


@pytest.mark.parametrize("is_ordered", [True, False])
def test_scores_do_not_depend_on_the_order_of_rows(is_ordered: bool) -> None:
    draws = np.random.default_rng(0)
    x = draws.integers(0, 40, 600).astype(float)
    x[draws.random(600) < 0.1] = np.nan
    y = np.nan_to_num(x, nan=5) + draws.normal(0, 20, 600)
    classes = (y > 20)[:, None] == np.array([False, True])
    order = draws.permutation(600)
    r2 = r2_alone(x, y, is_ordered=is_ordered)
    assert r2_alone(x[order], y[order], is_ordered=is_ordered) == pytest.approx(r2, abs=1e-12)
    assert 0.05 < r2 < 0.5
    score = auroc_alone(x, classes.astype(float), is_ordered=is_ordered)
    found = auroc_alone(x[order], classes[order].astype(float), is_ordered=is_ordered)
    assert found == pytest.approx(score, abs=1e-12)


def test_noise_predicts_nothing() -> None:
    draws = np.random.default_rng(0)
    for is_ordered in (True, False):
        for n in (50, 2000):
            x = draws.integers(0, n, n).astype(float)
            assert r2_alone(x, draws.normal(size=n), is_ordered=is_ordered) < 0.1
            classes = draws.random((n, 1)) < [[0.2, 2]]
            classes[:, 1] = ~classes[:, 0]
            assert abs(auroc_alone(x, classes.astype(float), is_ordered=is_ordered) - 0.5) < 0.2
