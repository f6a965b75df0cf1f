"""``score_intervals``: the standard scores of each kind of task with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flambeau.report.intervals import Interval, Statistic, bootstrap, wilson
from flambeau.report.predictions import Predictions

_RESAMPLES = 1_000
_MOST_DRAWS = 50_000_000  # a few seconds; for more samples, fewer resamples are sufficient


def score_intervals(predictions: Predictions, threshold: float = 0.5) -> dict[str, Interval]:
    """Return the loss and the standard metrics with 95% intervals, by name.

    Classification: accuracy, top-5 accuracy (for more than 5 classes), balanced accuracy and macro
    F1. Multi-label: exact match, micro F1 and macro F1. Regression: MAE, RMSE and R². Proportions
    have Wilson intervals, other scores bootstrap intervals with seed 0. With sample weights all
    intervals are bootstrap intervals of weighted scores, because Wilson's assumes equal trials. For
    a single sample, only proportions without weights are returned.

    Args:
        predictions: The predictions for one part.
        threshold: Probability from which a label is predicted (multi-label).
    """
    found: dict[str, Interval] = {}
    weights = predictions.weights
    if predictions.losses is not None:
        _add(found, "loss", mean, predictions.losses, weights=weights)
    outputs, targets = predictions.outputs, predictions.targets
    if outputs is None or targets is None:
        return found
    if predictions.kind == "classification":
        kept = targets >= 0
        kept_weights = None if weights is None else weights[kept]
        _class_intervals(found, outputs[kept], targets[kept], kept_weights)
    elif predictions.kind == "multi_label":
        predicted, labels = outputs.sigmoid() >= threshold, targets > 0.5
        _add_proportion(found, "exact_match", (predicted == labels).all(dim=1), weights)
        _add(found, "micro_f1", label_micro_f1, predicted, labels, weights=weights)
        _add(found, "macro_f1", label_macro_f1, predicted, labels, weights=weights)
    else:
        columns = outputs.double(), targets.double()
        for name, statistic in (("mae", mae), ("rmse", rmse), ("r2", r2)):
            _add(found, name, statistic, *columns, weights=weights)
    return found


def _class_intervals(
    found: dict[str, Interval], outputs: Tensor, targets: Tensor, weights: Tensor | None
) -> None:
    if not len(targets):
        return
    predicted, n_classes = outputs.argmax(dim=1), outputs.shape[1]
    _add_proportion(found, "accuracy", predicted == targets, weights)
    if n_classes > 5:
        guesses = outputs.topk(5, dim=1).indices
        correct = (guesses == targets.unsqueeze(1)).any(dim=1)
        _add_proportion(found, "top_5_accuracy", correct, weights)
    for name, make in (("balanced_accuracy", balanced_accuracy), ("macro_f1", macro_f1)):
        _add(found, name, make(n_classes), predicted, targets, weights=weights)


def _add_proportion(
    found: dict[str, Interval], name: str, correct: Tensor, weights: Tensor | None
) -> None:
    if weights is None:
        found[name] = wilson(int(correct.sum()), len(correct))
    else:
        _add(found, name, mean, correct, weights=weights)


def _add(
    found: dict[str, Interval],
    name: str,
    statistic: Statistic,
    *columns: Tensor,
    weights: Tensor | None,
) -> None:
    if weights is not None:
        columns = (*columns, weights)
    n = len(columns[0])
    if n < 2:
        return
    resamples = min(_RESAMPLES, max(200, _MOST_DRAWS // n))
    interval = bootstrap(statistic, *columns, resamples=resamples)
    if all(map(math.isfinite, (interval.value, interval.low, interval.high))):
        found[name] = interval


# ---------------------------------------------------------------- statistics per resample


# With sample weights ``(resamples, n)`` they are the last argument.


def mean(values: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean of each resample in ``(resamples, n)``."""
    return _mean_of_rows(values.double(), weights)


def macro_f1(n_classes: int) -> Callable[..., Tensor]:
    """Return a statistic of predicted and target class indices: mean F1 of the classes present."""

    def statistic(predicted: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        correct, support, n_predicted = _counts(predicted, targets, n_classes, weights)
        total = support + n_predicted
        return _mean_where(2 * correct / total, total > 0)

    return statistic


def balanced_accuracy(n_classes: int) -> Callable[..., Tensor]:
    """Return a statistic of predicted and target class indices: mean recall of present classes."""

    def statistic(predicted: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
        correct, support, _ = _counts(predicted, targets, n_classes, weights)
        return _mean_where(correct / support, support > 0)

    return statistic


def label_micro_f1(predicted: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return F1 over all samples and labels, from bools ``(resamples, n, labels)``."""
    correct, total = _label_counts(predicted, targets, weights)
    return _f1(correct.sum(dim=1), total.sum(dim=1))


def label_macro_f1(predicted: Tensor, targets: Tensor, weights: Tensor | None = None) -> Tensor:
    """Return the mean F1 of the labels, 0 for absent ones; bools ``(resamples, n, labels)``."""
    return _f1(*_label_counts(predicted, targets, weights)).mean(dim=1)


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


def _mean_of_rows(values: Tensor, weights: Tensor | None) -> Tensor:
    """Return the mean over the rows of ``(resamples, n, …)``."""
    if weights is None:
        return values.mean(dim=1)
    each = weights.view(*weights.shape, *(1 for _ in values.shape[2:]))
    return (values * each).sum(dim=1) / each.sum(dim=1)


def _label_counts(
    predicted: Tensor, targets: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return true positives, and targets plus predictions, of each label."""
    correct, total = (predicted & targets).double(), predicted.double() + targets.double()
    if weights is not None:
        correct, total = correct * weights.unsqueeze(2), total * weights.unsqueeze(2)
    return correct.sum(dim=1), total.sum(dim=1)


def _f1(correct: Tensor, total: Tensor) -> Tensor:
    return 2 * correct / torch.where(total > 0, total, 1.0)


def _counts(
    predicted: Tensor, targets: Tensor, n_classes: int, weights: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return correct, target and predicted samples of each class, ``(resamples, classes)``."""
    each = torch.ones(targets.shape, dtype=torch.float64) if weights is None else weights
    empty = each.new_zeros(len(targets), n_classes)
    return (
        empty.scatter_add(1, targets, (predicted == targets) * each),
        empty.scatter_add(1, targets, each),
        empty.scatter_add(1, predicted, each),
    )


def _mean_where(values: Tensor, present: Tensor) -> Tensor:
    return torch.where(present, values, 0.0).sum(dim=1) / present.sum(dim=1)
