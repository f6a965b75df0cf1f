"""Baselines of scikit-learn: linear models, and gradient boosting of histograms."""

# scikit-learn has no types.
# pyright: reportMissingTypeStubs=false

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from flambeau_tabular.report.features import Features, with_few_codes
from flambeau_tabular.report.simple_models import (
    Array,
    Predict,
    Single,
    TrainRows,
    all_classes,
    only_class,
)

_MOST_ITERATIONS = 300
_MOST_LEVEL_ROWS = 2_000  # a linear program, whose time grows with the square of the rows
_ROUNDS, _MOST_TREES = 400, 4_000
_EPS = 1e-15


def linear_setting(single: str) -> str:
    """Return the setting of the linear model of a problem of this kind as text."""
    encoded = "numbers standardised, categories one-hot (at most 100 each)"
    models = {
        "classes": "LogisticRegression(C=1)",
        "labels": "LogisticRegression(C=1) for each label",
        "numbers": "Ridge(alpha=1)",
        "amounts": "generalised linear model with logarithmic link, alpha=1e-3",
        "quantiles": f"QuantileRegressor(alpha=1e-3), at most {_MOST_LEVEL_ROWS:,} rows",
    }
    return f"{models[single]}; {encoded}"


def fit_linear(single: Single, rows: TrainRows, y: Array) -> tuple[Predict, str]:
    """Fit a linear model of one target."""
    from sklearn.compose import ColumnTransformer
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    if single.kind == "classes":
        constant = only_class(y, single.classes)
        if constant is not None:
            return constant, "one class in train"
    matrix, scaled, coded = rows.features.for_linear()
    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", max_categories=100)
    encode = ColumnTransformer(
        [("scaled", StandardScaler(), scaled), ("coded", encoder, coded)], remainder="passthrough"
    )
    weights = rows.weights
    if single.kind == "quantile" and len(matrix) > _MOST_LEVEL_ROWS:
        chosen = np.random.default_rng(0).permutation(len(matrix))[:_MOST_LEVEL_ROWS]
        matrix, y = matrix[chosen], y[chosen]
        weights = None if weights is None else weights[chosen]
    model = make_pipeline(encode, _linear(single))
    name = model.steps[-1][0]
    note = ""
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        try:
            model.fit(matrix, y, **{f"{name}__sample_weight": weights})
        except ConvergenceWarning:
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(matrix, y, **{f"{name}__sample_weight": weights})
            note = f"not converged after {_MOST_ITERATIONS} iterations"

    def predict(x: Features) -> Array:
        values = x.for_linear()[0]
        if single.kind == "classes":
            return all_classes(model.predict_proba(values), model.classes_, single.classes)
        return np.asarray(model.predict(values), dtype=np.float64)

    return predict, note


def _linear(single: Single) -> Any:
    from sklearn.linear_model import (
        GammaRegressor,
        LogisticRegression,
        PoissonRegressor,
        QuantileRegressor,
        Ridge,
        TweedieRegressor,
    )

    if single.kind == "classes":
        return LogisticRegression(C=1.0, max_iter=_MOST_ITERATIONS)
    if single.kind == "quantile":
        return QuantileRegressor(quantile=single.level, alpha=1e-3, solver="highs")
    if single.kind == "number":
        return Ridge(alpha=1.0)
    if single.power == 1:
        return PoissonRegressor(alpha=1e-3, max_iter=_MOST_ITERATIONS)
    if single.power == 2:
        return GammaRegressor(alpha=1e-3, max_iter=_MOST_ITERATIONS)
    return TweedieRegressor(power=single.power, link="log", alpha=1e-3, max_iter=_MOST_ITERATIONS)


HISTOGRAM_SETTING = (
    f"learning_rate=0.1, max_leaf_nodes=31, categories and missing cells native; rounds (at most "
    f"{_ROUNDS}) chosen on 15% of the train rows, then fitted on all"
)


def fit_histogram(single: Single, rows: TrainRows, y: Array) -> tuple[Predict, str]:
    """Fit HistGradientBoosting of one target; the number of rounds is chosen on held-out rows."""
    if single.kind == "classes":
        constant = only_class(y, single.classes)
        if constant is not None:
            return constant, "one class in train"
    features, _ = with_few_codes(rows.features, rows.features)
    matrix, categories = features.for_trees()
    kept = ~rows.held_out
    most = _ROUNDS
    if single.classes > 2:
        most = max(20, min(_ROUNDS, _MOST_TREES // single.classes))
    rounds = most
    if rows.held_out.any() and (single.kind != "classes" or len(np.unique(y[kept])) > 1):
        first = _histogram(single, categories, most)
        first.fit(matrix[kept], y[kept], _some(rows.weights, kept))
        held_out = rows.held_out
        staged = first.staged_predict_proba if single.kind == "classes" else first.staged_predict
        each = rows.each()[held_out]
        losses = [
            float(np.average(_losses(single, first, found, y[held_out]), weights=each))
            for found in staged(matrix[held_out])
        ]
        rounds = int(np.argmin(losses)) + 1
    model = _histogram(single, categories, rounds)
    model.fit(matrix, y, rows.weights)

    def predict(x: Features) -> Array:
        values = with_few_codes(rows.features, x)[1].for_trees()[0]
        if single.kind == "classes":
            return all_classes(model.predict_proba(values), model.classes_, single.classes)
        return np.asarray(model.predict(values), dtype=np.float64)

    return predict, f"{rounds} rounds"


def _histogram(single: Single, categories: list[int], rounds: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    settings: dict[str, Any] = {
        "learning_rate": 0.1,
        "max_iter": rounds,
        "early_stopping": False,
        "categorical_features": categories or None,
        "random_state": 0,
    }
    if single.kind == "classes":
        return HistGradientBoostingClassifier(**settings)
    if single.kind == "quantile":
        settings |= {"loss": "quantile", "quantile": single.level}
    elif single.kind == "amount":
        settings["loss"] = "gamma" if single.power == 2 else "poisson"
    elif single.loss == "mae":
        settings["loss"] = "absolute_error"
    return HistGradientBoostingRegressor(**settings)


def _losses(single: Single, model: Any, found: Array, y: Array) -> Array:
    """Return the loss of each row, with which the number of rounds is chosen."""
    if single.kind == "classes":
        p = all_classes(found, model.classes_, single.classes)
        return -np.log(np.clip(p[np.arange(len(y)), y.astype(np.int64)], _EPS, 1))
    error = y - found
    if single.kind == "quantile":
        return np.maximum(single.level * error, (single.level - 1) * error)
    if single.kind == "amount" and single.power == 2:
        return np.log(found) + y / found
    if single.kind == "amount":
        return found - y * np.log(found)
    return np.abs(error) if single.loss == "mae" else error**2


def _some(weights: Array | None, rows: Array) -> Array | None:
    return None if weights is None else weights[rows]
