"""``score_intervals``: the standard scores of each kind of task with confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from flambeau.report.intervals import Interval, Statistic, bootstrap, wilson
from flambeau.report.predictions import Predictions

_RESAMPLES = 1_000
_MOST_DRAWS = 50_000_000  # a few seconds; for more samples, fewer resamples are sufficient


def score_intervals(
    predictions: Predictions, threshold: float | Sequence[float] = 0.5
) -> dict[str, Interval]:
    """Return the loss and the standard metrics with 95% intervals, by name.

    Classification: accuracy, top-5 accuracy (for more than 5 classes), balanced accuracy and macro
    F1. Multi-label: exact match, micro F1 and macro F1. Regression: MAE, RMSE and R². Proportions
    have Wilson intervals, other scores bootstrap intervals with seed 0. For a single sample, only
    proportions are returned.

    Args:
        predictions: The predictions for one part.
        threshold: Probability from which a label is predicted (multi-label): one for all labels,
            or one for each.
    """
    found: dict[str, Interval] = {}
    if predictions.losses is not None:
        _add(found, "loss", mean, predictions.losses)
    outputs, targets = predictions.outputs, predictions.targets
    if outputs is None or targets is None:
        return found
    if predictions.kind == "classification":
        kept = targets >= 0
        _class_intervals(found, outputs[kept], targets[kept])
    elif predictions.kind == "multi_label":
        predicted, labels = outputs.sigmoid() >= torch.tensor(threshold), targets > 0.5
        found["exact_match"] = _proportion((predicted == labels).all(dim=1))
        _add(found, "micro_f1", label_micro_f1, predicted, labels)
        _add(found, "macro_f1", label_macro_f1, predicted, labels)
    else:
        columns = outputs.double(), targets.double()
        for name, statistic in (("mae", mae), ("rmse", rmse), ("r2", r2)):
            _add(found, name, statistic, *columns)
    return found


def _class_intervals(found: dict[str, Interval], outputs: Tensor, targets: Tensor) -> None:
    if not len(targets):
        return
    predicted, n_classes = outputs.argmax(dim=1), outputs.shape[1]
    found["accuracy"] = _proportion(predicted == targets)
    if n_classes > 5:
        guesses = outputs.topk(5, dim=1).indices
        found["top_5_accuracy"] = _proportion((guesses == targets.unsqueeze(1)).any(dim=1))
    for name, make in (("balanced_accuracy", balanced_accuracy), ("macro_f1", macro_f1)):
        _add(found, name, make(n_classes), predicted, targets)


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

    return statistic


def balanced_accuracy(n_classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a statistic of predicted and target class indices: mean recall of present classes."""

    def statistic(predicted: Tensor, targets: Tensor) -> Tensor:
        correct, support, _ = _counts(predicted, targets, n_classes)
        return _mean_where(correct / support, support > 0)

    return statistic


def label_micro_f1(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return F1 over all samples and labels, from bools ``(resamples, n, labels)``."""
    correct = (predicted & targets).sum(dim=(1, 2)).double()
    return 2 * correct / (predicted.sum(dim=(1, 2)) + targets.sum(dim=(1, 2))).clamp(min=1)


def label_macro_f1(predicted: Tensor, targets: Tensor) -> Tensor:
    """Return the mean F1 of the labels, 0 for absent ones; bools ``(resamples, n, labels)``."""
    correct = (predicted & targets).sum(dim=1).double()
    return (2 * correct / (predicted.sum(dim=1) + targets.sum(dim=1)).clamp(min=1)).mean(dim=1)


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
