"""Importance, dependence, slices, drift and cards against scikit-learn, scipy and slow loops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.calibration import calibration_curve
from sklearn.inspection import partial_dependence as sklearn_dependence
from sklearn.inspection import permutation_importance as sklearn_importance
from torch import Tensor, nn

from flambeau import Learner
from flambeau.errors import ArgumentError
from flambeau_tabular import TabularData
from flambeau_tabular.report import importance
from flambeau_tabular.report.associations import association
from flambeau_tabular.report.calibration_sections import covered_rows
from flambeau_tabular.report.cards import column_cards
from flambeau_tabular.report.cards_block import CardsBlock
from flambeau_tabular.report.dependence import partial_dependence
from flambeau_tabular.report.drift import (
    cumulative_distance,
    permuted_sides,
    table_drift,
    variation_distance,
)
from flambeau_tabular.report.importance import permutation_importance
from flambeau_tabular.report.measures import Rows
from flambeau_tabular.report.scored import scored_of
from flambeau_tabular.report.slices import difference, holm, slices_of_column, worst_slices
from flambeau_tabular.report.views import View

N = 400


class Known(nn.Module):
    """A fixed function of the columns, so that nothing has to be trained."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, numbers: Tensor, flags: Tensor, categories: Tensor) -> Tensor:
        score = numbers[:, 0] * (numbers[:, 1] + 1)
        if categories.shape[1]:
            score = score + 0.7 * (categories[:, 0] == 3)
        score = self.scale * score
        return torch.stack([-score, score], dim=1)


def frame(seed: int = 0, n: int = N) -> pd.DataFrame:
    draws = np.random.default_rng(seed)
    found = pd.DataFrame(
        {
            "a": draws.normal(size=n),
            "b": draws.normal(size=n),
            "c": draws.integers(0, 12, n) + 0.5,
            "job": draws.choice(["clerk", "nurse", "pilot"], n),
        }
    )
    score = found["a"] * (found["b"] + 1) + (found["job"] == "nurse") + draws.normal(0, 0.5, n)
    found["y"] = np.where(score > 0, "yes", "no")
    return found


def learner(table: pd.DataFrame | None = None, **options: Any) -> Learner:
    table = frame() if table is None else table
    given = {"valid": 0.3, "test": 0.3, **options}
    return Learner(TabularData.from_df(table, "y", **given), Known(), quiet=True)


class Estimator(ClassifierMixin, BaseEstimator):
    """The model of a learner for scikit-learn."""

    def __init__(self, fitted: Learner, columns: list[str]) -> None:
        self.fitted, self.columns = fitted, columns
        self.classes_ = np.array(["no", "yes"])
        self.fitted_ = True

    def fit(self, x: Any, y: Any) -> Estimator:
        return self

    def predict_proba(self, x: Any) -> np.ndarray:
        found = self.fitted.predict(pd.DataFrame(x, columns=self.columns))
        return found[["no", "yes"]].to_numpy()


def numbers_only() -> tuple[Learner, pd.DataFrame]:
    fitted = learner(frame().drop(columns="job"))
    rows = frame().drop(columns="job").iloc[fitted.data.split.test]
    return fitted, rows


# ---------------------------------------------------------------- what the model does


def test_importance_equals_scikit_learn_with_its_permutations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fitted, rows = numbers_only()
    x, y = rows[["a", "b", "c"]], rows["y"]
    expected = sklearn_importance(
        Estimator(fitted, ["a", "b", "c"]),
        x,
        y,
        scoring="neg_log_loss",
        n_repeats=4,
        random_state=3,
    )
    state = np.random.RandomState(np.random.RandomState(3).randint(np.iinfo(np.int32).max + 1))
    orders, order, reached = [], np.arange(len(x)), np.arange(len(x))
    for _ in range(4):  # it permutes the permuted column again
        state.shuffle(order)
        reached = reached[order]
        orders.append(torch.from_numpy(reached))
    monkeypatch.setattr(importance, "permutations", lambda n, repeats, seed: orders)
    found = permutation_importance(fitted.interpret("test"), repeats=4)
    assert [found[name].value for name in "abc"] == pytest.approx(
        expected.importances_mean, abs=1e-6
    )
    assert found["a"].low < found["a"].value < found["a"].high
    assert found["c"].value == 0


def test_columns_that_say_the_same_are_permuted_together() -> None:
    table = frame()
    table["a2"] = table["a"] ** 3  # equal ranks
    found = permutation_importance(learner(table).interpret("test"))
    assert found.members["a + a2"] == ("a", "a2")
    alone = permutation_importance(learner(table).interpret("test"), groups={})
    assert set(alone) == {"a", "a2", "b", "c", "job"}
    with pytest.raises(ArgumentError, match="'d'"):
        permutation_importance(learner().interpret("test"), groups={"all": ["a", "d"]})


def test_dependence_on_a_number_equals_scikit_learn() -> None:
    fitted, rows = numbers_only()
    wrapped = Estimator(fitted, ["a", "b", "c"])
    found = {
        each.column: each
        for each in partial_dependence(fitted.interpret("test"), ["a", "c"], points=9)
    }
    for at, name in enumerate(["a", "c"]):
        each = found[name]
        x = rows[["a", "b", "c"]].to_numpy()
        expected = sklearn_dependence(
            wrapped,
            x,
            [2 * at],
            kind="both",
            method="brute",
            response_method="predict_proba",
            custom_values={2 * at: np.array(each.grid)},
        )
        assert each.mean[:, 0] == pytest.approx(expected["average"][0], abs=1e-6)
        ends = np.quantile(expected["individual"][0], [0.1, 0.9], axis=0)
        assert each.spread == pytest.approx(ends.T, abs=1e-6)
    # More than 9 distinct values: from the 5% to the 95% quantile; else all of them.
    assert found["a"].grid == pytest.approx(np.linspace(*np.quantile(rows["a"], [0.05, 0.95]), 9))
    few = partial_dependence(fitted.interpret("test"), ["c"], points=12)[0]
    assert few.grid == tuple(np.unique(rows["c"]))


def test_dependence_on_a_category_equals_a_loop() -> None:
    fitted = learner()
    rows = frame().iloc[fitted.data.split.test].drop(columns="y")
    found = partial_dependence(fitted.interpret("test"), ["job"])[0]
    assert found.grid == ("clerk", "nurse", "pilot")
    assert found.outputs == ("yes",)
    means = [fitted.predict(rows.assign(job=job))["yes"].mean() for job in found.grid]
    assert found.mean[:, 0] == pytest.approx(means, abs=1e-6)
    with pytest.raises(ArgumentError, match="jbo"):
        partial_dependence(fitted.interpret("test"), ["jbo"])


def test_dependence_on_a_date_uses_dates_of_the_rows() -> None:
    table = frame()
    days = np.random.default_rng(1).integers(0, 60, N)
    table["day"] = pd.Timestamp("2024-03-01", tz="UTC") + pd.to_timedelta(days, unit="D")
    fitted = learner(table)
    found = partial_dependence(fitted.interpret("test"), ["day"], points=5)[0]
    rows = table.iloc[fitted.data.split.test].drop(columns="y")
    first = pd.Timestamp(found.grid[0], unit="us", tz="UTC")
    assert found.mean[0, 0] == pytest.approx(fitted.predict(rows.assign(day=first))["yes"].mean())


# ---------------------------------------------------------------- rows


def test_difference_without_groups_has_the_error_of_two_means() -> None:
    draws = np.random.default_rng(0)
    losses, chosen = draws.normal(size=200), draws.random(200) < 0.3
    rows = Rows(torch.zeros(200))
    one, other, error = difference(torch.from_numpy(chosen), torch.from_numpy(losses), rows)
    expected = scipy.stats.ttest_ind(losses[chosen], losses[~chosen], equal_var=False)
    # Welch divides by n - 1 on each side, here by n of all rows.
    assert (one - other) / error == pytest.approx(expected.statistic, rel=0.01)


def test_difference_of_groups_equals_a_loop() -> None:
    draws = np.random.default_rng(0)
    groups = draws.integers(0, 25, 200)
    losses = draws.normal(size=200) + draws.normal(size=25)[groups]
    chosen, weights = draws.random(200) < 0.4, draws.uniform(0.5, 2, 200)
    rows = Rows(torch.zeros(200), torch.from_numpy(weights), torch.from_numpy(groups))
    one, other, error = difference(torch.from_numpy(chosen), torch.from_numpy(losses), rows)
    assert one == pytest.approx(np.average(losses[chosen], weights=weights[chosen]))
    total = 0.0
    for group in range(25):
        part = 0.0
        for at in np.flatnonzero(groups == group):
            side = chosen if chosen[at] else ~chosen
            sign, mean = (1, one) if chosen[at] else (-1, other)
            part += sign * weights[at] / weights[side].sum() * (losses[at] - mean)
        total += part**2
    assert error == pytest.approx(np.sqrt(total * 25 / 24))


def test_holm_equals_its_definition() -> None:
    p = [0.01, 0.04, 0.03, 0.5]
    # Sorted: 0.01·4, 0.03·3, max(0.09, 0.04·2), 0.5.
    assert holm(p) == pytest.approx([0.04, 0.09, 0.09, 0.5])


def test_a_planted_slice_is_found_and_noise_is_not() -> None:
    table = frame(n=2_000)
    wrong = (table["job"] == "pilot") & (np.random.default_rng(1).random(2_000) < 0.4)
    table.loc[wrong, "y"] = np.where(table.loc[wrong, "y"] == "yes", "no", "yes")
    found = worst_slices(learner(table).interpret("test"))
    assert found.slices[0].name == "job = pilot"
    test = table.iloc[learner(table).data.split.test]
    assert found.slices[0].rows == (test["job"] == "pilot").sum()
    assert found.slices[0].p < 0.001
    table = frame(n=2_000)
    table["y"] = np.random.default_rng(2).choice(["yes", "no"], 2_000)
    fitted = learner(table)
    with torch.no_grad():
        fitted.model.scale.fill_(0.01)  # equally wrong everywhere
    calm = worst_slices(fitted.interpret("test"))
    assert calm.examined >= 20
    assert calm.slices == ()


def test_slices_of_a_number_are_fifths_and_missing_cells() -> None:
    numbers = np.append(np.arange(100.0), np.nan)
    found = dict(slices_of_column(View("x", "number", numbers)))
    assert list(found) == [
        "x is missing", "x < 20", "20 ≤ x < 40", "40 ≤ x < 60", "60 ≤ x < 80", "x ≥ 80",
    ]  # fmt: skip
    assert sum(each.astype(int) for each in found.values()).tolist() == [1] * 101
    few = dict(slices_of_column(View("x", "number", np.array([1.0, 2, 2, 2, 3] * 9))))
    assert "x = 1" in few


# ---------------------------------------------------------------- drift


def test_distance_of_numbers_equals_scipy() -> None:
    draws = np.random.default_rng(0)
    values = np.append(draws.normal(size=80).round(1), draws.normal(0.7, 1, 60).round(1))
    first = np.arange(140) < 80
    sides = permuted_sides(first, None)
    found = cumulative_distance(values, sides)
    for row in (0, 1, 7):
        expected = scipy.stats.ks_2samp(values[sides[row]], values[~sides[row]]).statistic
        assert found[row] == pytest.approx(expected)
    # Missing cells are the lowest value.
    values[:20] = np.nan
    low = np.where(np.isnan(values), -100, values)
    expected = scipy.stats.ks_2samp(low[first], low[~first]).statistic
    assert cumulative_distance(values, sides)[0] == pytest.approx(expected)


def test_distance_of_categories_equals_a_loop() -> None:
    codes = np.array([0, 0, 1, 2, 2, 1, 1, 0])
    sides = np.array([[True] * 5 + [False] * 3])
    shares = [[2 / 5, 1 / 5, 2 / 5], [1 / 3, 2 / 3, 0]]
    expected = sum(abs(a - b) for a, b in zip(*shares, strict=True)) / 2
    assert variation_distance(codes, sides)[0] == pytest.approx(expected)


def test_groups_change_sides_as_a_whole() -> None:
    groups = np.repeat(np.arange(20), 3)
    sides = permuted_sides(groups < 8, groups)
    assert (sides.reshape(-1, 20, 3).std(axis=2) == 0).all()
    assert set(sides[:, ::3].sum(axis=1)) == {8}


def test_drift_names_the_column_that_moved_and_no_other() -> None:
    table = frame()
    data = TabularData.from_df(table, "y", valid=0.3, test=0.3)
    assert not any(each.drifts for each in table_drift(data, "valid").columns)
    moved = frame(seed=5).drop(columns="y")
    moved["b"] += 1
    moved["job"] = "pilot"
    found = table_drift(data, moved)
    assert {each.column for each in found.columns if each.drifts} == {"b", "job"}
    assert "pilot" in next(each.change for each in found.columns if each.column == "job")
    assert "drifts" in str(found)


# ---------------------------------------------------------------- associations and cards


def test_associations_equal_scipy() -> None:
    draws = np.random.default_rng(0)
    a = draws.normal(size=300).round(1)
    b = a + draws.normal(size=300)
    expected = abs(scipy.stats.spearmanr(a, b).statistic)
    assert association(a, False, b, False) == pytest.approx(expected)
    codes = draws.integers(0, 4, 300)
    other = np.where(draws.random(300) < 0.6, codes, draws.integers(0, 4, 300))
    table = pd.crosstab(codes, other).to_numpy()
    n, (r, k) = 300, table.shape
    phi2 = scipy.stats.contingency.association(table, "cramer") ** 2 * (min(r, k) - 1)
    phi2 -= (r - 1) * (k - 1) / (n - 1)
    width = min(r - (r - 1) ** 2 / (n - 1), k - (k - 1) ** 2 / (n - 1)) - 1
    found = association(codes.astype(float), True, other.astype(float), True)
    assert found == pytest.approx(np.sqrt(phi2 / width))
    groups = [scipy.stats.rankdata(b)[codes == at] for at in range(4)]
    statistic = scipy.stats.f_oneway(*groups).statistic
    epsilon2 = 3 * (statistic - 1) / (3 * statistic + n - 4)
    expected = np.sqrt(max(0.0, epsilon2))
    assert association(codes.astype(float), True, b, False) == pytest.approx(expected)


def test_cards_count_the_train_rows() -> None:
    table = frame()
    table.loc[::5, "a"] = np.nan
    table["id"] = np.arange(N)
    data = TabularData.from_df(table, "y", valid=0.3, test=0.3)
    cards = {each.name: each for each in column_cards(data).cards}
    train = table.iloc[data.split.train]
    assert cards["a"].missing == pytest.approx(train["a"].isna().mean())
    assert sum(bar.count for bar in cards["a"].bars) == train["a"].notna().sum()
    first = cards["job"].bars[0]
    chosen = train["job"] == train["job"].value_counts().index[0]
    assert first.count == chosen.sum()
    assert first.shares[1] == pytest.approx((train["y"][chosen] == "yes").mean())
    assert cards["id"].bars == ()


# ---------------------------------------------------------------- the page


def test_reliability_equals_scikit_learn() -> None:
    fitted = learner(calibration=0.2)
    fitted.calibrate()
    scored = scored_of(fitted.interpret("test"))
    curve = scored.found.calibration()
    p, y = scored.predicted.values.numpy(), scored.rows.targets.numpy()
    best = p.argmax(axis=1)
    accuracy, confidence = calibration_curve(best == y, p.max(axis=1), n_bins=10)
    assert [each.confidence for each in curve.bins] == pytest.approx(confidence, abs=1e-6)
    assert [each.accuracy.value for each in curve.bins] == pytest.approx(accuracy)


def test_coverage_equals_a_loop_over_predicted_sets() -> None:
    fitted = learner(calibration=0.2)
    fitted.calibrate(intervals=True)
    scored = scored_of(fitted.interpret("test"))
    covered, sizes = covered_rows(scored, fitted.task, 0.9)
    rows = frame().iloc[fitted.data.split.test]
    sets = fitted.predict(rows.drop(columns="y"), interval=0.9)["classes"]
    inside = [label in each for label, each in zip(rows["y"], sets, strict=True)]
    assert covered.tolist() == inside
    assert sizes.tolist() == [len(each) for each in sets]


def test_page_has_all_sections_in_every_format(tmp_path: Path) -> None:
    table = frame()
    table["person"] = np.arange(N) // 3
    fitted = learner(table, calibration=0.2, group="person")
    fitted.calibrate(intervals=True)
    page = fitted.interpret("test").page()
    titles = [
        "Baselines", "Importance", "Partial dependence", "Temperature", "Coverage", "Worst slices",
        "Drift", "Columns",
    ]  # fmt: skip
    for ending in ("html", "md", "json"):
        text = page.save(tmp_path / f"report.{ending}").read_text()
        missing = [title for title in titles if title not in text]
        assert not missing, ending
    content = json.loads((tmp_path / "report.json").read_text())
    by_title = {each["title"]: each["blocks"] for each in content["sections"]}
    (numbers,) = (each for each in by_title["Importance"] if "rows" in each)
    assert {row[0] for row in numbers["rows"]} == {"a", "b", "c", "job"}
    assert "<script" not in (tmp_path / "report.html").read_text()


def test_names_and_cells_are_never_read_as_markup() -> None:
    evil = "<script>alert('x')</script>\" onload=\"alert(1)"
    table = frame().rename(columns={"job": evil, "c": f"c{evil}"})
    table[evil] = evil + table[evil]
    data = TabularData.from_df(table, "y", valid=0.3)
    html = CardsBlock(column_cards(data)).html(1)
    assert "alert" in html
    assert "<script" not in html
    assert 'onload="' not in html
