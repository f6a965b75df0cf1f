"""``score_intervals``: the standard scores of each kind of task with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
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
    weights = _Weights(predictions.weights, groups)
    if predictions.losses is not None:
        _add(found, "loss", mean, predictions.losses, weights=weights)
    if predictions.kind == "classification":
        _class_intervals(found, predictions, weights)
    elif predictions.kind == "multi_label":
        _label_intervals(found, predictions, weights)
    elif predictions.kind == "regression":
        columns = (predictions.figure(name).double() for name in ("predicted", "target"))
        predicted, targets = columns
        for name, statistic in (("mae", mae), ("rmse", rmse), ("r2", r2)):
            _add(found, name, statistic, predicted, targets, weights=weights)
    return found


@dataclass(frozen=True)
class _Weights:
    """Weights and groups of the samples, ``(n,)`` each; None if there are none."""

    weights: Tensor | None
    groups: Tensor | None

    def __getitem__(self, rows: Tensor) -> _Weights:
        found = (None if each is None else each[rows] for each in (self.weights, self.groups))
        return _Weights(*found)


def _class_intervals(
    found: dict[str, Interval], predictions: Predictions, weights: _Weights
) -> None:
    kept = predictions.figure("target") >= 0
    if not bool(kept.any()):
        return
    weights = weights[kept]
    targets, predicted, top = (
        predictions.figure(name)[kept] for name in ("target", "predicted", "top_classes")
    )
    _add_proportion(found, "accuracy", predicted == targets, weights)
    if predictions.summary.n_outputs > TOP_K:
        correct = (top == targets.unsqueeze(1)).any(dim=1)
        _add_proportion(found, "top_5_accuracy", correct, weights)
    # Classes that are neither targets nor predicted do not count; without them the counts of
    # 33,000 classes fit in memory.
    classes, numbers = distinct(torch.cat([predicted, targets]))
    numbers = numbers.view(2, -1)
    for name, make in (("balanced_accuracy", balanced_accuracy), ("macro_f1", macro_f1)):
        _add(found, name, make(len(classes)), numbers[0], numbers[1], weights=weights)


def _label_intervals(
    found: dict[str, Interval], predictions: Predictions, weights: _Weights
) -> None:
    counts = predictions.figure("label_counts")
    _add_proportion(found, "exact_match", (counts == counts[:, :1]).all(dim=1), weights)
    _add(found, "micro_f1", label_micro_f1, counts, weights=weights)
    # A label without true positives has F1 0 in every resample.
    present = predictions.summary.sums["labels"][0] > 0
    every = torch.arange(len(predictions))
    predicted, targets = (
        predictions.labels(name, every)[:, present] for name in ("predicted", "target")
    )
    n_labels = predictions.summary.n_outputs
    statistic = label_macro_f1(predicted, targets, n_labels)
    _add(found, "macro_f1", statistic, every, weights=weights)


def _add_proportion(
    found: dict[str, Interval], name: str, correct: Tensor, weights: _Weights
) -> None:
    if weights.weights is None and weights.groups is None:
        found[name] = wilson(int(correct.sum()), len(correct))
    else:
        _add(found, name, mean, correct, weights=weights)


def _add(
    found: dict[str, Interval],
    name: str,
    statistic: Statistic,
    *columns: Tensor,
    weights: _Weights,
) -> None:
    n = len(columns[0])
    groups = weights.groups
    if n < 2 or (groups is not None and bool((groups == groups[0]).all())):
        return
    resamples = min(_RESAMPLES, max(200, _MOST_DRAWS // n))
    if groups is not None:
        interval = bootstrap_groups(
            statistic, *columns, groups=groups, weights=weights.weights, resamples=resamples
        )
    else:
        counted = columns if weights.weights is None else (*columns, weights.weights)
        interval = bootstrap(statistic, *counted, resamples=resamples)
    if all(map(math.isfinite, (interval.value, interval.low, interval.high))):
        found[name] = interval


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
