"""Measures of predictions, as functions of the weights of the rows, with bootstrap intervals.

A resample is a weight for each row (how often the row was drawn), so that all models are scored on
the same resamples by a few matrix products. ``tests/tabular/test_report_measures.py`` compares the
values with scikit-learn and the intervals with a slow loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flambeau.report.intervals import Interval, percentiles, resampled_counts
from flambeau.task.deviance_metrics import unit_deviance
from flambeau.task.numerics import distinct
from flambeau_tabular.report.problem import Predicted, Problem

Statistic = Callable[[Tensor], Tensor]
"""Weights of the rows ``(resamples, n)`` → the value of a measure ``(resamples,)``."""

_MOST_DRAWS = 20_000_000
_MOST_CURVES = 10  # classes or labels for which an AUROC is computed
_EPS = 1e-15  # of probabilities in the log-loss


@dataclass(frozen=True)
class Measure:
    """A measure of predictions.

    Attributes:
        name: As in core's metrics.
        higher: Whether a higher value is better; None for a coverage, which has a nominal value.
        of: Returns the statistic of predictions and targets.
    """

    name: str
    higher: bool | None
    of: Callable[[Predicted, Tensor], Statistic]


@dataclass(frozen=True)
class Score:
    """A measure of one model.

    Attributes:
        interval: The value with its interval.
        difference: This model minus the reference model, on the same resamples; None for the
            reference itself.
    """

    interval: Interval
    difference: Interval | None = None


@dataclass(frozen=True, eq=False)
class Rows:
    """The scored rows.

    Attributes:
        targets: Class numbers ``(n,)``, labels ``(n, labels)``, or numbers ``(n, values)``.
        weights: Weights ``(n,)``, float64; None if all count equally.
        groups: Group numbers ``(n,)``, which are resampled as a whole; None without groups.
    """

    targets: Tensor
    weights: Tensor | None = None
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def take(self, rows: Tensor) -> Rows:
        """Return some rows."""
        parts = (self.targets, self.weights, self.groups)
        return Rows(*(None if each is None else each[rows] for each in parts))  # pyright: ignore[reportArgumentType]

    def each(self) -> Tensor:
        """Return the weights, or ones."""
        ones = torch.ones(len(self), dtype=torch.float64)
        return ones if self.weights is None else self.weights.double()

    @property
    def units(self) -> int:
        """Number of independent units: groups, or rows."""
        return len(self) if self.groups is None else len(distinct(self.groups)[0])


def measures_of(problem: Problem) -> tuple[Measure, ...]:
    """Return the measures of a problem; the first one is the most informative."""
    if problem.kind == "classes":
        found = [
            Measure("log_loss", False, _mean_of(_class_log_loss)),
            Measure("accuracy", True, _mean_of(lambda p, y: p.decided == y)),
            Measure("balanced_accuracy", True, _balanced_accuracy),
            Measure("brier", False, _mean_of(_brier)),
        ]
        return (*found, *_curves(problem, _auroc_of_classes))
    if problem.kind == "labels":
        found = [
            Measure("log_loss", False, _mean_of(_label_log_loss)),
            Measure("micro_f1", True, _micro_f1),
            Measure("macro_f1", True, _macro_f1),
            Measure("exact_match", True, _mean_of(lambda p, y: (p.decided == y).all(dim=1))),
        ]
        return (*found, *_curves(problem, _auroc_of_labels))
    errors = [
        Measure("rmse", False, _rmse),
        Measure("mae", False, _mean_of(lambda p, y: (p.values - y).abs())),
        Measure("r2", True, _r2),
    ]
    if problem.kind == "amounts":
        name = {1.0: "poisson_deviance", 2.0: "gamma_deviance"}.get(problem.power)
        deviance = _deviance(problem.power)
        return (Measure(name or "tweedie_deviance", False, _mean_of(deviance)), *errors)
    if problem.kind == "quantiles":
        return (
            Measure("pinball", False, _mean_of(_pinball(problem.levels))),
            Measure("coverage", None, _mean_of(_covered)),
            Measure("width", False, _mean_of(_width)),
            errors[1],
        )
    return tuple(errors)


def row_losses(problem: Problem, predicted: Predicted, targets: Tensor) -> Tensor:
    """Return the loss of each row ``(n,)`` whose weighted mean gives the first measure.

    It is the squared error for "numbers", whose first measure is the root of its mean.
    """
    if problem.kind == "classes":
        return _class_log_loss(predicted, targets)
    if problem.kind == "labels":
        return _label_log_loss(predicted, targets).mean(dim=1)
    if problem.kind == "amounts":
        return _deviance(problem.power)(predicted, targets).mean(dim=1)
    if problem.kind == "quantiles":
        return _pinball(problem.levels)(predicted, targets).mean(dim=1)
    return (predicted.values - targets).square().mean(dim=1)


def compare(
    measures: Sequence[Measure],
    models: Mapping[str, Predicted],
    rows: Rows,
    *,
    reference: str,
    level: float = 0.95,
    resamples: int | None = None,
    seed: int = 0,
) -> dict[str, dict[str, Score]]:
    """Return model → measure → score, with intervals and paired differences to one model.

    Args:
        measures: The measures.
        models: Predictions by name of the model, for the same rows.
        rows: Targets, weights and groups.
        reference: Name of the model that the others are compared with.
        level: Confidence level.
        resamples: Number of resamples; None is 1,000, fewer for more than 20,000 rows.
        seed: Seed of the resampling.
    """
    n = len(rows)
    resamples = resamples or min(1_000, max(200, _MOST_DRAWS // max(n, 1)))
    statistics = {
        (model, each.name): each.of(predicted, rows.targets)
        for model, predicted in models.items()
        for each in measures
    }
    weights = rows.each()
    values = {key: float(of(weights.unsqueeze(0))) for key, of in statistics.items()}
    drawn: dict[tuple[str, str], list[Tensor]] = {key: [] for key in statistics}
    if rows.units > 1:
        for counts in resampled_counts(n, resamples, rows.groups, seed):
            for key, of in statistics.items():
                drawn[key].append(of(counts * weights))
    all_drawn = {key: torch.cat(parts) if parts else None for key, parts in drawn.items()}
    found: dict[str, dict[str, Score]] = {}
    for model, name in statistics:
        own, other = all_drawn[model, name], all_drawn[reference, name]
        interval = _interval(values[model, name], own, level)
        difference = None
        if model != reference:
            between = None if own is None or other is None else own - other
            change = values[model, name] - values[reference, name]
            difference = _interval(change, between, level)
        found.setdefault(model, {})[name] = Score(interval, difference)
    return found


def _interval(value: float, drawn: Tensor | None, level: float) -> Interval:
    nan = float("nan")
    ends = (nan, nan) if drawn is None else percentiles(drawn, level)
    return Interval(value, *ends, level)


# ---------------------------------------------------------------- statistics


def weighted_mean(columns: Tensor) -> Statistic:
    """Return the statistic that is the weighted mean of ``(n,)``, or of ``(n, k)`` over all."""
    each = columns.double()
    each = each if each.ndim == 1 else each.flatten(start_dim=1).mean(dim=1)
    return lambda weights: weights @ each / weights.sum(dim=1)


def _mean_of(columns: Callable[[Predicted, Tensor], Tensor]) -> Callable[..., Statistic]:
    return lambda predicted, targets: weighted_mean(columns(predicted, targets))


def _class_log_loss(predicted: Predicted, targets: Tensor) -> Tensor:
    p = predicted.values.gather(1, targets.long().unsqueeze(1)).squeeze(1)
    return -p.clamp(_EPS, 1).log()


def _label_log_loss(predicted: Predicted, targets: Tensor) -> Tensor:
    p = torch.where(targets > 0.5, predicted.values, 1 - predicted.values)
    return -p.clamp(_EPS, 1).log()


def _brier(predicted: Predicted, targets: Tensor) -> Tensor:
    """Return the squared distance of the probabilities; for two classes that of the second one."""
    p = predicted.values
    one_hot = torch.nn.functional.one_hot(targets.long(), p.shape[1])
    return (p - one_hot).square().sum(dim=1) / (2 if p.shape[1] == 2 else 1)


def _deviance(power: float) -> Callable[[Predicted, Tensor], Tensor]:
    return lambda p, y: unit_deviance(y.double(), p.values.clamp(min=1e-12), power)


def _pinball(levels: Sequence[float]) -> Callable[[Predicted, Tensor], Tensor]:
    q = torch.tensor(levels, dtype=torch.float64)

    def of(predicted: Predicted, targets: Tensor) -> Tensor:
        error = targets.double().unsqueeze(2) - predicted.quantiles
        return torch.maximum(q * error, (q - 1) * error).mean(dim=2)

    return of


def _covered(predicted: Predicted, targets: Tensor) -> Tensor:
    low, high = predicted.quantiles[..., 0], predicted.quantiles[..., -1]
    return (targets >= low) & (targets <= high)


def _width(predicted: Predicted, targets: Tensor) -> Tensor:
    return predicted.quantiles[..., -1] - predicted.quantiles[..., 0]


def _rmse(predicted: Predicted, targets: Tensor) -> Statistic:
    squared = (predicted.values - targets).square()
    return lambda w: (w @ squared / w.sum(dim=1, keepdim=True)).sqrt().mean(dim=1)


def _r2(predicted: Predicted, targets: Tensor) -> Statistic:
    y = targets.double()
    y = y - y.mean(dim=0)  # so that squares keep their digits
    squared = (predicted.values - targets).square()

    def of(weights: Tensor) -> Tensor:
        total = weights.sum(dim=1, keepdim=True)
        error = weights @ squared / total
        variance = weights @ y.square() / total - (weights @ y / total).square()
        ratio = error / variance.clamp(min=0)
        return torch.where(error == 0, torch.ones_like(error), 1 - ratio).mean(dim=1)

    return of


def _balanced_accuracy(predicted: Predicted, targets: Tensor) -> Statistic:
    """Return the mean recall of the classes that occur in the resample."""
    one_hot = torch.nn.functional.one_hot(targets.long(), predicted.values.shape[1]).double()
    hits = one_hot * (predicted.decided == targets).double().unsqueeze(1)

    def of(weights: Tensor) -> Tensor:
        support = weights @ one_hot
        recall = torch.where(support > 0, (weights @ hits) / support, 0.0)
        return recall.sum(dim=1) / (support > 0).sum(dim=1)

    return of


def _label_counts(predicted: Predicted, targets: Tensor) -> tuple[Tensor, Tensor]:
    decided, truth = predicted.decided.double(), (targets > 0.5).double()
    return decided * truth, decided + truth


def _micro_f1(predicted: Predicted, targets: Tensor) -> Statistic:
    hits, total = (each.sum(dim=1) for each in _label_counts(predicted, targets))
    return lambda w: 2 * (w @ hits) / (w @ total).clamp(min=1e-300)


def _macro_f1(predicted: Predicted, targets: Tensor) -> Statistic:
    hits, total = _label_counts(predicted, targets)
    return lambda w: (2 * (w @ hits) / (w @ total).clamp(min=1e-300)).mean(dim=1)


def _curves(problem: Problem, of: Callable[[Predicted, Tensor], Statistic]) -> tuple[Measure, ...]:
    return (Measure("auroc", True, of),) if len(problem.names) <= _MOST_CURVES else ()


def _auroc_of_classes(predicted: Predicted, targets: Tensor) -> Statistic:
    p = predicted.values
    if p.shape[1] == 2:
        return auroc(p[:, 1], targets == 1)
    return _mean_curve([auroc(p[:, at], targets == at) for at in range(p.shape[1])])


def _auroc_of_labels(predicted: Predicted, targets: Tensor) -> Statistic:
    curves = [auroc(predicted.values[:, at], each > 0.5) for at, each in enumerate(targets.T)]
    return _mean_curve(curves)


def _mean_curve(curves: Sequence[Statistic]) -> Statistic:
    return lambda weights: torch.stack([each(weights) for each in curves]).mean(dim=0)


def auroc(scores: Tensor, positive: Tensor) -> Statistic:
    """Return the area under the ROC curve; rows with equal scores count half.

    NaN if a resample has no positive or no negative row.
    """
    values, position = distinct(scores.double())
    ones = positive.double()

    def of(weights: Tensor) -> Tensor:
        empty = torch.zeros(len(weights), len(values), dtype=torch.float64)
        above = empty.index_add(1, position, weights * ones)
        below = empty.index_add(1, position, weights * (1 - ones))
        wins = (above * (below.cumsum(dim=1) - below / 2)).sum(dim=1)
        return wins / (above.sum(dim=1) * below.sum(dim=1))

    return of
