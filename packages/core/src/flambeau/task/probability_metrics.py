"""Metrics of predicted probabilities: AUROC, average precision, log-loss and Brier score.

All are exact, without bins, and can be merged over processes. With several classes, each class is
scored against the rest, and the scores are averaged; with two classes, the second one is the
positive class. A sample with weight 2 counts as two samples; a sample with weight 0 does not count,
even if its outputs are nan.

``tests/core/task/test_probability_metrics.py`` compares them with scikit-learn, also for ties.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau.errors import InputError
from flambeau.task.metrics import StoringMetric, SumMetric
from flambeau.task.numerics import as_real, per_sample, size_of

_Column: TypeAlias = tuple[Tensor, Tensor, Tensor | None]

# ---------------------------------------------------------------- one label per sample


class _ClassSum(SumMetric):
    higher_is_better = False
    takes_weights = True

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def arguments(self) -> Mapping[str, Any]:
        """Return the JSON values from which the constructor rebuilds the metric in an export."""
        return {"ignore_index": self.ignore_index}

    def _add_rows(self, values: Tensor, kept: Tensor, weights: Tensor | None) -> None:
        """Add the values ``(n,)`` of the rows for which ``kept`` is True, times their weights."""
        if weights is not None:
            kept = kept & (weights > 0)
        each = kept if weights is None else torch.where(kept, as_real(weights), 0)
        self.add("total", (torch.where(kept, values, 0) * each).sum())
        self.add("count", each.sum())


class LogLoss(_ClassSum):
    """Mean negative log-likelihood of the target class, without class weights or smoothing.

    It is computed from logits, so unlike scikit-learn's it is not clipped for probabilities near 0.

    Args:
        ignore_index: Targets with this value are not counted (padding).
    """

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add logits ``(batch, classes, ...)``, labels ``(batch, ...)`` and sample weights."""
        logits, truth = class_rows(outputs, targets)
        kept = _kept(truth, self.ignore_index)
        log_p = as_real(logits).log_softmax(dim=1)
        chosen = log_p.gather(1, torch.where(kept, truth, 0).unsqueeze(1)).squeeze(1)
        self._add_rows(-chosen, kept, row_weights(weights, targets))

    def compute(self) -> float:
        """Return a value ≥ 0; nan if nothing was counted."""
        return self._ratio("total", "count")


class RefinedLogLoss(StoringMetric):
    """The lowest log-loss that one temperature can give: ``log_loss`` without over-confidence.

    It measures what calibration after training cannot correct, and selects the epoch of a model
    that is calibrated afterwards. All logits are stored.

    Args:
        ignore_index: Targets with this value are not counted (padding).

    Source:
        Berta, Holzmüller, Jordan and Bach, "Rethinking Early Stopping: Refine, Then Calibrate",
        2025 (arXiv 2501.19195).
    """

    higher_is_better = False
    takes_weights = True

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def arguments(self) -> Mapping[str, Any]:
        """Return the JSON values from which the constructor rebuilds the metric in an export."""
        return {"ignore_index": self.ignore_index}

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add logits ``(batch, classes, ...)``, labels ``(batch, ...)`` and sample weights."""
        logits, truth = class_rows(outputs, targets)
        self.keep(logits, truth, row_weights(weights, targets))

    def compute(self) -> float:
        """Return a value ≥ 0; nan if nothing was counted or a logit is not finite."""
        from flambeau.task.probability_calibration import fit_temperature

        found = self.sums
        if not found:
            return float("nan")
        logits, truth, weights = found["outputs"], found["targets"], found.get("weights")
        kept = _kept(truth, self.ignore_index)
        if weights is not None:
            kept = kept & (weights > 0)
        logits, truth = logits[kept].double(), truth[kept]
        weights = None if weights is None else weights[kept].double()
        if not len(truth) or not bool(logits.isfinite().all()):
            return float("nan")
        try:
            temperatures = [1.0, fit_temperature(logits, truth, weights)]
        except InputError:
            # No temperature is best: all rows are right, or the model is no better than chance.
            temperatures = [1.0, math.inf]
        each = torch.ones_like(truth, dtype=torch.float64) if weights is None else weights
        losses = [
            -(logits / temperature).log_softmax(dim=1).gather(1, truth.unsqueeze(1)).squeeze(1)
            for temperature in temperatures
        ]
        return min(float((loss * each).sum() / each.sum()) for loss in losses)


class BrierScore(_ClassSum):
    """Mean squared difference between the probabilities and the target.

    For two classes, the mean of ``(p - y)²``, 0..1; for more, summed over the classes, 0..2.

    Args:
        ignore_index: Targets with this value are not counted (padding).
    """

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add logits ``(batch, classes, ...)``, labels ``(batch, ...)`` and sample weights."""
        logits, truth = class_rows(outputs, targets)
        kept = _kept(truth, self.ignore_index)
        p = as_real(logits).softmax(dim=1)
        hit = truth.unsqueeze(1) == torch.arange(p.shape[1], device=p.device)
        distance = (p - hit.to(p.dtype)).square().sum(dim=1)
        if p.shape[1] == 2:
            distance = distance / 2
        self._add_rows(distance, kept, row_weights(weights, targets))

    def compute(self) -> float:
        """Return a value in 0..2; nan if nothing was counted."""
        return self._ratio("total", "count")


class _Ranking(StoringMetric, ABC):
    """The base class of metrics that rank the samples, for which all outputs must be stored."""

    higher_is_better = True
    takes_weights = True

    def compute(self) -> float:
        """Return the mean over the classes or labels, in 0..1.

        nan before the first batch, for outputs that are nan, and if a class or label applies to no
        sample or to every sample.
        """
        found = self.sums
        if not found:
            return float("nan")
        weights = found.get("weights")
        used = slice(None) if weights is None else weights > 0
        weights = None if weights is None else as_real(weights[used])
        columns = self._columns(found["outputs"][used], found["targets"][used], weights)
        values = [self._score(as_real(scores), positive, w) for scores, positive, w in columns]
        return sum(values) / len(values)

    @abstractmethod
    def _columns(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None
    ) -> Iterator[_Column]:
        """Yield for each class or label its scores ``(n,)``, where it applies, and the weights."""

    @abstractmethod
    def _score(self, scores: Tensor, positive: Tensor, weights: Tensor | None) -> float:
        """Return the metric of one class or label."""


class _ClassRanking(_Ranking):
    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index

    def arguments(self) -> Mapping[str, Any]:
        """Return the JSON values from which the constructor rebuilds the metric in an export."""
        return {"ignore_index": self.ignore_index}

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add logits ``(batch, classes, ...)``, labels ``(batch, ...)`` and sample weights."""
        self.keep(*class_rows(outputs, targets), row_weights(weights, targets))

    def _columns(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None
    ) -> Iterator[_Column]:
        if self.ignore_index is not None:
            kept = targets != self.ignore_index
            outputs, targets = outputs[kept], targets[kept]
            weights = None if weights is None else weights[kept]
        outputs = as_real(outputs)
        if outputs.shape[1] == 2:
            # Equal to the order of the probabilities, which round to equal values near 0 and 1.
            yield outputs[:, 1] - outputs[:, 0], targets == 1, weights
            return
        odds = log_odds(outputs)
        for column in range(odds.shape[1]):
            yield odds[:, column], targets == column, weights


def log_odds(logits: Tensor) -> Tensor:
    """Return ``log(p / (1 - p))`` of the softmax of logits ``(n, classes)``.

    It has the order of the probabilities, but does not round to equal values near 0 and 1.
    """
    # Differences to the largest logit, in sorted order, so that equal probabilities stay equal.
    logits = logits - logits.amax(dim=1, keepdim=True)
    ordered, order = logits.sort(dim=1)
    log_p = logits - ordered.logsumexp(dim=1, keepdim=True)
    odds = log_p - torch.log1p(-log_p.exp())
    # 1 - p loses its digits where p is above 1/2, which is true of at most one class of a row.
    best = order[:, -1:]
    exact = ordered[:, -1:] - ordered[:, :-1].logsumexp(dim=1, keepdim=True)
    is_likely = log_p.gather(1, best) > math.log(0.5)
    return odds.scatter(1, best, torch.where(is_likely, exact, odds.gather(1, best)))


class AUROC(_ClassRanking):
    """Area under the ROC curve: how often a positive sample has a higher score than a negative.

    More than two classes: the mean over the classes, each against the rest.

    Args:
        ignore_index: Targets with this value are not counted (padding).
    """

    def _score(self, scores: Tensor, positive: Tensor, weights: Tensor | None) -> float:
        return _auroc(scores, positive, weights)


class AveragePrecision(_ClassRanking):
    """Average precision: the area under the steps of the precision-recall curve.

    More than two classes: the mean over the classes, each against the rest. A class without
    samples gives nan; scikit-learn warns and counts 0.

    Args:
        ignore_index: Targets with this value are not counted (padding).
    """

    def _score(self, scores: Tensor, positive: Tensor, weights: Tensor | None) -> float:
        return _average_precision(scores, positive, weights)


# ---------------------------------------------------------------- any number of labels per sample


class _LabelSum(SumMetric):
    higher_is_better = False
    takes_weights = True

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add logits and 0/1 targets, both ``(batch, labels)``, and sample weights."""
        check_label_shapes(outputs, targets)
        logits, truth = as_real(outputs.detach()), as_real(targets.detach())
        distance = self._distance(logits, truth)
        self.add("soft", is_soft(truth).sum())
        if weights is None:
            self.add("total", distance.sum())
            self.add("count", size_of(truth))
            return
        each = as_real(weights).unsqueeze(1)
        self.add("total", (torch.where(each > 0, distance, 0) * each).sum())
        self.add("count", each.sum() * truth.shape[1])

    def compute(self) -> float:
        """Return the mean over samples and labels, ≥ 0; nan before the first batch.

        Raises:
            InputError: A target is neither 0 nor 1.
        """
        if self.sums and int(self.sums["soft"]):
            raise _soft_error(type(self).__name__)
        return self._ratio("total", "count")

    def _distance(self, logits: Tensor, truth: Tensor) -> Tensor:
        """Return the error of each predicted probability, ``(batch, labels)``."""
        raise NotImplementedError


class MultiLabelLogLoss(_LabelSum):
    """Mean negative log-likelihood over samples and labels."""

    def _distance(self, logits: Tensor, truth: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, truth, reduction="none")


class MultiLabelBrierScore(_LabelSum):
    """Mean of ``(p - y)²`` over samples and labels, 0..1."""

    def _distance(self, logits: Tensor, truth: Tensor) -> Tensor:
        return (logits.sigmoid() - truth).square()


class _LabelRanking(_Ranking):
    def arguments(self) -> Mapping[str, Any]:
        """Return no values: the constructor has no arguments."""
        return {}

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add logits and 0/1 targets, both ``(batch, labels)``, and sample weights."""
        check_label_shapes(outputs, targets)
        self.keep(outputs, targets, weights)

    def _columns(
        self, outputs: Tensor, targets: Tensor, weights: Tensor | None
    ) -> Iterator[_Column]:
        if bool(is_soft(targets).any()):
            raise _soft_error(type(self).__name__)
        for column in range(outputs.shape[1]):
            yield outputs[:, column], targets[:, column] > 0.5, weights


class MultiLabelAUROC(_LabelRanking):
    """Mean area under the ROC curve over the labels."""

    def _score(self, scores: Tensor, positive: Tensor, weights: Tensor | None) -> float:
        return _auroc(scores, positive, weights)


class MultiLabelAveragePrecision(_LabelRanking):
    """Mean average precision over the labels.

    A label that applies to no sample gives nan; scikit-learn warns and counts 0.
    """

    def _score(self, scores: Tensor, positive: Tensor, weights: Tensor | None) -> float:
        return _average_precision(scores, positive, weights)


# ---------------------------------------------------------------- rankings


def _auroc(scores: Tensor, positive: Tensor, weights: Tensor | None) -> float:
    """Return the share of (positive, negative) pairs in the right order; a tie counts half."""
    found = _counts_by_score(scores, positive, weights)
    if found is None:
        return float("nan")
    positives, negatives = found
    below = negatives.cumsum(0) - negatives
    # Twice the number of pairs, without weights a whole number: exact up to 10⁹ samples.
    twice = (positives * (2 * below + negatives)).sum().item()
    return twice / (2 * positives.sum().item() * negatives.sum().item())


def _average_precision(scores: Tensor, positive: Tensor, weights: Tensor | None) -> float:
    """Return the sum, over the distinct scores, of precision times the increase of recall."""
    found = _counts_by_score(scores, positive, weights)
    if found is None:
        return float("nan")
    positives, negatives = (counts.flip(0) for counts in found)
    hits = positives.cumsum(0)
    precision = as_real(hits) / as_real(hits + negatives.cumsum(0))
    return (as_real(positives) * precision).sum().item() / positives.sum().item()


def _counts_by_score(
    scores: Tensor, positive: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor] | None:
    """Return the numbers of positive and of negative samples at each distinct score, ascending.

    With weights (above 0) it returns the sums of the weights instead. It returns None if all
    samples are positive or all negative, or if a score is nan.
    """
    n, n_positive = len(positive), int(positive.sum())
    if n_positive in (0, n) or bool(scores.isnan().any()):
        return None
    order = scores.argsort()
    ordered = scores[order]
    first = torch.zeros(n, dtype=torch.int64, device=scores.device)
    first[1:] = ordered[1:] != ordered[:-1]
    group = first.cumsum(0)
    both = torch.stack([positive, ~positive])[:, order]
    each = both.to(torch.int64) if weights is None else both * weights[order]
    counts = each.new_zeros(2, int(group[-1]) + 1).index_add_(1, group, each)
    return counts[0], counts[1]


# ---------------------------------------------------------------- checks without device reads


def class_rows(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits ``(n, classes)`` and labels ``(n,)``, with all further axes as rows."""
    outputs, targets = outputs.detach(), targets.detach()
    if targets.is_floating_point():
        raise InputError(
            f"The targets are of {targets.dtype} and shape {tuple(targets.shape)}, but AUROC, "
            "average precision, log-loss and Brier score need class numbers. Evaluate on hard "
            "labels: mix labels in a transform of training batches only."
        )
    expected = (outputs.shape[0], *outputs.shape[2:])
    if targets.shape != expected:
        raise InputError(
            f"Targets have shape {tuple(targets.shape)}, but outputs {tuple(outputs.shape)} need "
            f"labels of shape {expected}. Remove or add an axis in the data set."
        )
    logits = outputs.movedim(1, -1).reshape(-1, outputs.shape[1])
    return logits, targets.reshape(-1).to(torch.int64)


def row_weights(weights: Tensor | None, targets: Tensor) -> Tensor | None:
    """Return the weight of each row of ``class_rows``: the weight of its sample."""
    if weights is None:
        return None
    return per_sample(weights.detach(), targets).expand(targets.shape).reshape(-1)


def _kept(truth: Tensor, ignore_index: int | None) -> Tensor:
    return (
        torch.ones_like(truth, dtype=torch.bool) if ignore_index is None else truth != ignore_index
    )


def check_label_shapes(outputs: Tensor, targets: Tensor) -> None:
    """Raise an InputError unless outputs and targets are both ``(batch, labels)``."""
    if outputs.shape != targets.shape or outputs.ndim != 2:
        raise InputError(
            f"Targets have shape {tuple(targets.shape)}, but outputs {tuple(outputs.shape)}: "
            "MultiLabel needs one 0 or 1 for each label. Give both as (batch, labels)."
        )


def is_soft(targets: Tensor) -> Tensor:
    """Return which targets are neither 0 nor 1."""
    return (targets != 0) & (targets != 1)


def _soft_error(metric: str) -> InputError:
    return InputError(
        f"{metric} needs targets of 0 and 1, but some targets are in between (soft labels). "
        "Evaluate on hard labels: mix labels in a transform of training batches only."
    )
