"""Inputs with which other estimators of networks and boosting failed, by their public reports."""

from __future__ import annotations

from typing import Any

import joblib
import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import BaggingClassifier
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline

from flambeau_tabular import TabularOptions
from flambeau_tabular.sklearn import FlambeauClassifier, FlambeauRegressor

N = 150


def classifier(epochs: int = 2, **arguments: Any) -> FlambeauClassifier:
    choices = {"hidden": [16], "batch_size": 16}
    return FlambeauClassifier(epochs=epochs, choices=choices, random_state=0, **arguments)


def numbers() -> tuple[np.ndarray, np.ndarray]:
    """Return two columns, and labels that noise makes unclear in some rows."""
    draws = np.random.default_rng(0)
    x = draws.normal(size=(N, 2))
    return x, np.where(x[:, 0] + draws.normal(0, 0.4, N) > 0, "up", "down")


def categories() -> pd.DataFrame:
    draws = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "job": pd.Categorical(draws.choice(["clerk", "nurse", "pilot"], N)),
            "code": pd.Categorical(draws.integers(1, 6, N)),
            "size": pd.Categorical(draws.choice(["S", "M"], N), ["S", "M"], ordered=True),
        }
    )


def test_labels_of_validation_rows_are_those_of_train() -> None:
    # LightGBM 7400, XGBoost 803: labels of the validation rows were not encoded.
    x, text = numbers()
    y = np.where(text == "up", 7, 3)
    found = classifier(5).fit(x[:100], y[:100], X_val=x[100:], y_val=y[100:])
    rows = found.learner_.history.rows
    best = min(rows, key=lambda row: float(row["valid_refined_log_loss"]))
    accuracy = (found.predict(x[100:]) == y[100:]).mean()
    assert float(best["valid_accuracy"]) == pytest.approx(accuracy)
    assert accuracy > 0.7


def test_categories_are_matched_by_value() -> None:
    # AutoGluon 5830 and 5808: codes of pandas, object against int64; LightGBM 921.
    frame, y = categories(), numbers()[1]
    found = classifier().fit(frame, y)
    expected = found.predict_proba(frame)
    others = {
        "objects": frame.astype({"job": object, "code": object, "size": object}),
        "numbers": frame.assign(code=frame["code"].astype(np.int64)),
        "floats": frame.assign(code=frame["code"].astype(float)),
        "text": frame.assign(code=frame["code"].astype(str), size=frame["size"].astype(str)),
        "another order": frame.assign(
            job=frame["job"].cat.set_categories(["pilot", "nurse", "clerk"]),
            code=frame["code"].cat.set_categories([9, 5, 4, 3, 2, 1]),
        ),
    }
    for name, other in others.items():
        np.testing.assert_array_equal(found.predict_proba(other), expected, err_msg=name)
    few = frame.head(3).assign(job=frame["job"].head(3).cat.remove_unused_categories())
    np.testing.assert_allclose(found.predict_proba(few), expected[:3], rtol=1e-5)
    unseen = frame.head(4).assign(job=pd.Categorical(["baker"] * 4))
    assert np.isfinite(found.predict_proba(unseen)).all()


def test_pipelines_and_scores_know_the_kind() -> None:
    # pytabkit 7 and TabNet 584: the estimator was taken for a regressor.
    assert is_classifier(make_pipeline(FlambeauClassifier()))
    assert is_regressor(make_pipeline(FlambeauRegressor()))
    x, y = numbers()
    for score in ("roc_auc", "neg_log_loss", "neg_brier_score", "average_precision"):
        # y is 0 and 1, because two of the scores have no default for the positive class.
        found = cross_val_score(classifier(), x, (y == "up").astype(int), cv=2, scoring=score)
        assert np.isfinite(found).all(), score


def test_clones_are_new_and_independent() -> None:
    # CatBoost 3078 and 2337: mutable parameters; skorch 521: the clone of a fit was fitted.
    x, y = numbers()
    options = TabularOptions(kinds={"x0": "number"}, drop=["x1"])
    found = classifier(options=options).fit(x, y)
    copied = clone(found)
    assert not hasattr(copied, "predictor_")
    assert copied.options == options
    assert copied.options is not options
    copied.choices["hidden"].append(8)
    assert found.choices == {"hidden": [16], "batch_size": 16}
    twice = clone(make_pipeline(copied).set_params(flambeauclassifier__choices__lr=None))
    assert twice.get_params()["flambeauclassifier__choices__lr"] is None


@pytest.mark.filterwarnings("ignore:.undefined-score")  # of the validation part
def test_classes_that_some_folds_lack() -> None:
    # XGBoost 4705, TPOT 1220: columns of probabilities shifted.
    x, y = numbers()
    y = np.where(np.arange(N) % 50 == 0, "rare", y)
    found = cross_val_predict(classifier(), x, y, cv=3, method="predict_proba")
    assert found.shape == (N, 3)
    order = np.array(["down", "rare", "up"])
    assert (order[found.argmax(axis=1)] == y).mean() > 0.6


@pytest.mark.parametrize("options", [{"compress": 3}, {}])
def test_joblib_keeps_the_predictions(options: dict[str, Any], tmp_path: Any) -> None:
    x, y = numbers()
    found = classifier().fit(x, y)
    joblib.dump(found, tmp_path / "model.joblib", **options)
    loaded = joblib.load(tmp_path / "model.joblib", mmap_mode=None if options else "r")
    np.testing.assert_array_equal(loaded.predict_proba(x), found.predict_proba(x))


def test_rows_belong_together_by_position() -> None:
    x, y = numbers()
    weights = 0.5 + np.arange(N) % 3
    expected = classifier().fit(x, y, sample_weight=weights).predict_proba(x)
    frame = pd.DataFrame(x, index=np.zeros(N))
    other = np.random.default_rng(0).permutation(N)
    found = classifier().fit(
        frame, pd.Series(y, index=other), sample_weight=pd.Series(weights, index=other[::-1])
    )
    # The frame has names, so that its kinds are inferred; here they are numbers, too.
    np.testing.assert_array_equal(found.predict_proba(frame), expected)


def test_names_of_columns_and_classes_are_free() -> None:
    x, _ = numbers()
    frame = pd.DataFrame(x, columns=["target", "y"])
    frame["split"] = np.where(np.arange(N) % 5 == 0, "valid", "train")
    frame["weight"] = frame["label"] = np.random.default_rng(2).normal(size=N)
    y = np.where(x[:, 0] > 0, "label", "row")
    found = classifier(5).fit(frame, y)
    assert found.plan_["split"].value.startswith("random")
    assert "split" in found.plan_["columns"].value
    assert (found.predict(frame) == y).mean() > 0.8
    shown = found.predictor_.predict(frame.head(2))
    np.testing.assert_allclose(
        shown[["probabilities.label", "probabilities.row"]], found.predict_proba(frame)[:2], 1e-5
    )


def test_columns_of_an_array_that_are_no_inputs() -> None:
    x, y = numbers()
    x = np.column_stack([x, np.arange(N) % 30, np.ones(N)])
    options = TabularOptions(drop=["x0"], group="x2", weight="x3")
    kinds = classifier(options=options).fit(x, y).plan_["columns"].value
    assert kinds == {"x1": "number"}


def test_ensembles_of_scikit_learn_copy_the_estimator() -> None:
    # scikeras 4: an estimator in BaggingClassifier could not be copied.
    x, y = numbers()
    bagged = BaggingClassifier(classifier(), 2, random_state=0).fit(x, y, sample_weight=np.ones(N))
    assert bagged.predict_proba(x).shape == (N, 2)
    calibrated = CalibratedClassifierCV(classifier(), cv=2).fit(x, y)
    assert (calibrated.predict(x) == y).mean() > 0.6


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (pd.Series(pd.date_range("2020-01-01", periods=N)), "dates or durations"),
        (pd.Series(pd.to_timedelta(np.arange(N), unit="D")), "dates or durations"),
        (np.arange(N) * 1e300, "too large"),
    ],
)
def test_numbers_that_nobody_can_learn_are_refused(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FlambeauRegressor(epochs=1).fit(numbers()[0], y)


@pytest.mark.slow
def test_a_search_in_several_processes_finds_the_same() -> None:
    x, y = numbers()
    grid = {"choices__lr": [1e-4, 0.05], "valid": [0.2, 0.3]}
    one = GridSearchCV(classifier(), grid, cv=2, n_jobs=1).fit(x, y)
    two = GridSearchCV(classifier(), grid, cv=2, n_jobs=2).fit(x, y)
    assert one.best_params_ == two.best_params_
    np.testing.assert_allclose(
        one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"], atol=0.03
    )
