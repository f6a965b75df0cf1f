"""Baselines of libraries that may be installed: LightGBM, CatBoost, XGBoost, TabICL."""

# These libraries are not installed where the types are checked.
# pyright: reportMissingImports=false

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch

from flambeau.task.numerics import distinct
from flambeau_tabular.report.features import Features
from flambeau_tabular.report.problem import Problem
from flambeau_tabular.report.simple_models import (
    Array,
    Fit,
    Predict,
    Single,
    TrainRows,
    all_classes,
    only_class,
)

_ROUNDS, _PATIENCE = 1_000, 50


@dataclass(frozen=True)
class OptionalModel:
    """A model of a library that need not be installed.

    Attributes:
        name: Name of the line.
        module: Module to import.
        setting: Its setting as text.
        fit: Fits one target.
        kinds: Kinds of problems that it has a loss for.
        most_rows: Train rows up to which it is fitted; None if any number.
    """

    name: str
    module: str
    setting: str
    fit: Fit
    kinds: tuple[str, ...] = ("classes", "labels", "numbers", "amounts")
    most_rows: int | None = None

    def why_absent(self, problem: Problem, n_rows: int) -> str | None:
        """Return why there is no such line; None if it can be fitted."""
        if find_spec(self.module) is None:
            return f"not installed (pip install {self.module})"
        if problem.kind not in self.kinds:
            return f"not fitted for {problem.kind} here"
        if self.most_rows is not None and n_rows > self.most_rows:
            return f"slow on a CPU for more than {self.most_rows:,} train rows"
        return None


def _fit_boosted(create: Callable[..., Any], single: Single, rows: TrainRows, y: Array) -> Any:
    """Fit with early stopping on the held-out rows, then on all rows with the best rounds.

    Args:
        create: Returns ``(fit, best)``: ``fit(rounds, train, held_out)`` returns a model that was
            stopped early, or the predictions if there are no held-out rows; ``best(model)`` the
            number of rounds after which it was best.
        single: The target.
        rows: The train rows.
        y: The target of each, ``(n,)``.
    """
    matrix, categories = rows.features.for_trees()
    kept, held = ~rows.held_out, rows.held_out
    fit, best = create(single, categories)
    rounds = _ROUNDS
    if held.any() and (single.kind != "classes" or len(np.unique(y[kept])) == single.classes):
        weights = rows.weights
        first = fit(
            _ROUNDS,
            (matrix[kept], y[kept], None if weights is None else weights[kept]),
            (matrix[held], y[held]),
        )
        rounds = max(1, best(first))
    else:
        rounds = 200
    return fit(rounds, (matrix, y, rows.weights), None), rounds


def _boosted(create: Callable[..., Any]) -> Fit:
    def fit(single: Single, rows: TrainRows, y: Array) -> tuple[Predict, str]:
        if single.kind == "classes":
            constant = only_class(y, single.classes)
            if constant is not None:
                return constant, "one class in train"
        # Classes that train lacks would leave a gap in the numbers.
        present, numbers = (each.numpy() for each in distinct(torch.from_numpy(y)))
        coded = numbers if single.kind == "classes" else y
        known = Single("classes", len(present)) if single.kind == "classes" else single
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            predict, rounds = _fit_boosted(create, known, rows, coded)

        def predicted(x: Features) -> Array:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = np.asarray(predict(x.for_trees()[0]), dtype=np.float64)
            if single.kind == "classes":
                return all_classes(found, present, single.classes)
            return found.reshape(-1)

        return predicted, f"{rounds} rounds"

    return fit


# ---------------------------------------------------------------- LightGBM


def _lightgbm(single: Single, categories: list[int]) -> Any:
    import lightgbm

    settings: dict[str, Any] = {"learning_rate": 0.05, "random_state": 0, "verbose": -1}
    if single.kind == "amount":
        settings["objective"] = {1.0: "poisson", 2.0: "gamma"}.get(single.power, "tweedie")
        if settings["objective"] == "tweedie":
            settings["tweedie_variance_power"] = single.power
    elif single.loss == "mae":
        settings["objective"] = "l1"

    def fit(rounds: int, train: Any, held_out: Any) -> Any:
        kind = lightgbm.LGBMClassifier if single.kind == "classes" else lightgbm.LGBMRegressor
        model = kind(n_estimators=rounds, **settings)
        x, y, weights = train
        stop: dict[str, Any] = {}
        if held_out is not None:
            stopping = lightgbm.early_stopping(_PATIENCE, verbose=False)
            stop = {"eval_set": [held_out], "callbacks": [stopping]}
        model.fit(x, y, weights, categorical_feature=categories, **stop)
        if held_out is not None:
            return model
        return model.predict_proba if single.kind == "classes" else model.predict

    return fit, lambda model: int(model.best_iteration_)


# ---------------------------------------------------------------- XGBoost


def _xgboost(single: Single, categories: list[int]) -> Any:
    import xgboost

    settings: dict[str, Any] = {
        "learning_rate": 0.1,
        "tree_method": "hist",
        "enable_categorical": True,
        "random_state": 0,
    }
    if single.kind == "amount":
        objective = {1.0: "count:poisson", 2.0: "reg:gamma"}.get(single.power, "reg:tweedie")
        settings["objective"] = objective
        if objective == "reg:tweedie":
            settings["tweedie_variance_power"] = single.power
    elif single.loss == "mae":
        settings["objective"] = "reg:absoluteerror"

    def fit(rounds: int, train: Any, held_out: Any) -> Any:
        kind = xgboost.XGBClassifier if single.kind == "classes" else xgboost.XGBRegressor
        stop = {} if held_out is None else {"early_stopping_rounds": _PATIENCE}
        x, y, weights = train
        types = ["c" if at in categories else "q" for at in range(x.shape[1])]
        model = kind(n_estimators=rounds, feature_types=types, **settings, **stop)
        sets = None if held_out is None else [held_out]
        model.fit(x, y, sample_weight=weights, eval_set=sets, verbose=False)
        if held_out is not None:
            return model
        return model.predict_proba if single.kind == "classes" else model.predict

    return fit, lambda model: int(model.best_iteration) + 1


# ---------------------------------------------------------------- CatBoost


def _catboost(single: Single, categories: list[int]) -> Any:
    import catboost

    settings: dict[str, Any] = {
        "learning_rate": 0.1,
        "random_seed": 0,
        "verbose": False,
        "allow_writing_files": False,
    }
    if single.kind == "amount":
        power = min(max(single.power, 1.0), 1.99)
        poisson = single.power == 1
        settings["loss_function"] = "Poisson" if poisson else f"Tweedie:variance_power={power}"
    elif single.kind == "number" and single.loss == "mae":
        settings["loss_function"] = "MAE"

    def listed(x: Array) -> Any:
        rows = x.astype(object)
        for at in categories:
            missing = np.isnan(x[:, at])
            texts = np.where(missing, -1, x[:, at]).astype(np.int64).astype(str)
            rows[:, at] = np.where(missing, "missing", texts)
        return rows

    def fit(rounds: int, train: Any, held_out: Any) -> Any:
        kind = catboost.CatBoostClassifier
        kind = kind if single.kind == "classes" else catboost.CatBoostRegressor
        model = kind(iterations=rounds, **settings)
        x, y, weights = train
        stop: dict[str, Any] = {}
        if held_out is not None:
            held_set = (listed(held_out[0]), held_out[1])
            stop = {"eval_set": held_set, "early_stopping_rounds": _PATIENCE}
        model.fit(listed(x), y, cat_features=categories, sample_weight=weights, **stop)
        if held_out is not None:
            return model
        predict = model.predict_proba if single.kind == "classes" else model.predict
        if single.kind == "amount":
            return lambda each: model.predict(listed(each), prediction_type="Exponent")
        return lambda each: predict(listed(each))

    return fit, lambda model: int(model.get_best_iteration() or 0) + 1


# ---------------------------------------------------------------- TabICL


def _fit_tabicl(single: Single, rows: TrainRows, y: Array) -> tuple[Predict, str]:
    """Fit TabICL from weights that are on this machine; it never downloads."""
    tabicl = importlib.import_module("tabicl")
    if single.kind == "classes":
        constant = only_class(y, single.classes)
        if constant is not None:
            return constant, "one class in train"
    kind = tabicl.TabICLClassifier if single.kind == "classes" else tabicl.TabICLRegressor
    model = kind(allow_auto_download=False, random_state=0)
    model.fit(rows.features.for_trees()[0], y)

    def predict(x: Features) -> Array:
        values = x.for_trees()[0]
        if single.kind == "classes":
            return all_classes(model.predict_proba(values), model.classes_, single.classes)
        return np.asarray(model.predict(values), dtype=np.float64)

    return predict, "weights ignored" if rows.weights is not None else ""


_STOPPING = (
    f"rounds (at most {_ROUNDS:,}) by early stopping on 15% of the train rows, then fitted on all"
)

OPTIONAL_MODELS = (
    OptionalModel("LightGBM", "lightgbm", f"learning_rate=0.05, {_STOPPING}", _boosted(_lightgbm)),
    OptionalModel(
        "XGBoost", "xgboost", f"learning_rate=0.1, hist, {_STOPPING}", _boosted(_xgboost)
    ),
    OptionalModel(
        "CatBoost",
        "catboost",
        f"learning_rate=0.1, {_STOPPING}",
        _boosted(_catboost),
        most_rows=50_000,
    ),
    OptionalModel(
        "TabICL",
        "tabicl",
        "default settings, weights of this machine only",
        _fit_tabicl,
        kinds=("classes", "numbers"),
        most_rows=5_000,
    ),
)
