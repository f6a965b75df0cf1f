"""Metrics for labels: one a sample, or any number.

Held against scikit-learn in ``tests/core/task/test_metrics.py``, absent classes included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau.task.metrics import ShareMetric, SumMetric, as_real

# ---------------------------------------------------------------- one label a sample


class ConfusionMatrix(SumMetric):
    """Counts of (true class, predicted class); for the report, as it is no single number.

    Args:
        ignore_index: Targets with this value count nowhere (padding).
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Takes in outputs ``(batch, classes, ...)`` and labels ``(batch, ...)``."""
        n = outputs.shape[1]
        predicted, truth = _labels(outputs, targets)
        counts = _count(truth * n + predicted, n * n, _kept(truth, self.ignore_index))
        self.add("matrix", counts.view(n, n))

    @property
    def matrix(self) -> Tensor:
        """int64 ``(classes, classes)``: rows are the truth, columns the prediction."""
        if not self.sums:
            raise InputError("The confusion matrix is empty: update it with a batch first.")
        return self.sums["matrix"]


class Accuracy(ShareMetric):
    """Share of samples whose highest output is the true class.

    Args:
        ignore_index: Targets with this value count nowhere (padding).
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Takes in outputs ``(batch, classes, ...)`` and labels ``(batch, ...)``."""
        predicted, truth = _labels(outputs, targets)
        self.add_right(predicted == truth, _kept(truth, self.ignore_index))


class TopKAccuracy(ShareMetric):
    """Share of samples whose true class is among the ``k`` highest outputs.

    Args:
        k: How many guesses count; less than the number of classes.
        ignore_index: Targets with this value count nowhere (padding).
    """

    def __init__(self, k: int = 5, ignore_index: int | None = None) -> None:
        super().__init__()
        if k < 1:
            raise InputError(f"TopKAccuracy needs k of at least 1, not {k}.")
        self.k = k
        self.ignore_index = ignore_index

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Takes in outputs ``(batch, classes, ...)`` and labels ``(batch, ...)``."""
        if self.k >= outputs.shape[1]:
            raise InputError(
                f"TopKAccuracy({self.k}) is always 1 with {outputs.shape[1]} classes. "
                "Take a smaller k, or Accuracy."
            )
        _, truth = _labels(outputs, targets)
        guesses = outputs.topk(self.k, dim=1).indices
        right = (guesses == truth.unsqueeze(1)).any(dim=1)
        self.add_right(right, _kept(truth, self.ignore_index))


class _PerClass(SumMetric):
    """Counts for each class; three vectors rather than a matrix, so that a vocabulary fits too."""

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Takes in outputs ``(batch, classes, ...)`` and labels ``(batch, ...)``."""
        n = outputs.shape[1]
        predicted, truth = _labels(outputs, targets)
        kept = _kept(truth, self.ignore_index)
        right = predicted == truth
        self.add("right", _count(truth, n, right if kept is None else right & kept))
        self.add("truth", _count(truth, n, kept))
        self.add("predicted", _count(predicted, n, kept))


class BalancedAccuracy(_PerClass):
    """Mean over the classes of the share found; classes without samples are left out.

    Args:
        ignore_index: Targets with this value count nowhere (padding).
    """

    def compute(self) -> float:
        """0..1; nan when nothing was counted."""
        if not self.sums:
            return float("nan")
        truth = self.sums["truth"]
        present = truth > 0
        recall = as_real(self.sums["right"])[present] / as_real(truth)[present]
        return float(recall.mean().item())


class MacroF1(_PerClass):
    """Mean of the classes' F1; classes that are neither true nor predicted are left out.

    Args:
        ignore_index: Targets with this value count nowhere (padding).
    """

    def compute(self) -> float:
        """0..1; nan when nothing was counted."""
        if not self.sums:
            return float("nan")
        seen = self.sums["truth"] + self.sums["predicted"]
        present = seen > 0
        f1 = 2 * as_real(self.sums["right"])[present] / as_real(seen)[present]
        return float(f1.mean().item())


# ---------------------------------------------------------------- any number of labels a sample


class _PerLabel(SumMetric):
    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Takes in logits and 0/1 targets, both ``(batch, labels)``."""
        chosen, truth = _label_sets(outputs, targets, self.threshold)
        self.add("right", (chosen & truth).sum(dim=0))
        self.add("seen", chosen.sum(dim=0) + truth.sum(dim=0))


class MultiLabelMicroF1(_PerLabel):
    """F1 over all (sample, label) pairs at once; 0 where nothing is true or chosen.

    Args:
        threshold: A label is chosen from this probability on.
    """

    def compute(self) -> float:
        """0..1; nan before the first batch."""
        if not self.sums:
            return float("nan")
        right, seen = self.sums["right"].sum(), self.sums["seen"].sum()
        return float((2 * as_real(right) / as_real(seen).clamp(min=1)).item())


class MultiLabelMacroF1(_PerLabel):
    """Mean of the labels' F1; a label that is never true nor chosen counts as 0.

    Args:
        threshold: A label is chosen from this probability on.
    """

    def compute(self) -> float:
        """0..1; nan before the first batch."""
        if not self.sums:
            return float("nan")
        f1 = 2 * as_real(self.sums["right"]) / as_real(self.sums["seen"]).clamp(min=1)
        return float(f1.mean().item())


class ExactMatch(ShareMetric):
    """Share of samples whose labels are all right, none missing and none too many.

    Args:
        threshold: A label is chosen from this probability on.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        super().__init__()
        self.threshold = threshold

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Takes in logits and 0/1 targets, both ``(batch, labels)``."""
        chosen, truth = _label_sets(outputs, targets, self.threshold)
        self.add_right((chosen == truth).all(dim=1))


# ---------------------------------------------------------------- on the device


def _labels(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted and true class numbers, both ``(batch, ...)``; soft targets by their highest."""
    outputs, targets = outputs.detach(), targets.detach()
    if targets.is_floating_point() and targets.shape == outputs.shape:
        targets = targets.argmax(dim=1)
    predicted = outputs.argmax(dim=1)
    if predicted.shape != targets.shape:
        raise InputError(
            f"Targets have shape {tuple(targets.shape)} but outputs {tuple(outputs.shape)} need "
            f"labels of shape {tuple(predicted.shape)}. Drop or add an axis in the data set."
        )
    return predicted, targets.to(torch.int64)


def _label_sets(outputs: Tensor, targets: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Chosen and true labels, bool ``(batch, labels)``."""
    if outputs.shape != targets.shape:
        raise InputError(
            f"Targets have shape {tuple(targets.shape)} but outputs {tuple(outputs.shape)}: "
            "several labels need one 0 or 1 a label."
        )
    return outputs.detach().sigmoid() >= threshold, targets.detach() > 0.5


def _kept(truth: Tensor, ignore_index: int | None) -> Tensor | None:
    return None if ignore_index is None else truth != ignore_index


def _count(numbers: Tensor, n: int, kept: Tensor | None) -> Tensor:
    """How often each of 0..n-1 occurs. ``bincount`` would read the device on CUDA."""
    if kept is not None:
        numbers = torch.where(kept, numbers, n)
    numbers = numbers.reshape(-1)
    counts = torch.zeros(n + 1, dtype=torch.int64, device=numbers.device)
    return counts.scatter_add_(0, numbers, torch.ones_like(numbers))[:n]
