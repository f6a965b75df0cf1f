"""The estimators for scikit-learn: its checks, inputs of every kind, targets, and pickles."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.datasets import make_regression
from sklearn.exceptions import NotFittedError
from sklearn.utils.estimator_checks import check_estimator

from flambeau import Plan, TrainingOptions
from flambeau.errors import FlambeauWarning
from flambeau_tabular import TabularOptions
from flambeau_tabular.sklearn import (
    FlambeauClassifier,
    FlambeauRegressor,
    expected_failed_checks,
)

N = 120
SMALL = {"hidden": [16], "batch_size": 16}


def table() -> pd.DataFrame:
    """Return rows with numbers, categories with gaps, and dates."""
    draws = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "age": draws.integers(18, 80, N),
            "job": draws.choice(["clerk", "nurse", None], N),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(np.arange(N) % 50, unit="D"),
            "height": draws.normal(170, 10, N),
        }
    )


def labels(frame: pd.DataFrame) -> np.ndarray:
    noise = np.random.default_rng(1).normal(0, 3, len(frame))
    return np.where(frame["age"] + 5 * (frame["job"] == "nurse") + noise > 50, "high", "low")


def numbers() -> tuple[np.ndarray, np.ndarray]:
    frame = table()
    return frame[["age", "height"]].to_numpy(), labels(frame)


def classifier(epochs: int = 2, **arguments: Any) -> FlambeauClassifier:
    choices = {**SMALL, **arguments.pop("choices", {})}
    return FlambeauClassifier(epochs=epochs, choices=choices, random_state=0, **arguments)


def regressor(epochs: int = 2, **arguments: Any) -> FlambeauRegressor:
    return FlambeauRegressor(epochs=epochs, choices=SMALL, random_state=0, **arguments)


# ---------------------------------------------------------------- scikit-learn's own checks


@pytest.mark.parametrize("kind", [FlambeauClassifier, FlambeauRegressor])
def test_check_estimator_passes(kind: type[Any]) -> None:
    estimator = kind(epochs=6, choices=SMALL)
    expected = expected_failed_checks(estimator)
    assert len(expected) <= 6
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FlambeauWarning)  # of rows unlike those of tiny train sets
        found = check_estimator(
            estimator, expected_failed_checks=expected, on_skip=None, on_fail=None
        )
    failed = {each["check_name"]: each["exception"] for each in found if each["status"] == "failed"}
    assert len(found) > 50
    assert not failed


# ---------------------------------------------------------------- X


FRAMES: dict[str, Callable[[pd.DataFrame], Any]] = {
    "polars": pl.from_pandas,
    "pyarrow": pa.Table.from_pandas,
    "stream": lambda frame: pa.Table.from_pandas(frame).to_reader(),
    "DuckDB": duckdb.from_df,
}


@pytest.mark.parametrize("convert", FRAMES.values(), ids=FRAMES)
def test_frames_of_all_libraries_give_one_model(convert: Callable[[pd.DataFrame], Any]) -> None:
    frame = table()
    expected = classifier().fit(frame, labels(frame))
    found = classifier().fit(convert(frame), labels(frame))
    assert found.feature_names_in_.tolist() == list(frame.columns)
    assert found.n_features_in_ == 4
    np.testing.assert_array_equal(
        found.predict_proba(convert(frame)), expected.predict_proba(frame)
    )


def test_predictions_are_those_of_the_learner() -> None:
    frame = table()
    found = classifier().fit(frame, labels(frame))
    shown = found.learner_.predict(frame)
    np.testing.assert_allclose(
        found.predict_proba(frame), shown[["high", "low"]].to_numpy(), rtol=1e-6
    )
    assert found.predict(frame).tolist() == shown["label"].tolist()
    assert found.predict(frame).tolist() == found.predictor_.predict(frame)["label"].tolist()


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int64, np.longdouble])
def test_the_dtype_of_numbers_does_not_matter(dtype: Any) -> None:
    x, y = numbers()
    x = np.round(x)
    expected = classifier().fit(x, y).predict_proba(x)
    found = classifier().fit(x.astype(dtype), y).predict_proba(x.astype(dtype))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_columns_of_an_array_of_numbers_are_numbers() -> None:
    x, y = numbers()
    x = np.column_stack([np.arange(N), x[:, 0] > 40, x[:, 0] // 20, np.ones(N), np.full(N, np.nan)])
    kinds = classifier().fit(x, y).plan_["columns"].value
    assert list(kinds.values()) == ["number", "number", "number", "constant", "empty"]
    given = TabularOptions(kinds={"x2": "category"})
    assert classifier(options=given).fit(x, y).plan_["columns"].value["x2"] == "category"


def test_a_list_of_rows_keeps_numbers_beside_text() -> None:
    frame = table()
    rows = [[age, job or "none"] for age, job in zip(frame["age"], frame["job"], strict=True)]
    found = classifier().fit(rows, labels(frame))
    assert found.plan_["columns"].value == {"x0": "number", "x1": "category"}
    assert len(found.predict(rows[:3])) == 3


def test_rows_without_names_are_read_by_position() -> None:
    x, y = numbers()
    frame = pd.DataFrame(x, columns=["age", "height"])
    named, unnamed = classifier().fit(frame, y), classifier().fit(x, y)
    with pytest.warns(UserWarning, match="X does not have valid feature names"):
        found = named.predict_proba(x)
    np.testing.assert_array_equal(found, named.predict_proba(frame))
    with pytest.warns(UserWarning, match="fitted without feature names"):
        found = unnamed.predict_proba(frame)
    np.testing.assert_array_equal(found, unnamed.predict_proba(x))


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (csr_array(np.eye(N)), TypeError, "Sparse data was passed for X"),
        (pl.LazyFrame({"a": [1.0] * N}), ValueError, r"X\.collect\(\)"),
        (table()["age"], ValueError, "Expected a 2-dimensional container"),
        (table().head(1), ValueError, r"1 sample\(s\).*minimum of 2"),
        (table()[[]], ValueError, r"0 feature\(s\)"),
        (pd.DataFrame(np.ones((N, 2)), columns=["a", "a"]), ValueError, "2 columns named 'a'"),
        (pd.DataFrame(np.ones((N, 2)), columns=["a", "b"]), ValueError, "No column is left"),
        (np.full((N, 1), {"a": 1}), ValueError, "'x0' has a dict in row 0"),
    ],
)
def test_invalid_rows_are_refused(rows: Any, error: type[Exception], message: str) -> None:
    y = np.arange(N if not isinstance(rows, pd.DataFrame) else len(rows)) % 2
    with pytest.raises(error, match=message):
        classifier().fit(rows, y)


def test_other_columns_at_prediction_are_refused_by_name() -> None:
    frame = table()
    found = classifier().fit(frame, labels(frame))
    with pytest.raises(ValueError, match="yet now missing:\n- age"):
        found.predict(frame.drop(columns="age"))
    with pytest.raises(ValueError, match="same order"):
        found.predict(frame[frame.columns[::-1]])
    with pytest.raises(ValueError, match="0 sample"):
        found.predict(frame.head(0))


# ---------------------------------------------------------------- y of classes


IS_HIGH = labels(table()) == "high"

LABELS: dict[str, tuple[Any, list[Any]]] = {
    "bool": (IS_HIGH, [False, True]),
    "int8": (IS_HIGH.astype(np.int8), [0, 1]),
    "negative": (np.where(IS_HIGH, 1, -1), [-1, 1]),
    "the ignored label of torch": (np.where(IS_HIGH, -100, 5), [-100, 5]),
    "floats": (np.where(IS_HIGH, 1.0, 2.0), [1.0, 2.0]),
    "not from 0": (np.where(IS_HIGH, 7, 3), [3, 7]),
    "blank": (np.where(IS_HIGH, "", " "), ["", " "]),
    "text of numbers": (np.where(IS_HIGH, "1", "0"), ["0", "1"]),
    "objects of text": (labels(table()).astype(object), ["high", "low"]),
    "objects of bool": (IS_HIGH.astype(object), [False, True]),
    "list": (labels(table()).tolist(), ["high", "low"]),
    "series": (pd.Series(labels(table())), ["high", "low"]),
    "nullable": (pd.Series(IS_HIGH).astype("boolean"), [False, True]),
    "Int64": (pd.Series(IS_HIGH).astype("Int64"), [0, 1]),
    "categorical": (pd.Series(labels(table()), dtype="category"), ["high", "low"]),
    "polars": (pl.Series(labels(table())), ["high", "low"]),
    "pyarrow": (pa.array(labels(table())), ["high", "low"]),
    "tensor": (torch.tensor(IS_HIGH), [False, True]),
    "dates": (
        np.where(IS_HIGH, np.datetime64("2021-01-01"), np.datetime64("2020-01-01")),
        [np.datetime64("2020-01-01"), np.datetime64("2021-01-01")],
    ),
}


@pytest.mark.parametrize(("y", "classes"), LABELS.values(), ids=LABELS)
def test_labels_come_back_in_their_type(y: Any, classes: list[Any]) -> None:
    x, _ = numbers()
    found = classifier(6).fit(x, y)
    assert found.classes_.tolist() == np.array(classes).tolist()
    predicted = found.predict(x)
    assert predicted.dtype == found.classes_.dtype
    assert set(predicted.tolist()) <= set(found.classes_.tolist())
    assert (predicted == np.asarray(y)).mean() > 0.8  # in the order of the probabilities
    best = found.classes_[found.predict_proba(x).argmax(axis=1)]
    np.testing.assert_array_equal(best, predicted)
    np.testing.assert_allclose(found.predict_proba(x).sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.ones(N), "only one class, '1.0', in all 120 rows"),
        (np.where(IS_HIGH, None, "a"), "NaN: the value of row"),
        (pd.Series(IS_HIGH).astype("Int64").where(~IS_HIGH), "contains NaN"),
        (np.where(IS_HIGH, np.nan, 1.0), "contains NaN"),
        (np.array(["2020-01-01", "NaT"] * (N // 2), dtype="datetime64[D]"), "contains NaN"),
        (np.random.default_rng(0).normal(size=N), "Unknown label type: continuous"),
        (np.where(IS_HIGH, "a", None).astype(object).reshape(-1, 1), "value of row"),
        (np.array(["a", 1] * (N // 2), dtype=object), "several types"),
        (np.arange(2 * N).reshape(N, 2) % 3, "several classes in its columns"),
        (IS_HIGH[:-1], "inconsistent numbers of samples"),
        (None, "requires y to be passed"),
    ],
)
def test_invalid_labels_are_refused(y: Any, message: str) -> None:
    x, _ = numbers()
    with pytest.raises((ValueError, TypeError), match=message):
        classifier().fit(x, y)


def test_several_labels_per_row() -> None:
    x, _ = numbers()
    y = np.column_stack([IS_HIGH, x[:, 1] > 170]).astype(int)
    found = classifier(8).fit(x, y)
    p, predicted = found.predict_proba(x), found.predict(x)
    assert p.shape == (N, 2)
    np.testing.assert_array_equal(predicted, (p > 0.5).astype(int))
    assert (predicted == y).mean() > 0.8
    sparse = classifier(8).fit(x, csr_array(y))
    named = classifier(8).fit(x, pd.DataFrame(y, columns=["high", "tall"]))
    np.testing.assert_array_equal(sparse.predict_proba(x), p)
    np.testing.assert_array_equal(named.predict_proba(x), p)
    assert named.predictor_.task.output_names == ("high", "tall")


# ---------------------------------------------------------------- y of numbers


def test_numbers_keep_their_shape_and_units() -> None:
    x, y = make_regression(N, 3, n_targets=2, random_state=0)
    y = 1e6 + 10 * y
    found = regressor(30).fit(x, y)
    assert found.predict(x).shape == (N, 2)
    assert found.score(x, y) > 0.9
    single = regressor(30).fit(x, y[:, 0])
    assert single.predict(x).shape == (N,)
    column = regressor(30).fit(x, y[:, :1])
    assert column.predict(x).shape == (N, 1)
    np.testing.assert_array_equal(column.predict(x)[:, 0], single.predict(x))
    large = regressor(30).fit(x, 1e12 + y[:, 0])  # float32 has a spacing of 65,536 there
    np.testing.assert_allclose(large.predict(x) - 1e12, single.predict(x), atol=0.01 * y.std())


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (labels(table()), "y has to be numbers"),
        (np.where(IS_HIGH, np.nan, 1.0), "contains NaN"),
        (np.where(IS_HIGH, np.inf, 1.0), "contains infinity"),
        (np.ones(N), "nothing to learn"),
        (np.ones((N, 2, 2)), "1d array"),
        (np.ones((N, 0)), "1d array"),
        (np.array([1, None] * (N // 2), dtype=object), "value of row 1 is None"),
    ],
)
def test_invalid_numbers_are_refused(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        regressor().fit(numbers()[0], y)


def test_counts_amounts_and_quantiles() -> None:
    draws = np.random.default_rng(0)
    frame = pd.DataFrame({"x": draws.normal(size=400), "days": draws.integers(1, 20, 400)})
    y = draws.poisson(np.exp(0.7 * frame["x"]) * frame["days"])
    options = TabularOptions(task="poisson", exposure="days")
    found = FlambeauRegressor(epochs=20, choices=SMALL, random_state=0, options=options)
    found.fit(frame, y)
    twice = found.predict(frame.assign(days=2 * frame["days"]))
    np.testing.assert_allclose(twice, 2 * found.predict(frame), rtol=1e-5)
    expected = np.exp(0.7 * frame["x"]) * frame["days"]
    assert np.median(np.abs(twice / 2 / expected - 1)) < 0.15
    assert found.score(frame, y) > 0.5
    quantiles = regressor(20, options=TabularOptions(task="quantile_regression"))
    assert quantiles.fit(frame, y).predict(frame).shape == (400,)
    median = quantiles.predictor_.predict(frame)["q0.5"]
    np.testing.assert_allclose(quantiles.predict(frame), median)
    with pytest.raises(ValueError, match="negative"):
        found.fit(frame, -y)


def test_costs_decide_the_predicted_class() -> None:
    x, y = numbers()
    costs = {"false_positive": 1.0, "false_negative": 9.0}
    found = classifier(6, options=TabularOptions(costs=costs)).fit(x, y)
    p = found.predict_proba(x)[:, 1]
    np.testing.assert_array_equal(found.predict(x) == "low", p >= 0.1)
    assert ((p >= 0.1) != (p >= 0.5)).any()


# ---------------------------------------------------------------- weights and parts


def test_rows_of_weight_0_are_as_good_as_absent() -> None:
    frame = table()
    y, weights = labels(frame), np.arange(N) % 3 / 2
    kept = weights > 0
    found = classifier().fit(frame, y, sample_weight=weights)
    expected = classifier().fit(frame[kept], y[kept], sample_weight=weights[kept])
    np.testing.assert_array_equal(found.predict_proba(frame), expected.predict_proba(frame))
    equal = classifier().fit(frame, y)
    assert np.abs(equal.predict_proba(frame) - found.predict_proba(frame)).max() > 1e-3


def test_a_class_of_weight_0_is_refused_if_one_is_left() -> None:
    x, y = numbers()
    with pytest.raises(ValueError, match=r"only one class, 'high', .* weight above 0"):
        classifier().fit(x, y, sample_weight=IS_HIGH)
    three = np.where(np.arange(N) % 3 == 0, "mid", y)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = classifier().fit(x, three, sample_weight=three != "mid")
    assert found.classes_.tolist() == ["high", "low", "mid"]
    assert "mid" not in found.predict(x)
    assert "class-not-in-train" in " ".join(str(each.message) for each in caught)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.where(IS_HIGH, -1.0, 1.0), "sample_weight is -1 in row"),
        (np.where(IS_HIGH, np.nan, 1.0), "sample_weight is nan in row"),
        (np.zeros(N), "weights are zero"),
        (np.ones((N, 1)), "one number per row"),
        (np.ones(N + 1), "inconsistent"),
    ],
)
def test_invalid_weights_are_refused(weights: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier().fit(*numbers(), sample_weight=weights)


def test_a_group_is_in_one_part() -> None:
    frame = table()
    groups = np.array([f"person {row % 30}" for row in range(N)])
    data = classifier().fit(frame, labels(frame), groups=groups).learner_.data
    parts = [set(groups[data.split.part(part)]) for part in ("train", "valid")]
    assert parts[0]
    assert parts[1]
    assert not parts[0] & parts[1]
    column = classifier(options=TabularOptions(group="since")).fit(frame, labels(frame))
    assert "since" not in column.plan_["columns"].value
    since = frame["since"].to_numpy()
    split = column.learner_.data.split
    assert not set(since[split.train]) & set(since[split.valid])


def test_a_column_of_time_splits_by_time() -> None:
    frame = table()
    found = classifier(options=TabularOptions(time="since")).fit(frame, labels(frame))
    split = found.learner_.data.split
    assert frame["since"][split.train].max() < frame["since"][split.valid].min()


def test_separate_validation_rows() -> None:
    frame = table()
    y = labels(frame)
    found = classifier(calibration=0.2).fit(
        frame[:80], y[:80], np.ones(80), X_val=frame[80:], y_val=y[80:]
    )
    split = found.learner_.data.split
    assert split.valid.tolist() == list(range(80, N))
    assert len(split.train) == 64
    assert len(split.calibration) == 16
    with pytest.raises(ValueError, match="labels that y does not have: 'mid'"):
        classifier().fit(frame[:80], y[:80], X_val=frame[80:], y_val=["mid"] * 40)
    with pytest.raises(TypeError, match="belong together"):
        classifier().fit(frame[:80], y[:80], X_val=frame[80:])


def test_intervals_after_calibration() -> None:
    frame = table()
    y = labels(frame)
    y[::6] = np.where(y[::6] == "high", "low", "high")  # no temperature is best without mistakes
    found = classifier(8, calibration=0.3).fit(frame, y)
    shown = found.predictor_.predict(frame.head(4), interval=0.9)
    assert all(0 < len(each) <= 2 for each in shown["classes"])
    assert shown.index.equals(frame.head(4).index)
    task = found.predictor_.task
    p = torch.tensor(found.predict_proba(frame))
    own = found.predictor_.outputs(frame) / task.calibration["temperature"]
    np.testing.assert_allclose(p, own.double().softmax(dim=1), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": TabularOptions(task="regression")}, "Use FlambeauClassifier for classes"),
        ({"options": TabularOptions(classes=["a", "b"])}, "does not apply here"),
        ({"options": TabularOptions(drop=["agee"])}, "Did you mean 'age'"),
        ({"options": {"kinds": {}}}, "options is"),
        ({"model": "tabmm"}, "Did you mean 'tabm'"),
        ({"model": torch.nn.Linear(2, 2)}, "with Learner"),
        ({"choices": {"learning_rat": 1}}, "no key 'learning_rat'"),
        ({"valid": 1.5}, "valid=1.5"),
        ({"epochs": 1.5}, "epochs is 1.5"),
    ],
)
def test_invalid_arguments_are_refused_in_fit(arguments: dict[str, Any], message: str) -> None:
    frame = table()
    with pytest.raises((ValueError, TypeError), match=message):
        classifier(**{"epochs": 2, **arguments}).fit(frame, labels(frame))


# ---------------------------------------------------------------- parameters


def test_choices_are_nested_parameters() -> None:
    estimator = classifier(choices={"lr": 0.01})
    assert estimator.get_params()["choices__lr"] == 0.01
    assert "choices__lr" not in estimator.get_params(deep=False)
    copied = clone(estimator).set_params(choices__lr=0.5, epochs=3, choices__weight_decay=0.1)
    assert copied.choices == {**SMALL, "lr": 0.5, "weight_decay": 0.1}
    assert estimator.choices == {**SMALL, "lr": 0.01}
    assert FlambeauClassifier().set_params(choices__lr=0.1).choices == {"lr": 0.1}
    fitted = copied.fit(*numbers())
    assert fitted.plan_["lr"].value == 0.5
    assert fitted.plan_["lr"].source == "user"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("max_epochs", "Did you mean 'epochs'"),
        ("lr", r"choices=\{'lr': …\}"),
        ("kinds", r"options=TabularOptions\(kinds=…\)"),
    ],
)
def test_an_unknown_argument_says_where_it_is_set(name: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        FlambeauClassifier(**{name: 1})


def test_random_state_decides_everything() -> None:
    x, y = numbers()
    torch.manual_seed(5)
    first = classifier(choices={"head": {"dropout": 0.5}}).fit(x, y).predict_proba(x)
    torch.manual_seed(6)
    again = classifier(choices={"head": {"dropout": 0.5}})
    np.testing.assert_array_equal(again.fit(x, y).predict_proba(x), first)
    np.testing.assert_array_equal(again.fit(x, y).predict_proba(x), first)
    other = again.set_params(random_state=1).fit(x, y).predict_proba(x)
    assert np.abs(other - first).max() > 1e-4
    drawn = again.set_params(random_state=np.random.RandomState(0))
    assert np.abs(drawn.fit(x, y).predict_proba(x) - drawn.fit(x, y).predict_proba(x)).max() > 1e-4


def test_a_fit_changes_no_global_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    x, y = numbers()
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    kept = x.copy()
    classifier().fit(x, y)
    assert torch.equal(torch.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])
    np.testing.assert_array_equal(x, kept)
    assert not list(tmp_path.iterdir())


def test_an_interrupted_fit_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    def stop(history: Any, progress: float) -> dict[str, float]:
        raise KeyboardInterrupt

    class Stops:
        update = staticmethod(stop)

    estimator = classifier(training=TrainingOptions(controllers=(Stops(),)))
    with pytest.raises(KeyboardInterrupt):
        estimator.fit(*numbers())
    assert not list(tmp_path.iterdir())
    with pytest.raises(NotFittedError):
        estimator.predict(numbers()[0])


# ---------------------------------------------------------------- pickles


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda each: pickle.loads(pickle.dumps(each))])
def test_a_copy_predicts_the_same(copied: Callable[[Any], Any]) -> None:
    frame = table()
    found = classifier(calibration=0.2).fit(frame, labels(frame))
    other = copied(copied(found))
    np.testing.assert_array_equal(other.predict_proba(frame), found.predict_proba(frame))
    assert other.get_params() == found.get_params()
    assert isinstance(other.plan_, Plan)
    assert other.plan_.values == found.plan_.values
    assert not hasattr(other, "learner_")
    with pytest.raises(AttributeError, match="neither data nor learner"):
        _ = other.learner_
    np.testing.assert_array_equal(  # it can be trained again
        other.fit(frame, labels(frame)).predict_proba(frame), found.predict_proba(frame)
    )


def test_a_pickle_has_the_export_and_no_data() -> None:
    frame = table().assign(note=[f"secret {row:04}" for row in range(N)])
    y = frame["age"] * 1.0 + frame["height"]
    found = regressor(options=TabularOptions(kinds={"note": "id"})).fit(frame, y)
    content = pickle.dumps(found)
    assert b"model.safetensors" in content
    assert b"secret" not in content
    assert len(content) < 200_000
    unfitted = pickle.loads(pickle.dumps(classifier()))
    with pytest.raises(NotFittedError):
        unfitted.predict(frame)


def test_a_pickle_predicts_in_a_new_process(tmp_path: Path) -> None:
    x, _ = numbers()
    found = regressor().fit(x, x[:, 0] + x[:, 1])
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(found))
    np.save(tmp_path / "x.npy", x)
    code = (
        "import pickle, numpy as np, sys\n"
        "found = pickle.load(open('model.pkl', 'rb'))\n"
        "np.save('y.npy', found.predict(np.load('x.npy')))\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    expected = found.predict(x)
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), expected, rtol=1e-5)


def test_a_damaged_pickle_is_refused() -> None:
    found = regressor().fit(numbers()[0], numbers()[0].sum(1))
    state = found.__getstate__()
    weights = bytearray(state["_artefact"]["model.safetensors"])
    weights[-1] ^= 255
    state["_artefact"]["model.safetensors"] = bytes(weights)
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        FlambeauRegressor().__setstate__(state)


def test_methods_before_fit_are_refused() -> None:
    for name in ("learner_", "plan_"):
        with pytest.raises(NotFittedError):
            getattr(FlambeauRegressor(), name)
    with pytest.raises(NotFittedError):
        FlambeauRegressor().predict(numbers()[0])
