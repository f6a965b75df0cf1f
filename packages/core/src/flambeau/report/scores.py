"""The usual scores of an answer, with the interval that its samples allow."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flambeau.report.answers import Answers
from flambeau.report.intervals import Interval, Statistic, bootstrap, wilson

_RESAMPLES = 1_000
_MOST_DRAWS = 50_000_000  # a few seconds; beyond, fewer resamples, which still fix the ends well


def score_intervals(answers: Answers, threshold: float = 0.5) -> dict[str, Interval]:
    """By name: the loss, and the metrics that every report shows for the kind of answers.

    Accuracy, top-5 accuracy (above 5 classes), balanced accuracy and macro F1 for classes; exact
    match, micro and macro F1 for labels; MAE, RMSE and R² for numbers. Shares have Wilson's
    interval, all others the bootstrap's with seed 0. What one sample alone cannot tell is left
    out.

    Args:
        answers: On the samples of one part, each counted once.
        threshold: Labels are chosen from this probability on.
    """
    found: dict[str, Interval] = {}
    if answers.losses is not None:
        _add(found, "loss", mean, answers.losses)
    outputs, targets = answers.outputs, answers.targets
    if outputs is None or targets is None:
        return found
    if answers.kind == "classification":
        kept = targets >= 0
        _class_intervals(found, outputs[kept], targets[kept])
    elif answers.kind == "multi_label":
        chosen, truth = outputs.sigmoid() >= threshold, targets > 0.5
        found["exact_match"] = _share((chosen == truth).all(dim=1))
        _add(found, "micro_f1", micro_f1, chosen, truth)
        _add(found, "macro_f1", label_f1, chosen, truth)
    else:
        answered, truth = outputs.double(), targets.double()
        for name, statistic in (("mae", mae), ("rmse", rmse), ("r2", r2)):
            _add(found, name, statistic, answered, truth)
    return found


def _class_intervals(found: dict[str, Interval], outputs: Tensor, truth: Tensor) -> None:
    if not len(truth):
        return
    predicted, n_classes = outputs.argmax(dim=1), outputs.shape[1]
    found["accuracy"] = _share(predicted == truth)
    if n_classes > 5:
        guesses = outputs.topk(5, dim=1).indices
        found["top_5_accuracy"] = _share((guesses == truth.unsqueeze(1)).any(dim=1))
    for name, make in (("balanced_accuracy", balanced_accuracy), ("macro_f1", macro_f1)):
        _add(found, name, make(n_classes), predicted, truth)


def _share(right: Tensor) -> Interval:
    return wilson(int(right.sum()), len(right))


def _add(found: dict[str, Interval], name: str, statistic: Statistic, *columns: Tensor) -> None:
    n = len(columns[0])
    if n < 2:
        return
    resamples = min(_RESAMPLES, max(200, _MOST_DRAWS // n))
    interval = bootstrap(statistic, *columns, resamples=resamples)
    if all(map(math.isfinite, (interval.value, interval.low, interval.high))):
        found[name] = interval


# ---------------------------------------------------------------- statistics of many resamples


def mean(values: Tensor) -> Tensor:
    """The mean of ``(resamples, n)``."""
    return values.double().mean(dim=1)


def macro_f1(n_classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean F1 of the classes that occur, from predicted and true class numbers."""

    def statistic(predicted: Tensor, truth: Tensor) -> Tensor:
        right, support, taken = _counts(predicted, truth, n_classes)
        return _mean_where(2 * right / (support + taken), support + taken > 0)

    return statistic


def balanced_accuracy(n_classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean recall of the classes that occur, from predicted and true class numbers."""

    def statistic(predicted: Tensor, truth: Tensor) -> Tensor:
        right, support, _ = _counts(predicted, truth, n_classes)
        return _mean_where(right / support, support > 0)

    return statistic


def micro_f1(chosen: Tensor, truth: Tensor) -> Tensor:
    """F1 over all samples and labels at once, from bools ``(resamples, n, labels)``."""
    right = (chosen & truth).sum(dim=(1, 2)).double()
    return 2 * right / (chosen.sum(dim=(1, 2)) + truth.sum(dim=(1, 2))).clamp(min=1)


def label_f1(chosen: Tensor, truth: Tensor) -> Tensor:
    """The mean F1 of the labels, 0 for one that never occurs; bools ``(resamples, n, labels)``."""
    right = (chosen & truth).sum(dim=1).double()
    return (2 * right / (chosen.sum(dim=1) + truth.sum(dim=1)).clamp(min=1)).mean(dim=1)


def mae(answered: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of ``(resamples, n, values)``."""
    return (answered - truth).abs().mean(dim=(1, 2))


def rmse(answered: Tensor, truth: Tensor) -> Tensor:
    """Root of the mean squared error of ``(resamples, n, values)``, the mean over the values."""
    return (answered - truth).square().mean(dim=1).sqrt().mean(dim=1)


def r2(answered: Tensor, truth: Tensor) -> Tensor:
    """Share of the variance explained in ``(resamples, n, values)``, the mean over the values."""
    error = (answered - truth).square().sum(dim=1)
    spread = (truth - truth.mean(dim=1, keepdim=True)).square().sum(dim=1)
    constant = (error == 0).double()
    return torch.where(spread == 0, constant, 1 - error / spread).mean(dim=1)


def _counts(predicted: Tensor, truth: Tensor, n_classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """Right ones, true ones and predicted ones of each class, float64 ``(resamples, classes)``."""
    ones = torch.ones(truth.shape, dtype=torch.float64)
    empty = ones.new_zeros(len(truth), n_classes)
    right = (predicted == truth).double()
    return (
        empty.scatter_add(1, truth, right),
        empty.scatter_add(1, truth, ones),
        empty.scatter_add(1, predicted, ones),
    )


def _mean_where(values: Tensor, present: Tensor) -> Tensor:
    return torch.where(present, values, 0.0).sum(dim=1) / present.sum(dim=1)
