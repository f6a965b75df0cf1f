"""Baselines of tables: the same rows as the model, and the numbers of scikit-learn."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_info, threadpool_limits
from torch import Tensor, nn

from flambeau import Learner
from flambeau.task import Regression
from flambeau.task.log_link import Poisson
from flambeau.task.quantiles import QuantileRegression
from flambeau_tabular import TabularData
from flambeau_tabular.report import baselines as module
from flambeau_tabular.report.baselines import MODEL, Baselines, as_seconds, held_out_rows
from flambeau_tabular.report.features import Features, with_few_codes
from flambeau_tabular.report.problem import Problem
from flambeau_tabular.report.simple_models import TrainRows, fit_problem
from flambeau_tabular.report.sklearn_models import fit_histogram, fit_linear
from flambeau_tabular.report.trivial_models import weighted_quantile

N = 240


def frame() -> pd.DataFrame:
    draws = np.random.default_rng(0)
    age = draws.normal(40, 10, N)
    age[::9] = np.nan
    job = draws.choice(["clerk", "nurse", "pilot"], N)
    score = np.nan_to_num(age, nan=40.0) + 9 * (job == "pilot") + draws.normal(0, 3, N)
    return pd.DataFrame(
        {
            "age": age,
            "job": job,
            "day": pd.Timestamp("2024-01-01") + pd.to_timedelta(draws.integers(0, 90, N), unit="D"),
            "person": draws.integers(0, 40, N),
            "w": draws.uniform(0.5, 2, N),
            "score": score,
            "high": np.where(score > 42, "yes", "no"),
            "count": draws.poisson(np.exp(score / 30)).astype(float),
        }
    )


class Linear(nn.Module):
    """A linear model with fixed weights, so that nothing has to be trained."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(outputs))

    def forward(self, numbers: Tensor, flags: Tensor, categories: Tensor) -> Tensor:
        each = numbers[:, :1] + categories[:, :1] - 3
        return each * self.scale * torch.linspace(-1, 1, len(self.scale) + 1)[1:]


def baselines(target: str, *, task: Any = None, part: str = "test", **options: Any) -> Baselines:
    others = {"score", "high", "count"} - {target}
    used = frame().drop(columns=[*others, *({"day", "person", "w"} - set(options.values()))])
    data = TabularData.from_df(used, target, valid=0.2, test=0.25, **options)
    outputs = {"high": 2}.get(target, 1) if task is None else task.n_outputs
    learner = Learner(data, Linear(outputs), task=task, quiet=True)
    found = learner.interpret(part).baselines
    assert isinstance(found, Baselines)
    return found


def names(found: Baselines) -> Sequence[str]:
    return [line.name for line in found.lines]


def test_every_line_of_classes_is_scored_on_the_rows_of_the_model() -> None:
    found = baselines("high", group="person", weight="w")
    assert names(found) == [MODEL, "majority class", "linear", "HistGradientBoosting"]
    assert set(found.absent) >= {"last period", "TabICL"}
    assert found["linear"]["accuracy"] > found["majority class"]["accuracy"] + 0.1
    score = found.lines[2].scores["log_loss"]
    assert score.difference is not None
    own = found.lines[0].scores["log_loss"].interval.value
    assert score.difference.value == pytest.approx(score.interval.value - own)
    assert "accuracy" in str(found)


@pytest.mark.parametrize(("limit", "is_one"), [(N, True), (1, False)])
def test_models_of_small_tables_are_fitted_with_one_thread(
    monkeypatch: pytest.MonkeyPatch, limit: int, is_one: bool
) -> None:
    """Waiting threads of OpenMP take a core in a loop, so that a busy machine does not finish."""
    seen: list[int] = []

    def fit(*arguments: Any) -> Any:
        seen.extend(each["num_threads"] for each in threadpool_info())
        return fit_histogram(*arguments)

    monkeypatch.setattr(module, "_ROWS_OF_ONE_THREAD", limit)
    monkeypatch.setattr(module, "fit_histogram", fit)
    with threadpool_limits(2):
        baselines("high")
        assert any(each["num_threads"] == 2 for each in threadpool_info())
    assert seen
    assert (set(seen) == {1}) == is_one


def test_time_gives_the_last_period() -> None:
    found = baselines("score", time="day")
    assert names(found)[1:4] == ["mean", "median", "last period"]
    data = TabularData.from_df(
        frame()[["age", "job", "day", "score"]], "score", valid=0.2, test=0.25, time="day"
    )
    days = frame()["day"]
    test, train = days.iloc[data.split.test], days.iloc[data.split.train]
    recent = train >= train.max() - (test.max() - test.min())
    mean = frame()["score"].iloc[data.split.train][recent].mean()
    targets = frame()["score"].iloc[data.split.test]
    assert found["last period"]["mae"] == pytest.approx(float((targets - mean).abs().mean()))


@pytest.mark.parametrize(
    ("target", "task", "expected"),
    [
        ("count", Poisson(["count"], mean=4.0), "poisson_deviance"),
        ("score", QuantileRegression(["score"], mean=40.0, std=10.0), "pinball"),
        ("score", Regression(["score"], mean=3.7, std=0.3, log="log"), "rmse"),
    ],
)
def test_other_tasks_have_their_own_measure(target: str, task: Any, expected: str) -> None:
    found = baselines(target, task=task)
    assert next(iter(found.lines[0].scores)) == expected
    trivial = names(found)[1]
    assert {"linear", "HistGradientBoosting"} <= set(found)
    assert found["linear"][expected] < found[trivial][expected]


def test_no_fitted_line_without_train_rows_of_its_own() -> None:
    found = baselines("score", part="train")
    assert names(found) == [MODEL, "mean of these rows", "median of these rows"]
    assert found.absent == {"fitted models": "the scored rows are the train rows"}
    assert found["mean of these rows"]["r2"] == pytest.approx(0, abs=1e-12)


def test_a_library_that_fails_is_absent_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ModuleType("tabicl")
    broken.__spec__ = __import__("importlib.machinery").machinery.ModuleSpec("tabicl", None)

    class TabICLClassifier:
        def __init__(self, **settings: Any) -> None:
            assert settings["allow_auto_download"] is False
            raise FileNotFoundError("no weights on this machine")

    broken.TabICLClassifier = TabICLClassifier  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tabicl", broken)
    found = baselines("high")
    assert found.absent["TabICL"] == "FileNotFoundError: no weights on this machine"


# ---------------------------------------------------------------- the models


def features(n: int = N) -> Features:
    draws = np.random.default_rng(1)
    filled = draws.normal(size=(n, 2))
    numbers = filled.copy()
    numbers[::7, 0] = np.nan
    codes = draws.integers(1, 6, (n, 1))
    return Features(numbers, filled, np.isnan(numbers[:, :1]) * 1.0, codes, np.zeros((n, 0)))


def rows(targets: Any, weights: Any = None) -> TrainRows:
    return TrainRows(features(), targets, weights, np.zeros(N, bool))


def test_linear_equals_scikit_learn_on_standardised_and_one_hot_columns() -> None:
    x, draws = features(), np.random.default_rng(2)
    y, w = x.filled[:, 0] * 2 + x.codes[:, 0] + draws.normal(size=N), draws.uniform(0.5, 2, N)
    predict, _ = fit_problem(Problem("numbers", ("y",)), rows(y, w), fit_linear)
    scaled = (x.filled - x.filled.mean(axis=0)) / x.filled.std(axis=0)
    one_hot = (x.codes == np.arange(1, 6)).astype(float)
    matrix = np.concatenate([scaled, one_hot, x.flags], axis=1)
    # StandardScaler gets no weights, Ridge does.
    expected = Ridge(alpha=1.0).fit(matrix, y, w).predict(matrix)
    assert predict(x).values[:, 0].numpy() == pytest.approx(expected, abs=1e-8)


def test_boosting_equals_scikit_learn_with_the_chosen_rounds() -> None:
    x = features()
    y = (x.filled[:, 0] + (x.codes[:, 0] == 3) > 0).astype(np.int64)
    held_out = held_out_rows(N, None, None)
    train = TrainRows(x, y, None, held_out)
    predict, note = fit_problem(Problem("classes", ("no", "yes")), train, fit_histogram)
    matrix = np.concatenate([x.numbers, x.codes - 1.0], axis=1)

    def model(rounds: int) -> Any:
        return HistGradientBoostingClassifier(
            max_iter=rounds, early_stopping=False, categorical_features=[2], random_state=0
        )

    first = model(60).fit(matrix[~held_out], y[~held_out])
    losses = [
        metrics.log_loss(y[held_out], p) for p in first.staged_predict_proba(matrix[held_out])
    ]
    rounds = int(np.argmin(losses)) + 1
    assert note == f"{rounds} rounds"
    expected = model(rounds).fit(matrix, y).predict_proba(matrix)
    assert predict(x).values.numpy() == pytest.approx(expected)


def test_held_out_rows_are_the_latest_or_whole_groups() -> None:
    times = np.random.default_rng(0).permutation(200).astype(float)
    latest = held_out_rows(200, None, times)
    assert latest.sum() == pytest.approx(30, abs=1)
    assert times[latest].min() > times[~latest].max()
    groups = np.random.default_rng(0).integers(0, 30, 200)
    chosen = held_out_rows(200, groups, None)
    assert 30 <= chosen.sum() < 60
    assert not set(groups[chosen]) & set(groups[~chosen])
    assert not held_out_rows(40, None, None).any()


def test_rare_categories_share_a_code_of_trees() -> None:
    x = features()
    codes = np.arange(N)[:, None] % 600 + 2
    codes[:3] = 2
    many = Features(x.numbers, x.filled, x.flags, np.concatenate([codes, codes + 300])[:N], x.words)
    wide = Features(x.numbers, x.filled, x.flags, codes * 3, x.words)
    first, second = with_few_codes(wide, many)
    assert first.codes.max() < 250
    assert second.codes.max() < 250
    assert (first.codes[:3] == first.codes[0]).all()


def test_weighted_quantile_is_that_of_repeated_values() -> None:
    values, weights = np.array([3.0, 1, 2, 5]), np.array([2, 1, 4, 1])
    repeated = np.repeat(values, weights)
    for level in (0.1, 0.5, 0.9):
        expected = np.quantile(repeated, level, method="inverted_cdf")
        assert weighted_quantile(values, weights, level) == expected


def test_times_of_text_and_dates_have_their_order() -> None:
    days = ["2024-01-31", "2024-02-01T12:00:00", "2023-12-01Z"]
    assert as_seconds(np.array(days, dtype=object)).argsort().tolist() == [2, 0, 1]
    assert as_seconds(np.array(["2024-01-31"], dtype="datetime64[D]"))[0] == 1706659200
