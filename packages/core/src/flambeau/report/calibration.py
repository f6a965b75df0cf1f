"""Calibration of predicted probabilities: reliability curve, ECE and Brier score."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from flambeau.checked_arguments import checked_count
from flambeau.errors import InputError
from flambeau.report.intervals import Interval, weighted_wilson
from flambeau.report.text_table import as_count
from flambeau.task.batch_summary import CalibrationSums, class_calibration, label_calibration
from flambeau.task.numerics import to_rows


@dataclass(frozen=True)
class CalibrationBin:
    """A bin of the reliability curve: predictions with similar confidence.

    Attributes:
        confidence: Mean predicted probability, 0..1.
        accuracy: Fraction of correct predictions, with a Wilson interval.
        count: Number of predictions; the sum of the weights if the samples have weights.
    """

    confidence: float
    accuracy: Interval
    count: float


@dataclass(frozen=True)
class Calibration:
    """How well predicted probabilities match the observed frequencies.

    Attributes:
        bins: The reliability curve: the non-empty bins of equal width in confidence.
        ece: Expected calibration error: mean absolute difference between confidence and accuracy,
            weighted by count; 0 is perfect. It depends on the number of bins, and is larger for
            few samples.
        brier: Brier score: mean squared difference between probabilities and targets; 0 is
            perfect. The mean of ``(p - y)²`` for two classes or multi-label tasks; summed over
            the classes for more than two, 0..2.
        confidence: Mean confidence of all predictions.
        accuracy: Fraction of correct predictions; for multi-label tasks, of labels that apply.
    """

    bins: tuple[CalibrationBin, ...]
    ece: float
    brier: float
    confidence: float
    accuracy: float

    def __str__(self) -> str:
        verdict = "overconfident" if self.confidence > self.accuracy else "underconfident"
        return (
            f"ECE {self.ece:.4f}, Brier score {self.brier:.4f}; {verdict} on average (confidence "
            f"{self.confidence:.1%}, accuracy {self.accuracy:.1%})"
        )


def calibration(
    probabilities: Tensor, targets: Tensor, n_bins: int = 10, weights: Tensor | None = None
) -> Calibration:
    """Return the calibration of the predicted class, or of every label in a multi-label task.

    Args:
        probabilities: ``(n, classes)``.
        targets: Class indices ``(n,)``, or 0 and 1 for labels ``(n, labels)``.
        n_bins: Number of bins of equal width between 0 and 1.
        weights: Sample weights ``(n,)``; None counts every sample once.

    Raises:
        InputError: There are no samples, shapes do not match, or values are not probabilities.

    Source:
        Bins and ECE of the predicted class follow Guo et al., "On calibration of modern neural
        networks", 2017. Edges belong to the lower bin, as in scikit-learn.
    """
    p = probabilities.double().cpu()
    targets = targets.cpu()
    if p.ndim != 2 or not len(p) or len(targets) != len(p):
        raise InputError(
            f"Calibration needs probabilities (n, classes) and n targets, but they have the shapes "
            f"{tuple(p.shape)} and {tuple(targets.shape)}."
        )
    if not bool(((p >= 0) & (p <= 1)).all()):  # also True if one is NaN
        raise InputError(
            "Some probabilities are not between 0 and 1. Apply a softmax to logits first."
        )
    n_bins = checked_count(n_bins, "n_bins")
    weights = None if weights is None else weights.double().cpu()
    if targets.shape == p.shape:
        return calibration_from_sums(label_calibration(p, targets > 0.5, n_bins, weights))
    if targets.ndim == 1:
        return calibration_from_sums(class_calibration(p, targets, n_bins, weights))
    raise InputError(
        f"The shapes of the targets {tuple(targets.shape)} and of the probabilities "
        f"{tuple(p.shape)} do not match."
    )


def calibration_from_sums(sums: CalibrationSums) -> Calibration:
    """Return the calibration from the sums in a task's ``Summary``.

    Raises:
        InputError: There are no predictions, or some probabilities are not finite.
    """
    count, confidence, correct, _ = to_rows(sums.bins.sum(dim=0, keepdim=True))[0]
    if not count:
        raise InputError("There are no predictions, so there is no calibration.")
    if not math.isfinite(confidence):
        raise InputError("Some probabilities are not finite, because outputs of the model are not.")
    bins = tuple(
        CalibrationBin(total / n, weighted_wilson(hits, n, squares), as_count(n))
        for n, total, hits, squares in to_rows(sums.bins)
        if n
    )
    distance = sum(each.count * abs(each.accuracy.value - each.confidence) for each in bins)
    return Calibration(
        bins=bins,
        ece=distance / count,
        brier=float(sums.squared_error) / count,
        confidence=confidence / count,
        accuracy=correct / count,
    )
