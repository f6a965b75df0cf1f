"""``SingleTarget`` models: what every library has to fit for a baseline, one target at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from flambeau_tabular.report.features import Features
from flambeau_tabular.report.problem import Predicted, Problem

SingleKind = Literal["classes", "number", "amount", "quantile"]
Array = NDArray[Any]
Predict = Callable[[Features], Array]
"""Probabilities ``(n, classes)``, or numbers ``(n,)``."""

MOST_SINGLES = 12
"""A problem with more targets, labels or levels has no line of a model that fits each alone."""


@dataclass(frozen=True)
class Single:
    """One target of a problem.

    Attributes:
        kind: "classes", "number", "amount" (positive, with logarithmic link) or "quantile".
        classes: Number of classes.
        loss: "mse", "huber" or "mae" for a number.
        power: Variance power of an amount.
        level: Level of a quantile.
    """

    kind: SingleKind
    classes: int = 0
    loss: str = "mse"
    power: float = 1.0
    level: float = 0.5


@dataclass(frozen=True, eq=False)
class TrainRows:
    """The rows on which baselines are fitted.

    Attributes:
        features: Their features.
        targets: As in the problem, ``(n,)`` or ``(n, values)``.
        weights: Weights ``(n,)``; None if all are equal.
        held_out: Whether a row is in the part that chooses the number of rounds, bool ``(n,)``: the
            latest rows if the data have a time, whole groups if they have groups.
        recent: Whether a row is in the last period, as long as the scored part; None without time.
    """

    features: Features
    targets: Array
    weights: Array | None
    held_out: NDArray[np.bool_]
    recent: NDArray[np.bool_] | None = None

    def __len__(self) -> int:
        return len(self.features)

    def each(self) -> Array:
        """Return the weights, or ones."""
        return np.ones(len(self)) if self.weights is None else self.weights


Fit = Callable[[Single, TrainRows, Array], tuple[Predict, str]]
"""Fits one target ``(n,)`` and returns its predictions and a word on what was chosen."""


def fit_problem(problem: Problem, rows: TrainRows, fit: Fit) -> tuple[Callable[..., Any], str]:
    """Return a function of features that gives ``Predicted``, and what was chosen in the fits."""
    targets = rows.targets
    if problem.kind == "classes":
        predict, note = fit(Single("classes", len(problem.names)), rows, targets)
        return lambda x: _decided(problem, predict(x)), note
    singles = _singles(problem)
    columns = targets if targets.ndim == 2 else targets[:, None]
    fitted: list[Predict] = []
    notes: list[str] = []
    for column, single in singles:
        y = columns[:, column].astype(np.float64)
        predict, note = fit(single, rows, _to_log(problem, y))
        fitted.append(predict)
        notes.append(note)

    def predicted(x: Features) -> Predicted:
        each = [predict(x) for predict in fitted]
        if problem.kind == "labels":
            return _decided(problem, np.stack([p[:, 1] for p in each], axis=1))
        values = np.stack([_from_log(problem, values) for values in each], axis=1)
        if problem.kind != "quantiles":
            return Predicted(torch.from_numpy(values))
        levels = np.sort(values.reshape(len(values), len(problem.names), -1), axis=2)
        quantiles = torch.from_numpy(levels)
        return Predicted(quantiles[..., problem.levels.index(0.5)], quantiles=quantiles)

    return predicted, ", ".join(dict.fromkeys(filter(None, notes)))


def n_singles(problem: Problem) -> int:
    """Return how many models a problem needs."""
    return 1 if problem.kind == "classes" else len(_singles(problem))


def _singles(problem: Problem) -> list[tuple[int, Single]]:
    """Return the target column and the kind of each model."""
    columns = range(len(problem.names))
    if problem.kind == "labels":
        return [(at, Single("classes", 2)) for at in columns]
    if problem.kind == "amounts":
        return [(at, Single("amount", power=problem.power)) for at in columns]
    if problem.kind == "quantiles":
        levels = problem.levels
        return [(at, Single("quantile", level=level)) for at in columns for level in levels]
    return [(at, Single("number", loss=problem.loss)) for at in columns]


def _decided(problem: Problem, probabilities: Array) -> Predicted:
    values = torch.from_numpy(np.ascontiguousarray(probabilities, dtype=np.float64))
    # Thresholds that were fitted for the network are not those of another model.
    thresholds = (0.5,) * len(problem.names)
    return Predicted(values, problem.decided(values, thresholds))


def _to_log(problem: Problem, y: Array) -> Array:
    return {"log": np.log, "log1p": np.log1p}.get(problem.log, _same)(y)


def _from_log(problem: Problem, y: Array) -> Array:
    return {"log": np.exp, "log1p": np.expm1}.get(problem.log, _same)(y)


def _same(y: Array) -> Array:
    return y


def all_classes(found: Array, classes: Any, n_classes: int) -> Array:
    """Return probabilities ``(n, n_classes)``; a class that train does not have has 0."""
    p = np.zeros((len(found), n_classes))
    p[:, np.asarray(classes).astype(np.int64)] = found
    return p


def only_class(y: Array, n_classes: int) -> Predict | None:
    """Return the constant prediction if there is only one class in train, which no library fits."""
    if len(np.unique(y)) > 1:
        return None
    return lambda x: all_classes(np.ones((len(x), 1)), y[:1], n_classes)


def settings_text(values: Mapping[str, Any]) -> str:
    """Return settings as text: ``C=1, max_iter=300``."""
    return ", ".join(f"{name}={value}" for name, value in values.items())
