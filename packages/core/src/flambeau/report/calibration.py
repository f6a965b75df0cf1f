"""Calibration of predicted probabilities: reliability curve, ECE and Brier score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau.report.intervals import Interval, wilson


@dataclass(frozen=True)
class CalibrationBin:
    """A bin: the predictions of similar confidence.

    Attributes:
        confidence: Mean predicted probability, 0..1.
        accuracy: Fraction of correct predictions, with a Wilson interval.
        count: Number of predictions.
    """

    confidence: float
    accuracy: Interval
    count: int


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


def calibration(probabilities: Tensor, targets: Tensor, n_bins: int = 10) -> Calibration:
    """Return the calibration of the predicted class, or of every label in a multi-label task.

    Args:
        probabilities: ``(n, classes)``.
        targets: Class indices ``(n,)``, or 0 and 1 for labels ``(n, labels)``.
        n_bins: Number of bins of equal width between 0 and 1.

    Raises:
        InputError: No samples, shapes that do not match, or values that are not probabilities.

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
    if n_bins < 1:
        raise InputError(f"n_bins is {n_bins}, but must be at least 1.")
    if targets.shape == p.shape:
        expected = (targets > 0.5).double()
        brier = (p - expected).square().mean()
        confidence, correct = p.flatten(), expected.flatten()
    elif targets.ndim == 1:
        expected = torch.nn.functional.one_hot(targets.long(), p.shape[1]).double()
        brier = (p - expected).square().sum(dim=1).mean() / (2 if p.shape[1] == 2 else 1)
        confidence, predicted = p.max(dim=1)
        correct = (predicted == targets).double()
    else:
        raise InputError(
            f"The shapes of the targets {tuple(targets.shape)} and of the probabilities "
            f"{tuple(p.shape)} do not match."
        )
    bins = _bins(confidence, correct, n_bins)
    distance = sum(each.count * abs(each.accuracy.value - each.confidence) for each in bins)
    return Calibration(
        bins=bins,
        ece=distance / len(confidence),
        brier=float(brier),
        confidence=float(confidence.mean()),
        accuracy=float(correct.mean()),
    )


def _bins(confidence: Tensor, correct: Tensor, n_bins: int) -> tuple[CalibrationBin, ...]:
    edges = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)[1:-1]
    indices = torch.bucketize(confidence, edges)
    counts = indices.bincount(minlength=n_bins)
    confidences = indices.bincount(confidence, minlength=n_bins)
    hits = indices.bincount(correct, minlength=n_bins)
    return tuple(
        CalibrationBin(
            float(confidences[i] / counts[i]),
            wilson(round(float(hits[i])), int(counts[i])),
            int(counts[i]),
        )
        for i in range(n_bins)
        if counts[i]
    )
