"""Intervals and folds of several targets, each held against formulas for one target."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from flambeau import Learner, Predictor, TrainingOptions
from flambeau.errors import InputError
from flambeau_tabular import TabularData, TabularOptions

N, LEVEL = 300, 0.8
NAMES = ["churn", "amount"]
FAST = {
    "epochs": 2,
    "batch_size": 64,
    "hidden": [8],
    "number_embedding": "none",
    "keep_best": None,
    "probe": "off",
}


def table() -> pd.DataFrame:
    """Return rows of which some lack one of the targets, and some of persons with two rows."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(N, 2))
    churn = np.where(x[:, 0] + draws.normal(size=N) > 0, "yes", "no").astype(object)
    amount = 100 + 20 * x[:, 1] + 5 * draws.normal(size=N)
    churn[::5], amount[1::3] = None, np.nan
    frame = pd.DataFrame(x, columns=["a", "b"])
    person = [f"p {row // 2}" for row in range(N)]
    index = [f"row {row}" for row in range(N)]
    return frame.assign(churn=churn, amount=amount, person=person).set_axis(index)


def learner(**arguments: Any) -> Learner:
    options = arguments.pop("options", TabularOptions())
    frame = table() if "group" in arguments else table().drop(columns="person")
    data = TabularData.from_df(frame, NAMES, options=options, **arguments)
    training = TrainingOptions(doctor=False)
    return Learner(data, choices=FAST, training=training, quiet=True)


def conformal(scores: np.ndarray, level: float) -> float:
    """Return the score that is reached by ``level`` of n + 1 samples."""
    return float(np.sort(scores)[math.ceil(level * (len(scores) + 1)) - 1])


# ---------------------------------------------------------------- a calibration part


def test_each_target_has_the_intervals_of_its_own_calibration_rows(tmp_path: Path) -> None:
    made = learner(calibration=0.3)
    made.fit()
    frame = table().drop(columns="person")
    rows = frame.iloc[made.data.source_rows(made.data.split.calibration)]
    before = made.predict(rows)
    result = made.calibrate(intervals=True)
    assert set(result.values) == {"churn", "amount"}
    assert "intervals of classes" not in str(result)  # thousands of scores are not printed
    found = made.predict(rows, interval=LEVEL)
    errors = (rows["amount"] - before["amount"]).abs().dropna().to_numpy()
    assert len(errors) < len(rows)
    by = conformal(errors, LEVEL)
    assert np.allclose(found["amount.high"] - found["amount"], by, rtol=1e-5)
    assert np.allclose(found["amount"] - found["amount.low"], by, rtol=1e-5)
    known = rows["churn"].notna()
    right = np.where(rows["churn"] == "yes", before["churn.yes"], before["churn.no"])[known]
    least = 1 - conformal(1 - right, LEVEL)
    for name in ("yes", "no"):
        is_in = [name in each for each in found["churn.classes"]]
        expected = (before[f"churn.{name}"] >= least - 1e-12) | (before[f"churn.{name}"] > 0.5)
        assert is_in == expected.tolist()
    made.export(tmp_path / "model")
    again = Predictor.load(tmp_path / "model").predict(rows, interval=LEVEL)
    pd.testing.assert_frame_equal(again, found)
    one = made.predict(rows.iloc[0].to_dict(), interval=LEVEL)
    assert one["amount"].interval["high"] == pytest.approx(found["amount.high"].iloc[0], rel=1e-5)


def test_a_person_counts_once_in_the_intervals_of_each_target() -> None:
    made = learner(calibration=0.3, group="person")
    made.fit(1)
    made.calibrate(intervals=True)
    rows = table().iloc[made.data.source_rows(made.data.split.calibration)]
    saved = made.task.calibration
    for name, scores in (("churn", "classes"), ("amount", "amount")):
        persons = rows["person"][rows[name].notna()].nunique()
        assert saved[name]["intervals"][scores]["total"] == pytest.approx(persons)


def test_intervals_of_targets_that_were_not_calibrated_are_refused() -> None:
    made = learner(calibration=0.3)
    made.fit(1)
    made.calibrate()
    with pytest.raises(InputError, match="intervals of this model are not calibrated"):
        made.predict(table().head(2), interval=LEVEL)


# ---------------------------------------------------------------- folds


@pytest.mark.parametrize("task", ["regression", "gamma"])
def test_folds_predict_every_target_of_all_rows(task: str, tmp_path: Path) -> None:
    made = learner(options=TabularOptions(target_tasks={"amount": task}))
    result = made.fit_folds(3, seeds=2)
    frame = table().drop(columns="person")
    none = frame[NAMES].isna().all(axis=1)
    assert sorted(result.columns["row"].tolist()) == np.flatnonzero(~none).tolist()
    known = frame.iloc[result.columns["row"]]
    assert result.predictions.index.tolist() == known.index.tolist()
    # The held-out scores are those of the rows that have the target.
    has = known["amount"].notna().to_numpy()
    errors = (known["amount"].to_numpy() - result.columns["amount"])[has]
    assert result.scores["amount_mae"] == pytest.approx(np.abs(errors).mean(), rel=1e-6)
    labelled = known["churn"].notna().to_numpy()
    right = (known["churn"].to_numpy() == result.columns["churn.label"])[labelled]
    assert result.scores["churn_accuracy"] == pytest.approx(right.mean())
    assert "churn_accuracy" in str(result)
    assert "95%" not in str(result)
    # The ensemble is the mean of the folds, of which each is the mean of its models.
    rows = frame.head(5)
    members = [
        Predictor(member.preprocessor, member.model, member.task).predict(rows)
        for member in result.members
    ]
    found = result.predict(rows)
    for column in ("amount", "churn.yes"):
        mean = np.mean([each[column] for each in members], axis=0)
        assert np.allclose(found[column], mean, rtol=1e-5)
    result.export(tmp_path / "model")
    with_sets = result.predict(rows, interval=LEVEL)
    again = Predictor.load(tmp_path / "model").predict(rows, interval=LEVEL)
    pd.testing.assert_frame_equal(again, with_sets)


def test_intervals_of_folds_are_cv_plus_of_each_target() -> None:
    made = learner()
    result = made.fit_folds(3)
    frame = table().drop(columns="person")
    rows = frame.head(7)
    by_fold = [
        Predictor(member.preprocessor, member.model, member.task).predict(rows)
        for member in result.members
    ]
    known = frame.iloc[result.columns["row"]]
    folds = result.columns["fold"] - 1
    found = result.predict(rows, interval=LEVEL)
    errors = np.abs(known["amount"].to_numpy() - result.columns["amount"])
    has = ~np.isnan(errors)
    centers = np.stack([each["amount"] for each in by_fold])[folds[has]]  # (held out, rows)
    reached = math.ceil(LEVEL * (has.sum() + 1)) - 1
    high = np.sort(centers + errors[has, None], axis=0)[reached]
    low = -np.sort(-centers + errors[has, None], axis=0)[reached]
    assert np.allclose(found["amount.high"], high, rtol=1e-6)
    assert np.allclose(found["amount.low"], low, rtol=1e-6)
    labelled = known["churn"].notna().to_numpy()
    is_yes = (known["churn"] == "yes").to_numpy()[labelled]
    own = np.where(
        is_yes, result.columns["churn.yes"][labelled], result.columns["churn.no"][labelled]
    )
    for name in ("yes", "no"):
        p = np.stack([each[f"churn.{name}"] for each in by_fold])[folds[labelled]]
        smaller = (own[:, None] > p + 1e-9).sum(0)  # held-out rows with a smaller score
        wanted = smaller < LEVEL * (labelled.sum() + 1) - 1e-9
        best = found[f"churn.{name}"] >= 0.5
        is_in = np.array([name in each for each in found["churn.classes"]])
        assert is_in.tolist() == (wanted | best).tolist()
