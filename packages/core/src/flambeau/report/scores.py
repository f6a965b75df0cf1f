"""``score_intervals``: the standard scores of each kind of task with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flambeau.report.intervals import Interval, Statistic, bootstrap, wilson
from flambeau.report.predictions import Predictions
from flambeau.task.batch_summary import TOP_K
from flambeau.task.numerics import distinct

_RESAMPLES = 1_000
_MOST_DRAWS = 50_000_000  # a few seconds; for more samples, fewer resamples are sufficient
_MOST_CELLS = 2_000_000  # counts in memory at once: 16 MB


def score_intervals(predictions: Predictions) -> dict[str, Interval]:
    """Return the loss and the standard metrics with 95% intervals, by name.

    Classification: accuracy, top-5 accuracy (for more than 5 classes), balanced accuracy and macro
    F1. Multi-label: exact match, micro F1 and macro F1. Regression: MAE, RMSE and R². Proportions
    have Wilson intervals, other scores bootstrap intervals with seed 0. For a single sample, only
    proportions are returned.

    Args:
        predictions: The predictions for one part.
    """
    found: dict[str, Interval] = {}
    if predictions.losses is not None:
        _add(found, "loss", mean, predictions.losses)
    if predictions.kind == "classification":
        _class_intervals(found, predictions)
    elif predictions.kind == "multi_label":
        _label_intervals(found, predictions)
    elif predictions.kind == "regression":
        columns = (predictions.figure(name).double() for name in ("predicted", "target"))
        predicted, targets = columns
        for name, statistic in (("mae", mae), ("rmse", rmse), ("r2", r2)):
            _add(found, name, statistic, predicted, targets)
    return found


def _class_intervals(found: dict[str, Interval], predictions: Predictions) -> None:
    kept = predictions.figure("target") >= 0
    if not bool(kept.any()):
        return
    targets, predicted, top = (
        predictions.figure(name)[kept] for name in ("target", "predicted", "top_classes")
    )
    found["accuracy"] = _proportion(predicted == targets)
    if predictions.summary.n_outputs > TOP_K:
        found["top_5_accuracy"] = _proportion((top == targets.unsqueeze(1)).any(dim=1))
    # Classes that are neither targets nor predicted do not count; without them the counts of
    # 33,000 classes fit in memory.
    classes, numbers = distinct(torch.cat([predicted, targets]))
    numbers = numbers.view(2, -1)
    for name, make in (("balanced_accuracy", balanced_accuracy), ("macro_f1", macro_f1)):
        _add(found, name, make(len(classes)), numbers[0], numbers[1])


def _label_intervals(found: dict[str, Interval], predictions: Predictions) -> None:
    counts = predictions.figure("label_counts")
    found["exact_match"] = _proportion((counts == counts[:, :1]).all(dim=1))
    _add(found, "micro_f1", label_micro_f1, counts)
    # A label without true positives has F1 0 in every resample.
    present = predictions.summary.sums["labels"][0] > 0
    every = torch.arange(len(predictions))
    predicted, targets = (
        predictions.labels(name, every)[:, present] for name in ("predicted", "target")
    )
    n_labels = predictions.summary.n_outputs
    _add(found, "macro_f1", label_macro_f1(predicted, targets, n_labels), every)


def _proportion(correct: Tensor) -> Interval:
    return wilson(int(correct.sum()), len(correct))


def _add(found: dict[str, Interval], name: str, statistic: Statistic, *columns: Tensor) -> None:
    n = len(columns[0])
    if n < 2:
        return
    resamples = min(_RESAMPLES, max(200, _MOST_DRAWS // n))
    interval = bootstrap(statistic, *columns, resamples=resamples)
    if all(map(math.isfinite, (interval.value, interval.low, interval.high))):
        found[name] = interval


# ---------------------------------------------------------------- statistics per resample


def mean(values: Tensor) -> Tensor:
    """Return the mean of each resample in ``(resamples, n)``."""
    return values.double().mean(dim=1)


def macro_f1(n_classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a statistic of predicted and target class indices: mean F1 of the classes present."""

    def statistic(predicted: Tensor, targets: Tensor) -> Tensor:
        correct, support, n_predicted = _counts(predicted, targets, n_classes)
        total = support + n_predicted
        return _mean_where(2 * correct / total, total > 0)

    return _piecewise(statistic, n_classes)


def balanced_accuracy(n_classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a statistic of predicted and target class indices: mean recall of present classes."""

    def statistic(predicted: Tensor, targets: Tensor) -> Tensor:
        correct, support, _ = _counts(predicted, targets, n_classes)
        return _mean_where(correct / support, support > 0)

    return _piecewise(statistic, n_classes)


def label_micro_f1(counts: Tensor) -> Tensor:
    """Return F1 over all samples and labels.

    Args:
        counts: ``(resamples, n, 3)``: correctly predicted, predicted, and target labels.
    """
    correct, n_predicted, n_targets = counts.sum(dim=1).double().unbind(dim=1)
    return 2 * correct / (n_predicted + n_targets).clamp(min=1)


def label_macro_f1(predicted: Tensor, targets: Tensor, n_labels: int) -> Callable[[Tensor], Tensor]:
    """Return a statistic of the rows ``(resamples, n)``: mean F1 of the labels, 0 for absent ones.

    Args:
        predicted: Predicted labels, bool ``(n, labels)``.
        targets: Target labels, bool ``(n, labels)``.
        n_labels: Number of all labels; those that are not in the columns have F1 0.
    """

    def statistic(rows: Tensor) -> Tensor:
        # How often each sample is in a resample; products of counts are exact in float32.
        often = torch.zeros(rows.shape).scatter_add_(1, rows, torch.ones(rows.shape))
        total = torch.zeros(len(rows), dtype=torch.float64)
        width = max(1, _MOST_CELLS // max(rows.shape))
        for start in range(0, predicted.shape[1], width):
            one, other = (each[:, start : start + width].float() for each in (predicted, targets))
            correct = (often @ (one * other)).double()
            total += (2 * correct / (often @ (one + other)).clamp(min=1)).sum(dim=1)
        return total / n_labels

    return statistic


def mae(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the mean absolute error of ``(resamples, n, values)``."""
    return (predictions - targets).abs().mean(dim=(1, 2))


def rmse(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the root mean squared error of ``(resamples, n, values)``, averaged over values."""
    return (predictions - targets).square().mean(dim=1).sqrt().mean(dim=1)


def r2(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the coefficient of determination of ``(resamples, n, values)``, averaged over values.

    For constant targets it is 1 if the predictions are exact, else 0.
    """
    error = (predictions - targets).square().sum(dim=1)
    variation = (targets - targets.mean(dim=1, keepdim=True)).square().sum(dim=1)
    exact = (error == 0).double()
    return torch.where(variation == 0, exact, 1 - error / variation).mean(dim=1)


def _piecewise(
    statistic: Callable[[Tensor, Tensor], Tensor], n_classes: int
) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the statistic, computed for as many resamples at once as need little memory."""
    rows = max(1, _MOST_CELLS // n_classes)

    def in_pieces(predicted: Tensor, targets: Tensor) -> Tensor:
        starts = range(0, len(targets), rows)
        pieces = [(predicted[at : at + rows], targets[at : at + rows]) for at in starts]
        return torch.cat([statistic(*piece) for piece in pieces])

    return in_pieces


def _counts(predicted: Tensor, targets: Tensor, n_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return correct, target and predicted samples of each class, ``(resamples, classes)``."""
    ones = torch.ones(targets.shape, dtype=torch.float64)
    empty = ones.new_zeros(len(targets), n_classes)
    correct = (predicted == targets).double()
    return (
        empty.scatter_add(1, targets, correct),
        empty.scatter_add(1, targets, ones),
        empty.scatter_add(1, predicted, ones),
    )


def _mean_where(values: Tensor, present: Tensor) -> Tensor:
    return torch.where(present, values, 0.0).sum(dim=1) / present.sum(dim=1)
