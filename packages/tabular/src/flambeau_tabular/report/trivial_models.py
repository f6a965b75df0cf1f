"""Trivial baselines: the same prediction for every row, from the train targets alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from flambeau_tabular.report.features import Features
from flambeau_tabular.report.problem import Predicted, Problem
from flambeau_tabular.report.simple_models import Array, TrainRows

Constant = tuple[str, str, Callable[[Features], Predicted]]
"""Name, setting and prediction."""


def trivial_lines(problem: Problem, rows: TrainRows) -> Iterator[Constant]:
    """Yield the constant predictions of a problem: of all train rows, then of the last period."""
    every = np.ones(len(rows), dtype=bool)
    if problem.kind in ("numbers", "amounts"):
        yield _numbers("mean", "mean of the train targets", problem, rows, every, _mean)
        if problem.kind == "numbers":
            yield _numbers("median", "median of the train targets", problem, rows, every, _median)
    elif problem.kind == "quantiles":
        yield _quantiles("train quantiles", problem, rows, every)
    else:
        name = "majority class" if problem.kind == "classes" else "label frequencies"
        yield _shares(name, problem, rows, every)
    recent = rows.recent
    if recent is None or not 0 < recent.sum() < len(rows):
        return
    name, what = "last period", f"the {recent.sum():,} latest train rows"
    if problem.kind in ("numbers", "amounts"):
        yield _numbers(name, f"mean of {what}", problem, rows, recent, _mean)
    elif problem.kind == "quantiles":
        yield _quantiles(name, problem, rows, recent)
    else:
        yield _shares(name, problem, rows, recent)


def _mean(values: Array, weights: Array) -> float:
    return float(np.average(values, weights=weights))


def _median(values: Array, weights: Array) -> float:
    return weighted_quantile(values, weights, 0.5)


def weighted_quantile(values: Array, weights: Array, level: float) -> float:
    """Return the smallest value up to which ``level`` of the weight lies."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order])
    at = int(np.searchsorted(reached, level * reached[-1]))
    return float(values[order][min(at, len(values) - 1)])


def _numbers(
    name: str,
    setting: str,
    problem: Problem,
    rows: TrainRows,
    used: Array,
    of: Callable[[Array, Array], float],
) -> Constant:
    columns, weights = _columns(rows)[used].astype(np.float64), rows.each()[used]
    values = torch.tensor([of(each, weights) for each in columns.T], dtype=torch.float64)
    return name, setting, lambda x: Predicted(values.expand(len(x), -1))


def _quantiles(name: str, problem: Problem, rows: TrainRows, used: Array) -> Constant:
    columns, weights = _columns(rows)[used].astype(np.float64), rows.each()[used]
    found = [[weighted_quantile(each, weights, q) for q in problem.levels] for each in columns.T]
    quantiles = torch.tensor(found, dtype=torch.float64)
    median = quantiles[:, problem.levels.index(0.5)]
    setting = f"quantiles of the targets of {used.sum():,} train rows"

    def predicted(x: Features) -> Predicted:
        return Predicted(median.expand(len(x), -1), quantiles=quantiles.expand(len(x), -1, -1))

    return name, setting, predicted


def _shares(name: str, problem: Problem, rows: TrainRows, used: Array) -> Constant:
    """Return the shares of the classes or labels; one more row of each keeps the loss finite."""
    targets, weights = rows.targets[used], rows.each()[used]
    k = len(problem.names)
    if problem.kind == "classes":
        counts = np.bincount(targets.astype(np.int64), weights=weights, minlength=k) + 1
        shares = torch.from_numpy(counts / counts.sum())
    else:
        shares = torch.from_numpy((weights @ (targets > 0.5) + 1) / (weights.sum() + 2))
    setting = f"shares in {used.sum():,} train rows"

    def predicted(x: Features) -> Predicted:
        values = shares.expand(len(x), -1)
        return Predicted(values, problem.decided(values, (0.5,) * k))

    return name, setting, predicted


def _columns(rows: TrainRows) -> Array:
    return rows.targets if rows.targets.ndim == 2 else rows.targets[:, None]
