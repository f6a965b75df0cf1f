"""``score_intervals``: the standard scores of each kind of task with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flambeau.report.intervals import Interval, Statistic, bootstrap, bootstrap_groups, wilson
from flambeau.report.predictions import Predictions
from flambeau.task.batch_summary import TOP_K
from flambeau.task.numerics import distinct

_RESAMPLES = 1_000
_MOST_DRAWS = 50_000_000  # a few seconds; for more samples, fewer resamples are sufficient
_MOST_CELLS = 2_000_000  # counts in memory at once: 16 MB


def score_intervals(predictions: Predictions, groups: Tensor | None = None) -> dict[str, Interval]:
    """Return the loss and the standard metrics with 95% intervals, by name.

    Classification: accuracy, top-5 accuracy (for more than 5 classes), balanced accuracy and macro
    F1. Multi-label: exact match, micro F1 and macro F1. Regression: MAE, RMSE and R². Proportions
    have Wilson intervals, other scores bootstrap intervals with seed 0. With sample weights all
    intervals are bootstrap intervals of weighted scores, because Wilson's assumes equal trials. For
    a single sample, only proportions without weights are returned.

    Args:
        predictions: The predictions for one part.
        groups: Group numbers of the samples ``(n,)``: whole groups are resampled. None if all
            samples are independent.
    """
    found: dict[str, Interval] = {}
    for score in standard_scores([predictions]):
        (model,) = score.models
        weights, own_groups = score.of_rows(predictions.weights), score.of_rows(groups)
        if score.is_proportion and weights is None and own_groups is None:
            found[score.name] = wilson(int(model.columns[0].sum()), len(model.columns[0]))
            continue
        interval = resampled_score(model.statistic, model.columns, weights, own_groups)
        if interval is not None:
            found[score.name] = interval
    return found


@dataclass(frozen=True, eq=False)
class ModelColumns:
    """What a score of one model is computed from.

    Attributes:
        statistic: Maps the columns, ``(resamples, n, …)`` each, to ``(resamples,)``.
        columns: ``(n, …)`` each.
    """

    statistic: Statistic
    columns: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False)
class StandardScore:
    """A standard score of one or several models on the same samples.

    Attributes:
        name: Name of the score.
        models: What it is computed from, by model.
        rows: The samples that count, bools ``(n,)``; None if all do.
        is_proportion: Whether it is the share of correct samples in the first column.
    """

    name: str
    models: tuple[ModelColumns, ...]
    rows: Tensor | None = None
    is_proportion: bool = False

    def of_rows(self, column: Tensor | None) -> Tensor | None:
        """Return the entries ``(n,)`` of a column for the samples that count."""
        return column if column is None or self.rows is None else column[self.rows]


def standard_scores(models: Sequence[Predictions]) -> list[StandardScore]:
    """Return the loss and the standard metrics of models, see ``score_intervals``.

    Args:
        models: Predictions of one kind for the same samples, in the same order.
    """
    found: list[StandardScore] = []
    losses = [each.losses for each in models]
    if all(each is not None for each in losses):
        columns = [(each,) for each in losses if each is not None]
        found.append(_same_statistic("loss", mean, columns))
    kind = models[0].kind
    if kind == "classification":
        found += _class_scores(models)
    elif kind == "multi_label":
        found += _label_scores(models)
    elif kind == "regression":
        values = [
            (each.figure("predicted").double(), each.figure("target").double()) for each in models
        ]
        for name, statistic in (("mae", mae), ("rmse", rmse), ("r2", r2)):
            found.append(_same_statistic(name, statistic, values))
    return found


def _class_scores(models: Sequence[Predictions]) -> list[StandardScore]:
    kept = models[0].figure("target") >= 0
    if not bool(kept.any()):
        return []
    targets = models[0].figure("target")[kept]
    predicted = [each.figure("predicted")[kept] for each in models]
    correct = [(each == targets,) for each in predicted]
    found = [_same_statistic("accuracy", mean, correct, kept, is_proportion=True)]
    if models[0].summary.n_outputs > TOP_K:
        top = [each.figure("top_classes")[kept] for each in models]
        among = [((each == targets.unsqueeze(1)).any(dim=1),) for each in top]
        found.append(_same_statistic("top_5_accuracy", mean, among, kept, is_proportion=True))
    # Classes that are neither targets nor predicted do not count; without them the counts of
    # 33,000 classes fit in memory.
    classes, numbers = distinct(torch.cat([*predicted, targets]))
    *own, shared = numbers.view(len(models) + 1, -1)
    pairs = [(each, shared) for each in own]
    for name, make in (("balanced_accuracy", balanced_accuracy), ("macro_f1", macro_f1)):
        found.append(_same_statistic(name, make(len(classes)), pairs, kept))
    return found


def _label_scores(models: Sequence[Predictions]) -> list[StandardScore]:
    counts = [each.figure("label_counts") for each in models]
    exact = [((each == each[:, :1]).all(dim=1),) for each in counts]
    every = torch.arange(len(models[0]))
    of_labels: list[ModelColumns] = []
    for each in models:
        # A label without true positives has F1 0 in every resample.
        present = each.summary.sums["labels"][0] > 0
        predicted, targets = (
            each.labels(name, every)[:, present] for name in ("predicted", "target")
        )
        statistic = label_macro_f1(predicted, targets, each.summary.n_outputs)
        of_labels.append(ModelColumns(statistic, (every,)))
    return [
        _same_statistic("exact_match", mean, exact, is_proportion=True),
        _same_statistic("micro_f1", label_micro_f1, [(each,) for each in counts]),
        StandardScore("macro_f1", tuple(of_labels)),
    ]


def _same_statistic(
    name: str,
    statistic: Statistic,
    columns: Sequence[tuple[Tensor, ...]],
    rows: Tensor | None = None,
    *,
    is_proportion: bool = False,
) -> StandardScore:
    models = tuple(ModelColumns(statistic, each) for each in columns)
    return StandardScore(name, models, rows, is_proportion)


def resampled_score(
    statistic: Statistic,
    columns: Sequence[Tensor],
    weights: Tensor | None = None,
    groups: Tensor | None = None,
    level: float = 0.95,
) -> Interval | None:
    """Return the bootstrap interval of a score; None if it is unknown.

    It is unknown for a single sample or group, and for a score that is not finite.

    Args:
        statistic: As in ``bootstrap``; with weights they are its last argument.
        columns: ``(n, …)`` each.
        weights: Sample weights ``(n,)``; None if all samples count equally.
        groups: Group numbers ``(n,)``: whole groups are resampled; None resamples samples.
        level: Confidence level, between 0 and 1.
    """
    n = len(columns[0])
    if n < 2 or (groups is not None and bool((groups == groups[0]).all())):
        return None
    resamples = min(_RESAMPLES, max(200, _MOST_DRAWS // n))
    if groups is not None:
        interval = bootstrap_groups(
            statistic, *columns, groups=groups, weights=weights, level=level, resamples=resamples
        )
    else:
        counted = columns if weights is None else (*columns, weights)
        interval = bootstrap(statistic, *counted, level=level, resamples=resamples)
    finite = all(map(math.isfinite, (interval.value, interval.low, interval.high)))
    return interval if finite else None


# ---------------------------------------------------------------- statistics per resample


# With sample weights ``(resamples, n)`` they are the last argument.


def mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of each resample in ``(resamples, n)``."""
    return _mean_of_rows(values.double(), weights)


def macro_f1(n_classes: int) -> Callable[..., Tensor]:
    """Return a function that computes the mean F1 of the classes that occur, from class indices."""

    def statistic(predicted: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        correct, support, n_predicted = _counts(predicted, targets, n_classes, weights)
        total = support + n_predicted
        return _mean_where(2 * correct / total, total > 0)

    return _piecewise(statistic, n_classes)


def balanced_accuracy(n_classes: int) -> Callable[..., Tensor]:
    """Return a function that computes the mean recall of the target classes, from class indices."""

    def statistic(predicted: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        correct, support, _ = _counts(predicted, targets, n_classes, weights)
        return _mean_where(correct / support, support > 0)

    return _piecewise(statistic, n_classes)


def label_micro_f1(counts: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return F1 over all samples and labels.

    Args:
        counts: ``(resamples, n, 3)``: correctly predicted, predicted, and target labels.
        weights: Sample weights ``(resamples, n)``.
    """
    each = counts.double() if weights is None else counts * weights.unsqueeze(2)
    correct, n_predicted, n_targets = each.sum(dim=1).unbind(dim=1)
    return _f1(correct, n_predicted + n_targets)


def label_macro_f1(predicted: Tensor, targets: Tensor, n_labels: int) -> Callable[..., Tensor]:
    """Return a function of row numbers ``(resamples, n)`` that computes the mean F1 of all labels.

    Args:
        predicted: Predicted labels, bool ``(n, labels)``.
        targets: Target labels, bool ``(n, labels)``.
        n_labels: Number of all labels; labels without a column have F1 0.
    """

    def statistic(rows: Tensor, weights: Tensor | None = None) -> Tensor:
        # How often each sample is in a resample; products of counts are exact in float32.
        dtype = torch.float32 if weights is None else torch.float64
        each = torch.ones(rows.shape, dtype=dtype) if weights is None else weights.to(dtype)
        often = torch.zeros(rows.shape, dtype=dtype).scatter_add_(1, rows, each)
        total = torch.zeros(len(rows), dtype=torch.float64)
        width = max(1, _MOST_CELLS // max(rows.shape))
        for start in range(0, predicted.shape[1], width):
            one, other = (each[:, start : start + width].to(dtype) for each in (predicted, targets))
            correct = (often @ (one * other)).double()
            total += _f1(correct, (often @ (one + other)).double()).sum(dim=1)
        return total / n_labels

    return statistic


def mae(predictions: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean absolute error of ``(resamples, n, values)``."""
    return _mean_of_rows((predictions - targets).abs(), weights).mean(dim=1)


def rmse(predictions: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the root mean squared error of ``(resamples, n, values)``, averaged over values."""
    return _mean_of_rows((predictions - targets).square(), weights).sqrt().mean(dim=1)


def r2(predictions: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the coefficient of determination of ``(resamples, n, values)``, averaged over values.

    For constant targets it is 1 if the predictions are exact, else 0.
    """
    error = _mean_of_rows((predictions - targets).square(), weights)
    centre = _mean_of_rows(targets, weights).unsqueeze(1)
    variation = _mean_of_rows((targets - centre).square(), weights)
    exact = (error == 0).double()
    return torch.where(variation == 0, exact, 1 - error / variation).mean(dim=1)


def _piecewise(statistic: Callable[..., Tensor], n_classes: int) -> Callable[..., Tensor]:
    """Return the statistic as a function that processes few resamples at once, to limit memory."""
    rows = max(1, _MOST_CELLS // n_classes)

    def in_pieces(*columns: Tensor) -> Tensor:
        starts = range(0, len(columns[0]), rows)
        pieces = [[column[at : at + rows] for column in columns] for at in starts]
        return torch.cat([statistic(*piece) for piece in pieces])

    return in_pieces


def _mean_of_rows(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean over the rows of ``(resamples, n, …)``."""
    if weights is None:
        return values.mean(dim=1)
    each = weights.view(*weights.shape, *(1 for _ in values.shape[2:]))
    return (values * each).sum(dim=1) / each.sum(dim=1)


def _f1(correct: Tensor, total: Tensor) -> Tensor:
    return 2 * correct / torch.where(total > 0, total, 1.0)


def _counts(
    predicted: Tensor, targets: Tensor, n_classes: int, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the counts of correct, target and predicted samples, ``(resamples, classes)`` each."""
    each = torch.ones(targets.shape, dtype=torch.float64) if weights is None else weights
    empty = each.new_zeros(len(targets), n_classes)
    return (
        empty.scatter_add(1, targets, (predicted == targets) * each),
        empty.scatter_add(1, targets, each),
        empty.scatter_add(1, predicted, each),
    )


def _mean_where(values: Tensor, present: Tensor) -> Tensor:
    return torch.where(present, values, 0.0).sum(dim=1) / present.sum(dim=1)
