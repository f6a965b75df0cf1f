"""Metrics for classification, with one label per sample or any number of labels.

``tests/core/task/test_metrics.py`` compares them with scikit-learn, also for absent classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from flambeau.checked_arguments import checked_count
from flambeau.errors import InputError
from flambeau.task.metrics import ShareMetric, SumMetric
from flambeau.task.numerics import as_real, per_sample, predicted_labels, real_dtype

# ---------------------------------------------------------------- one label per sample


class ConfusionMatrix(SumMetric):
    """Counts of (target class, predicted class); for reports, because it is not a single number.

    Args:
        ignore_index: Targets with this value are not counted (padding).
    """

    takes_weights = True

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def arguments(self) -> Mapping[str, Any]:
        return {"ignore_index": self.ignore_index}

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add outputs ``(batch, classes, ...)`` and labels ``(batch, ...)``, and sample weights."""
        n = outputs.shape[1]
        predicted, truth = _labels(outputs, targets)
        counts = _count(truth * n + predicted, n * n, _kept(truth, self.ignore_index), weights)
        self.add("matrix", counts.view(n, n))

    @property
    def matrix(self) -> Tensor:
        """``(classes, classes)``: rows are targets, columns predictions.

        int64 counts, or float sums of the sample weights.
        """
        if not self.sums:
            raise InputError("The confusion matrix is empty. Call update with a batch first.")
        return self.sums["matrix"]


class Accuracy(ShareMetric):
    """Share of samples whose highest output is the target class.

    Args:
        ignore_index: Targets with this value are not counted (padding).
    """

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def arguments(self) -> Mapping[str, Any]:
        return {"ignore_index": self.ignore_index}

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add outputs ``(batch, classes, ...)`` and labels ``(batch, ...)``, and sample weights."""
        predicted, truth = _labels(outputs, targets)
        kept = _kept(truth, self.ignore_index)
        self.note_nan(outputs, kept, weights)
        self.add_correct(predicted == truth, kept, weights)


class TopKAccuracy(ShareMetric):
    """Share of samples whose target class is among the ``k`` highest outputs.

    Args:
        k: Number of highest outputs that count; less than the number of classes.
        ignore_index: Targets with this value are not counted (padding).
    """

    def __init__(self, k: int = 5, ignore_index: int | None = None) -> None:
        super().__init__()
        self.k = checked_count(k, "k", unit="outputs")
        self.ignore_index = ignore_index

    def arguments(self) -> Mapping[str, Any]:
        return {"k": self.k, "ignore_index": self.ignore_index}

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add outputs ``(batch, classes, ...)`` and labels ``(batch, ...)``, and sample weights."""
        if self.k >= outputs.shape[1]:
            raise InputError(
                f"TopKAccuracy({self.k}) is always 1 with {outputs.shape[1]} classes. Use a "
                "smaller k, or Accuracy."
            )
        _, truth = _labels(outputs, targets)
        kept = _kept(truth, self.ignore_index)
        self.note_nan(outputs, kept, weights)
        highest = outputs.topk(self.k, dim=1).indices
        correct = (highest == truth.unsqueeze(1)).any(dim=1)
        self.add_correct(correct, kept, weights)


class _PerClass(SumMetric):
    """Counts per class, in three vectors; they fit in memory even for a vocabulary of classes."""

    higher_is_better = True
    takes_weights = True

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def arguments(self) -> Mapping[str, Any]:
        return {"ignore_index": self.ignore_index}

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add outputs ``(batch, classes, ...)`` and labels ``(batch, ...)``, and sample weights."""
        n = outputs.shape[1]
        predicted, truth = _labels(outputs, targets)
        kept = _kept(truth, self.ignore_index)
        self.note_nan(outputs, kept, weights)
        correct = predicted == truth
        both = correct if kept is None else correct & kept
        self.add("correct", _count(truth, n, both, weights))
        self.add("truth", _count(truth, n, kept, weights))
        self.add("predicted", _count(predicted, n, kept, weights))


class BalancedAccuracy(_PerClass):
    """Mean recall over the classes; classes without samples are not counted.

    Args:
        ignore_index: Targets with this value are not counted (padding).
    """

    def compute(self) -> float:
        """Return a value in 0..1; nan if nothing was counted or an output is nan."""
        if self.is_undefined:
            return float("nan")
        truth = self.sums["truth"]
        present = truth > 0
        recall = as_real(self.sums["correct"])[present] / as_real(truth)[present]
        return float(recall.mean().item())


class MacroF1(_PerClass):
    """Mean F1 over the classes; classes that are neither targets nor predicted are not counted.

    Args:
        ignore_index: Targets with this value are not counted (padding).
    """

    def compute(self) -> float:
        """Return a value in 0..1; nan if nothing was counted or an output is nan."""
        if self.is_undefined:
            return float("nan")
        total = self.sums["truth"] + self.sums["predicted"]
        present = total > 0
        f1 = 2 * as_real(self.sums["correct"])[present] / as_real(total)[present]
        return float(f1.mean().item())


# ---------------------------------------------------------------- any number of labels per sample


class _Thresholded(SumMetric):
    """The base class of metrics that compare probabilities with a threshold."""

    def __init__(self, threshold: float | Sequence[float] | None = None) -> None:
        super().__init__()
        self.threshold = None if threshold is None else _as_threshold(threshold)

    def arguments(self) -> Mapping[str, Any]:
        return {"threshold": _threshold_value(self.threshold)}

    def use_threshold(self, threshold: float | Sequence[float]) -> None:
        """Use the threshold of the task, unless the metric has its own."""
        if self.threshold is None:
            self.threshold = _as_threshold(threshold)


class _PerLabel(_Thresholded):
    higher_is_better = True
    takes_weights = True

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add logits and 0/1 targets, both ``(batch, labels)``, and sample weights."""
        self.threshold = _on_device(self.threshold, outputs)
        predicted, truth = _label_sets(outputs, targets, self.threshold)
        self.note_nan(outputs, weights=weights)
        correct, total = predicted & truth, predicted.long() + truth.long()
        if weights is not None:
            each = per_sample(as_real(weights), truth)
            correct, total = correct * each, total * each
        self.add("correct", correct.sum(dim=0))
        self.add("total", total.sum(dim=0))


class MultiLabelMicroF1(_PerLabel):
    """F1 over all (sample, label) pairs; 0 if no label is a target or predicted.

    Args:
        threshold: A label is predicted if its probability is at least this; one for all labels, or
            one for each. None takes that of the task, or 0.5.
    """

    def compute(self) -> float:
        """Return a value in 0..1; nan before the first batch, or if an output is nan."""
        if self.is_undefined:
            return float("nan")
        return float(_f1(self.sums["correct"].sum(), self.sums["total"].sum()).item())


class MultiLabelMacroF1(_PerLabel):
    """Mean F1 over the labels; a label that is neither a target nor predicted counts as 0.

    Args:
        threshold: A label is predicted if its probability is at least this; one for all labels, or
            one for each. None takes that of the task, or 0.5.
    """

    def compute(self) -> float:
        """Return a value in 0..1; nan before the first batch, or if an output is nan."""
        if self.is_undefined:
            return float("nan")
        return float(_f1(self.sums["correct"], self.sums["total"]).mean().item())


class ExactMatch(_Thresholded, ShareMetric):
    """Share of samples whose set of predicted labels equals the target set.

    Args:
        threshold: A label is predicted if its probability is at least this; one for all labels, or
            one for each. None takes that of the task, or 0.5.
    """

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add logits and 0/1 targets, both ``(batch, labels)``, and sample weights."""
        self.threshold = _on_device(self.threshold, outputs)
        predicted, truth = _label_sets(outputs, targets, self.threshold)
        self.note_nan(outputs, weights=weights)
        self.add_correct((predicted == truth).all(dim=1), weights=weights)


# ---------------------------------------------------------------- without device reads


def _labels(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return predicted and target classes ``(batch, ...)``; of soft targets, the argmax."""
    outputs, targets = outputs.detach(), targets.detach()
    if targets.is_floating_point() and targets.shape == outputs.shape:
        targets = targets.argmax(dim=1)
    predicted = outputs.argmax(dim=1)
    if predicted.shape != targets.shape:
        raise InputError(
            f"Targets have shape {tuple(targets.shape)}, but outputs {tuple(outputs.shape)} need "
            f"labels of shape {tuple(predicted.shape)}. Remove or add an axis in the data set."
        )
    return predicted, targets.to(torch.int64)


def _threshold_value(threshold: float | Tensor | None) -> Any:
    """Return a threshold as a JSON value."""
    return threshold.tolist() if isinstance(threshold, Tensor) else threshold  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def _as_threshold(threshold: float | Sequence[float]) -> float | Tensor:
    return (
        threshold
        if isinstance(threshold, int | float)
        else torch.tensor(threshold, dtype=torch.float64)
    )


def _on_device(threshold: float | Tensor | None, outputs: Tensor) -> float | Tensor:
    if threshold is None:
        return 0.5
    if not isinstance(threshold, Tensor):
        return threshold
    return threshold.to(outputs.device, real_dtype(outputs.device))


def _label_sets(
    outputs: Tensor, targets: Tensor, threshold: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Return predicted and target labels, bool ``(batch, labels)``."""
    if outputs.shape != targets.shape:
        raise InputError(
            f"Targets have shape {tuple(targets.shape)}, but outputs {tuple(outputs.shape)}: "
            "MultiLabel needs one 0 or 1 for each label. Give both as (batch, labels)."
        )
    return predicted_labels(outputs.detach(), threshold), targets.detach() > 0.5


def _f1(correct: Tensor, total: Tensor) -> Tensor:
    """Return F1 from true positives and the sum of targets and predictions; 0 if that is 0."""
    return 2 * as_real(correct) / torch.where(total > 0, as_real(total), 1.0)


def _kept(truth: Tensor, ignore_index: int | None) -> Tensor | None:
    return None if ignore_index is None else truth != ignore_index


def _count(numbers: Tensor, n: int, kept: Tensor | None, weights: Tensor | None = None) -> Tensor:
    """Return how often each of 0..n-1 occurs; ``bincount`` would read the device on CUDA.

    With sample weights ``(batch,)``, the weights of the occurrences are added instead of counted.
    """
    if kept is not None:
        numbers = torch.where(kept, numbers, n)
    if weights is None:
        ones = torch.ones_like(numbers)
    else:
        ones = per_sample(as_real(weights), numbers).expand(numbers.shape)
    counts = torch.zeros(n + 1, dtype=ones.dtype, device=numbers.device)
    return counts.scatter_add_(0, numbers.reshape(-1), ones.reshape(-1))[:n]
