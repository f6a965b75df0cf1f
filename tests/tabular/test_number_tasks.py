"""Counts, rates, amounts, quantiles and logarithms of tables, in the units of the target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import metrics

from flambeau import Learner, Predictor
from flambeau.cli.app import build_app
from flambeau.errors import ArgumentError, InputError, PlanError
from flambeau.task.quantiles import LEVELS
from flambeau_tabular import TabularData, TabularOptions
from flambeau_tabular.domain import parse_costs

FAST: dict[str, Any] = {"epochs": 6, "batch_size": 64, "hidden": [32], "probe": "off"}
N = 900


def policies(n: int = N) -> pd.DataFrame:
    """Return policies with a rate of claims that depends on age and region, and amounts."""
    draws = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "age": draws.uniform(18, 80, n),
            "region": draws.choice(["north", "south"], n),
            "days": draws.integers(30, 366, n),
        }
    )
    rate = np.exp(-0.03 * (frame["age"] - 50) + 0.7 * (frame["region"] == "south")) / 200
    frame["claims"] = draws.poisson(rate * frame["days"])
    frame["log_days"] = np.log(frame["days"])
    frame["amount"] = draws.gamma(2.0, 100 * rate * 200)
    frame["total"] = np.where(frame["claims"] > 0, frame["amount"] * frame["claims"], 0.0)
    return frame


def fitted(target: str, task: str, name: str = "mlp", **more: Any) -> tuple[Learner, pd.DataFrame]:
    choices = {**FAST, **more.pop("choices", {})}
    inputs = ["age", "region", *more.values()]
    frame = policies()[[*inputs, target]]
    options = TabularOptions(task=task, **more)
    data = TabularData.from_df(frame, target, test=0.3, options=options)
    torch.manual_seed(0)
    learner = Learner(data, name, choices=choices, seed=0)
    learner.fit()
    return learner, frame.iloc[data.split.test]


@pytest.mark.parametrize("name", ["mlp", "tabm"])
@pytest.mark.parametrize(
    ("target", "task", "power"),
    [("claims", "poisson", 1), ("amount", "gamma", 2), ("total", "tweedie", 1.5)],
)
def test_deviances_are_those_of_scikit_learn(
    target: str, task: str, power: float, name: str, tmp_path: Path
) -> None:
    learner, test = fitted(target, task, name)
    assert learner.plan["task"].value == task
    scores, y = learner.evaluate("test"), test[target]
    found = learner.predict(test)[target]
    deviance = metrics.mean_tweedie_deviance(y, found, power=power)
    assert scores[f"{task}_deviance"] == pytest.approx(deviance, rel=1e-5)
    assert scores["mae"] == pytest.approx(metrics.mean_absolute_error(y, found), rel=1e-5)
    d2 = metrics.d2_tweedie_score(y, found, power=power)
    assert scores["d2"] == pytest.approx(d2, abs=1e-4)
    assert d2 > 0.15  # it has learned: the best constant has 0
    again = Predictor.load(learner.export(tmp_path / "model"))
    np.testing.assert_allclose(again.predict(test)[target], found, rtol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "tabm"])
def test_expected_counts_grow_with_the_exposure(name: str, tmp_path: Path) -> None:
    learner, test = fitted("claims", "poisson", name, exposure="days")
    assert "days" not in learner.data.columns
    once = learner.predict(test)["claims"]
    np.testing.assert_allclose(
        learner.predict(test.assign(days=2 * test["days"]))["claims"], 2 * once, rtol=1e-5
    )
    y = test["claims"]
    score = learner.evaluate("test")["poisson_deviance"]
    assert score == pytest.approx(metrics.mean_poisson_deviance(y, once), rel=1e-5)
    # Without the exposure the same network explains less.
    without, _ = fitted("claims", "poisson", name)
    assert score < without.evaluate("test")["poisson_deviance"]
    same, _ = fitted("claims", "poisson", name, offset="log_days")
    logs = policies().loc[test.index]
    np.testing.assert_allclose(same.predict(logs)["claims"], once, rtol=1e-3)
    again = Predictor.load(learner.export(tmp_path / "model"))
    np.testing.assert_allclose(again.predict(test)["claims"], once, rtol=1e-6)
    with pytest.raises(InputError, match="no column 'days'"):
        again.predict(test.drop(columns="days"))


def test_the_log_of_the_target_is_standardised() -> None:
    learner, test = fitted("amount", "regression", choices={"targets": "log"})
    logs = np.log(policies()["amount"].iloc[learner.data.split.train])
    arguments = learner.task.arguments()
    assert arguments["log"] == "log"
    assert arguments["mean"] == pytest.approx([logs.mean()], rel=1e-6)
    assert arguments["std"] == pytest.approx([logs.std(ddof=0)], rel=1e-6)
    found = learner.predict(test)["amount"]
    assert (found > 0).all()
    mae = metrics.mean_absolute_error(test["amount"], found)
    assert learner.evaluate("test")["mae"] == pytest.approx(mae, rel=1e-5)


@pytest.mark.parametrize("name", ["mlp", "tabm"])
def test_quantiles_are_in_the_units_of_the_target(name: str) -> None:
    learner, test = fitted("amount", "quantile_regression", name)
    found = learner.predict(test)
    columns = [f"q{level:g}" for level in LEVELS]
    assert (np.diff(found[columns], axis=1) >= 0).all()
    scores = learner.evaluate("test")
    losses = [
        metrics.mean_pinball_loss(test["amount"], found[column], alpha=level)
        for level, column in zip(LEVELS, columns, strict=True)
    ]
    assert scores["pinball"] == pytest.approx(np.mean(losses), rel=1e-5)
    within = test["amount"].between(found[columns[0]], found[columns[-1]])
    assert scores["coverage"] == pytest.approx(within.mean())
    logs, _ = fitted("amount", "quantile_regression", name, choices={"targets": "log"})
    assert (logs.predict(test)[columns] > 0).all(axis=None)


# ---------------------------------------------------------------- what the plan says


@pytest.mark.parametrize(
    ("target", "suggested", "reason"),
    [
        ("claims", "poisson", "All are whole numbers from 0 on: if they count events"),
        ("amount", "gamma", "All are above 0 and the standard deviation is"),
        ("total", "tweedie", "are exactly 0 and none is negative"),
        ("log_days", None, ""),
    ],
)
def test_another_task_is_suggested_and_not_chosen(
    target: str, suggested: str | None, reason: str
) -> None:
    frame = policies()[["age", "region", target]]
    options = TabularOptions(task="regression" if target == "claims" else None)
    choice = Learner(TabularData.from_df(frame, target, options=options)).plan["task"]
    assert choice.value == "regression"
    if suggested is not None and options.task is None:
        assert choice.alternatives == (suggested,)
        assert f"--task {suggested}" in choice.override
        assert reason in choice.reason
    counts = TabularData.from_df(frame.assign(y=range(len(frame))), "y")
    assert "'poisson'" in Learner(counts).plan["task"].reason


def test_a_task_that_does_not_fit_is_refused() -> None:
    frame = policies()[["age", "days", "claims"]]
    options = TabularOptions(task="gamma")
    with pytest.raises(InputError, match="targets of Gamma must be above 0"):
        Learner(TabularData.from_df(frame, "claims", options=options), choices=FAST).fit()
    options = TabularOptions(exposure="days", task="regression")
    with pytest.raises(PlanError, match="exposure, but the task 'regression' does not use it"):
        Learner(TabularData.from_df(frame, "claims", options=options), choices=FAST).fit()
    options = TabularOptions(task="poisson")
    data = TabularData.from_df(frame.assign(claims=["a", "b", "c"] * 300), "claims", valid=0.2)
    with pytest.raises(PlanError, match="task is 'poisson', but the target was read for 'classif"):
        Learner(data, choices={**FAST, "task": "poisson"}).fit()
    with pytest.raises(InputError, match="Give one of them"):
        TabularOptions(exposure="days", offset="log_days")
    wrong = frame.assign(days=[0, *frame["days"][1:]])
    options = TabularOptions(task="poisson", exposure="days")
    with pytest.raises(InputError, match="The exposure 'days' is 0 in row 0, but must be above 0"):
        TabularData.from_df(wrong, "claims", options=options)


def test_costs_of_mistakes_move_the_threshold() -> None:
    frame = policies().assign(any_claim=lambda each: np.where(each["claims"] > 1, "yes", "no"))
    options = TabularOptions(costs={"false_positive": 1, "false_negative": 5})
    data = TabularData.from_df(
        frame[["age", "region", "any_claim"]], "any_claim", calibration=0.2, options=options
    )
    learner = Learner(data, choices=FAST, seed=0)
    learner.fit()
    assert learner.task.arguments()["costs"] == {"false_positive": 1, "false_negative": 5}
    found = learner.predict(frame.head(200))
    np.testing.assert_array_equal(found["label"] == "yes", found["yes"] >= 1 / 6)
    assert 0 < learner.calibrate().values["threshold"] < 1


# ---------------------------------------------------------------- the command line


def run(*words: object) -> None:
    build_app()([str(word) for word in words], standalone_mode=False)


def test_rates_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = tmp_path / "policies.csv", tmp_path / "run"
    frame = policies(300)[["age", "region", "days", "claims"]]
    frame.to_csv(table, index=False)
    words = ("--target", "claims", "--task", "poisson", "--exposure", "days")
    run("plan", table, *words)
    assert "poisson" in capsys.readouterr().out
    run("fit", table, *words, "--epochs", 2, "--set", "probe=off", "--out", out)
    # The export knows target, task and exposure.
    run("evaluate", out / "model", table)
    assert "poisson_deviance" in capsys.readouterr().out
    run("predict", out / "model", table, "--out", tmp_path / "found.csv")
    found = pd.read_csv(tmp_path / "found.csv")
    model = Predictor.load(out / "model")
    np.testing.assert_allclose(found["claims"], model.predict(frame)["claims"], rtol=1e-5)


def test_costs_on_the_command_line() -> None:
    assert parse_costs("false_positive=1,false_negative=5.5") == {
        "false_positive": 1.0,
        "false_negative": 5.5,
    }
    with pytest.raises(ArgumentError, match="'false_negative' is not NAME=NUMBER"):
        parse_costs("false_positive=1,false_negative")
