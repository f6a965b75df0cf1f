"""Whether a model is as often right as it says: reliability curve, ECE and Brier score."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau.report.intervals import Interval, wilson


@dataclass(frozen=True)
class Bin:
    """Samples of about one confidence.

    Attributes:
        confidence: Mean probability that the model gave, 0..1.
        right: Share that was right, with a Wilson interval.
        count: Samples.
    """

    confidence: float
    right: Interval
    count: int


@dataclass(frozen=True)
class Calibration:
    """How the probabilities of a model relate to how often it is right.

    Attributes:
        bins: The reliability curve: equally wide bins of confidence, empty ones left out.
        ece: Expected calibration error: mean distance of confidence and share right, by count;
            0 is perfect. It depends on the number of bins, and few samples make it larger.
        brier: Mean squared distance of probabilities and truth: 0 is perfect. For two classes or
            several labels of ``(p - y)²``; for more classes summed over them, 0..2.
        confidence: Mean confidence of all samples.
        accuracy: Share right of all samples.
    """

    bins: tuple[Bin, ...]
    ece: float
    brier: float
    confidence: float
    accuracy: float

    def __str__(self) -> str:
        verdict = "more" if self.confidence > self.accuracy else "less"
        return (
            f"ECE {self.ece:.4f}, Brier score {self.brier:.4f}; on average {verdict} sure "
            f"({self.confidence:.1%}) than right ({self.accuracy:.1%})"
        )


def calibration(probabilities: Tensor, targets: Tensor, n_bins: int = 10) -> Calibration:
    """The calibration of the chosen class, or of every label where a sample may have several.

    Args:
        probabilities: ``(n, classes)``.
        targets: Class numbers ``(n,)``, or 0 and 1 for labels ``(n, labels)``.
        n_bins: Equally wide bins of 0..1.

    Raises:
        InputError: No samples, shapes that do not fit, or numbers that are no probabilities.

    Source:
        Bins and ECE of the predicted class as in Guo et al., "On calibration of modern neural
        networks", 2017. Edges belong to the lower bin, as in scikit-learn.
    """
    p = probabilities.double().cpu()
    targets = targets.cpu()
    if p.ndim != 2 or not len(p) or len(targets) != len(p):
        raise InputError(
            f"Calibration needs probabilities (n, classes) and n targets, not {tuple(p.shape)} and "
            f"{tuple(targets.shape)}."
        )
    if not bool(((p >= 0) & (p <= 1)).all()):  # also where one is NaN
        raise InputError("Some probabilities are not within 0..1. Pass them through a softmax.")
    if n_bins < 1:
        raise InputError(f"n_bins is {n_bins}, but must be at least 1.")
    if targets.shape == p.shape:
        truth = (targets > 0.5).double()
        brier = (p - truth).square().mean()
        confidence, right = p.flatten(), truth.flatten()
    elif targets.ndim == 1:
        truth = torch.nn.functional.one_hot(targets.long(), p.shape[1]).double()
        brier = (p - truth).square().sum(dim=1).mean() / (2 if p.shape[1] == 2 else 1)
        confidence, chosen = p.max(dim=1)
        right = (chosen == targets).double()
    else:
        raise InputError(f"Targets {tuple(targets.shape)} do not fit {tuple(p.shape)}.")
    bins = _bins(confidence, right, n_bins)
    distance = sum(each.count * abs(each.right.value - each.confidence) for each in bins)
    return Calibration(
        bins=bins,
        ece=distance / len(confidence),
        brier=float(brier),
        confidence=float(confidence.mean()),
        accuracy=float(right.mean()),
    )


def _bins(confidence: Tensor, right: Tensor, n_bins: int) -> tuple[Bin, ...]:
    edges = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)[1:-1]
    places = torch.bucketize(confidence, edges)
    counts = places.bincount(minlength=n_bins)
    sure = places.bincount(confidence, minlength=n_bins)
    hits = places.bincount(right, minlength=n_bins)
    return tuple(
        Bin(
            float(sure[i] / counts[i]),
            wilson(round(float(hits[i])), int(counts[i])),
            int(counts[i]),
        )
        for i in range(n_bins)
        if counts[i]
    )
