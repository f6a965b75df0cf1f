"""``Summary``: what a report keeps of a batch, in place of the model's outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from flambeau.task.numerics import HALF_DTYPES, distinct, predicted_labels

if TYPE_CHECKING:
    from flambeau.data.batch import Batch
    from flambeau.task.task import Task

N_BINS = 10
"""Number of bins of equal width, from 0 to 1, in which predicted probabilities are counted."""

TOP_K = 5
_MOST_VALUES = 250_000  # probabilities in memory at once: 2 MB


@dataclass(frozen=True, eq=False)
class Summary:
    """Figures of one or several batches: a few per sample, and sums over the samples.

    A report holds one summary for each part of the data: the entries of ``samples`` are
    concatenated over the batches, and the entries of ``sums`` are added. Neither contains one value
    per sample and class, so the report of a model with 33,000 classes fits in memory.

    Attributes:
        kind: "classification", "multi_label" or "regression", for which reports have sections;
            another name if the task itself defines the sections (``Task.report_sections``); "other"
            if there are only losses and scores.
        samples: Figures by name, one entry per sample: a tensor ``(batch, …)`` on the CPU, or a
            list. Reports read "loss" ``(batch,)``, "finite" (whether all outputs are finite),
            "target_text" and "predicted_text", and the figures that ``class_summary``,
            ``label_summary`` and ``value_summary`` list.
        sums: Sums by name: tensors on the CPU, or other values that can be added with ``+``.
        n_outputs: Number of classes or labels; 0 for other kinds.
    """

    kind: str = "other"
    samples: Mapping[str, Tensor | Sequence[Any]] = field(
        default_factory=dict[str, "Tensor | Sequence[Any]"]
    )
    sums: Mapping[str, Any] = field(default_factory=dict[str, Any])
    n_outputs: int = 0

    def entries(self, name: str) -> list[Any]:
        """Return the figure ``name`` as a list, one entry per sample; empty if it is missing."""
        return list(self.samples.get(name, ()))


@dataclass(frozen=True, eq=False)
class PairCounts:
    """How often each pair of target and predicted class was seen; pairs not seen take no memory.

    Attributes:
        pairs: int64 ``(pairs, 2)``: target and predicted class, sorted.
        counts: Number of samples of each pair, at least 1, int64 ``(pairs,)``; with sample weights,
            the sum of their weights, float64.
        squares: Sum of the squared weights of each pair, in the dtype of ``counts``; equal to
            ``counts`` without weights.
    """

    pairs: Tensor
    counts: Tensor
    squares: Tensor

    @classmethod
    def of(cls, targets: Tensor, predicted: Tensor, weights: Tensor | None = None) -> PairCounts:
        """Count the pairs of class indices, ``(n,)`` each, or add their weights ``(n,)``."""
        pairs = torch.stack([targets.long().cpu(), predicted.long().cpu()], dim=1)
        if weights is None:
            ones = torch.ones(len(pairs), dtype=torch.int64)
            return cls._counted(pairs, ones, ones)
        weights = weights.double().cpu()
        seen = weights > 0
        return cls._counted(pairs[seen], weights[seen], weights[seen].square())

    def __add__(self, other: PairCounts) -> PairCounts:
        pairs = torch.cat([self.pairs, other.pairs])
        counts, squares = (
            torch.cat(each) for each in ((self.counts, other.counts), (self.squares, other.squares))
        )
        return self._counted(pairs, counts, squares)

    @classmethod
    def _counted(cls, pairs: Tensor, counts: Tensor, squares: Tensor) -> PairCounts:
        # The code of a pair is below 2^62 for up to 2^31 classes.
        width = int(pairs.max()) + 1 if len(pairs) else 1
        codes, rows = distinct(pairs[:, 0] * width + pairs[:, 1])
        totals = [
            torch.zeros(len(codes), dtype=each.dtype).index_add_(0, rows, each)
            for each in (counts, squares)
        ]
        return cls(torch.stack([codes // width, codes % width], dim=1), *totals)


@dataclass(frozen=True, eq=False)
class CalibrationSums:
    """Sums from which the reliability curve, ECE and Brier score follow.

    Attributes:
        bins: float64 ``(bins, 4)``. For each bin: number of predictions, sum of their probabilities
            and number of correct predictions (all three weighted if the samples have weights), and
            sum of the squared weights. Bins have equal width; a probability on an edge belongs to
            the lower bin.
        squared_error: Sum over the predictions of their squared error, float64 0-d. For classes it
            is summed over the classes, and halved for two classes.
    """

    bins: Tensor
    squared_error: Tensor

    @classmethod
    def of(
        cls,
        confidence: Tensor,
        correct: Tensor,
        squared_errors: Tensor,
        n_bins: int = N_BINS,
        weights: Tensor | None = None,
    ) -> CalibrationSums:
        """Sum predictions by bin.

        Args:
            confidence: Predicted probabilities, float64 ``(predictions,)``.
            correct: 1 if the prediction is correct (the label applies), else 0, ``(predictions,)``.
            squared_errors: Squared error of each prediction, float64 ``(predictions,)``.
            n_bins: Number of bins.
            weights: Weight of each prediction, float64 ``(predictions,)``; None counts each once.
        """
        edges = torch.linspace(0, 1, n_bins + 1, dtype=torch.float64)[1:-1]
        index = torch.bucketize(confidence, edges)
        each = torch.ones_like(confidence) if weights is None else weights
        columns = (each, confidence * each, correct.double() * each, each.square())
        sums = [index.bincount(column, minlength=n_bins) for column in columns]
        return cls(torch.stack(sums, dim=1), (squared_errors * each).sum())

    def __add__(self, other: CalibrationSums) -> CalibrationSums:
        return CalibrationSums(self.bins + other.bins, self.squared_error + other.squared_error)


def class_calibration(
    probabilities: Tensor, targets: Tensor, n_bins: int = N_BINS, weights: Tensor | None = None
) -> CalibrationSums:
    """Return the calibration sums over the most probable class of each sample.

    Args:
        probabilities: float64 ``(n, classes)``.
        targets: Class indices ``(n,)``, without ignored targets.
        n_bins: Number of bins.
        weights: Sample weights, float64 ``(n,)``.
    """
    confidence, predicted = probabilities.max(dim=1)
    errors = probabilities.clone()
    errors[torch.arange(len(targets)), targets.long()] -= 1
    squared = errors.square_().sum(dim=1) / (2 if errors.shape[1] == 2 else 1)
    return CalibrationSums.of(confidence, predicted == targets, squared, n_bins, weights)


def label_calibration(
    probabilities: Tensor, targets: Tensor, n_bins: int = N_BINS, weights: Tensor | None = None
) -> CalibrationSums:
    """Return the calibration sums over the probabilities of all labels.

    Args:
        probabilities: float64 ``(n, labels)``.
        targets: Whether a label applies, bool ``(n, labels)``.
        n_bins: Number of bins.
        weights: Sample weights, float64 ``(n,)``.
    """
    squared = (probabilities - targets.double()).square_().flatten()
    each = None if weights is None else weights.repeat_interleave(targets.shape[1])
    return CalibrationSums.of(probabilities.flatten(), targets.flatten(), squared, n_bins, each)


# ---------------------------------------------------------------- kinds of tasks


def summary_of_kind(task: Task, outputs: Any, batch: Batch) -> Summary:
    """Return the summary that the task's ``kind`` needs.

    It contains only the losses if the kind has no figures, or if the outputs do not have one row
    per sample (maps, tokens).
    """
    losses = task.sample_losses(outputs, batch)
    is_matrix = isinstance(outputs, Tensor) and outputs.ndim <= 2 and len(outputs) == len(batch)
    if not (is_matrix and task.output_names):
        return loss_summary(losses)
    if task.kind == "regression":
        return value_summary(outputs, batch.target.reshape(outputs.shape), losses)
    if outputs.ndim != 2:
        return loss_summary(losses)
    outputs = task.calibrated(outputs)
    if task.kind == "multi_label":
        return label_summary(outputs, batch.target, task.thresholds, losses, batch.sample_weight)
    if task.kind != "classification":
        return loss_summary(losses)
    targets = batch.target
    targets = targets.argmax(dim=1) if targets.is_floating_point() else targets.long()
    if task.ignore_index is not None:
        targets = targets.masked_fill(targets == task.ignore_index, -1)
    threshold: float | None = getattr(task, "decision_threshold", None)
    return class_summary(outputs, targets, losses, batch.sample_weight, threshold)


def loss_summary(losses: Tensor | None) -> Summary:
    """Return a summary with the loss of each sample, if it is known."""
    return Summary() if losses is None else Summary(samples={"loss": losses})


def class_summary(
    outputs: Tensor,
    targets: Tensor,
    losses: Tensor | None,
    weights: Tensor | None = None,
    threshold: float | None = None,
) -> Summary:
    """Return the summary of classification with one class per sample.

    Per sample: "target" (-1 if ignored), "predicted", "probability" of the predicted class,
    "target_probability" (NaN if ignored), "top_classes" and "top_probabilities" ``(batch, 5)``,
    most probable first. Sums: "confusion" and "calibration" of the samples that are not ignored.

    Args:
        outputs: Logits ``(batch, classes)``.
        targets: Class indices ``(batch,)``, -1 if ignored.
        losses: Loss of each sample.
        weights: Sample weights ``(batch,)``, which count in the sums.
        threshold: Of two classes the second is predicted from this probability on; None predicts
            the most probable class.
    """
    outputs, targets = _plain(outputs), targets.cpu()
    each = _sample_weights(weights, len(outputs))
    calibration = CalibrationSums(
        torch.zeros(N_BINS, 4, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    )
    figures: list[tuple[Tensor, ...]] = []
    for logits, labels, counted in _pieces(outputs, targets, each):
        probabilities = logits.double().softmax(dim=1)
        predicted = logits.argmax(dim=1)
        if threshold is not None:
            predicted = (probabilities[:, 1] >= threshold).long()
        kept = labels >= 0
        of_target = probabilities.gather(1, labels.clamp(min=0).unsqueeze(1)).squeeze(1)
        top = logits.topk(min(TOP_K, logits.shape[1]), dim=1).indices
        figures.append(
            (
                predicted,
                probabilities.gather(1, predicted.unsqueeze(1)).squeeze(1),
                of_target.where(kept, torch.nan),
                top,
                probabilities.gather(1, top),
                _finite(logits),
            )
        )
        kept = kept & (counted > 0)
        part = (probabilities, labels) if bool(kept.all()) else (probabilities[kept], labels[kept])
        calibration = calibration + class_calibration(*part, weights=counted[kept])
    names = (
        "predicted",
        "probability",
        "target_probability",
        "top_classes",
        "top_probabilities",
        "finite",
    )
    columns = dict(zip(names, map(torch.cat, zip(*figures, strict=True)), strict=True))
    kept = targets >= 0
    counted = None if weights is None else each[kept]
    confusion = PairCounts.of(targets[kept], columns["predicted"][kept], counted)
    return Summary(
        "classification",
        _with_losses({"target": targets, **columns}, losses),
        {"confusion": confusion, "calibration": calibration},
        outputs.shape[1],
    )


def label_summary(
    outputs: Tensor,
    targets: Tensor,
    thresholds: Sequence[float],
    losses: Tensor | None,
    weights: Tensor | None = None,
) -> Summary:
    """Return the summary of a multi-label batch.

    Per sample: "target_bits" and "predicted_bits" (see ``pack_labels``), and "label_counts"
    ``(batch, 3)``: how many labels are correctly predicted, are predicted, and are targets. Sums:
    "labels" ``(4, labels)``: true positives, false positives, false negatives and true negatives of
    each label, int64, or float64 sums of the sample weights; "label_squares" ``(2, labels)``: the
    same with the squared weights of the predictions and of the targets; "calibration" of every
    label.

    Args:
        outputs: Logits ``(batch, labels)``.
        targets: 0 and 1, or probabilities, ``(batch, labels)``.
        thresholds: A label is predicted if its probability is at least its threshold.
        losses: Loss of each sample.
        weights: Sample weights ``(batch,)``, which count in the sums.
    """
    outputs, targets = _plain(outputs), targets.cpu()
    n_labels = outputs.shape[1]
    calibration = CalibrationSums(
        torch.zeros(N_BINS, 4, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    )
    limits = torch.tensor(thresholds, dtype=torch.float64)
    counting = np.int64 if weights is None else np.float64
    sums, squares = (np.zeros((size, n_labels), dtype=counting) for size in (4, 2))
    each = _sample_weights(weights, len(outputs))
    figures: list[tuple[Tensor, ...]] = []
    for logits, values, counted in _pieces(outputs, targets, each):
        applies, predicted = values > 0.5, predicted_labels(logits, limits)
        # numpy counts bools without a copy as integers, which would be 8 times as large.
        sets = [each.numpy() for each in (applies & predicted, predicted, applies)]
        total: Any = len(logits)
        if weights is None:
            hits, n_predicted, n_targets = (found.sum(axis=0) for found in sets)
            squares += (n_predicted, n_targets)
        else:
            w = counted.numpy()
            total = w.sum()
            hits, n_predicted, n_targets = (w @ found for found in sets)
            squares += (np.square(w) @ sets[1], np.square(w) @ sets[2])
        misses = n_targets - hits
        sums += (hits, n_predicted - hits, misses, total - n_predicted - misses)
        counts = torch.stack([torch.as_tensor(found.sum(axis=1)) for found in sets], dim=1)
        figures.append((pack_labels(applies), pack_labels(predicted), counts, _finite(logits)))
        rows = counted > 0
        p = logits.double().sigmoid()
        part = (p, applies) if bool(rows.all()) else (p[rows], applies[rows])
        calibration = calibration + label_calibration(*part, weights=counted[rows])
    names = ("target_bits", "predicted_bits", "label_counts", "finite")
    columns: dict[str, Tensor] = dict(
        zip(names, map(torch.cat, zip(*figures, strict=True)), strict=True)
    )
    return Summary(
        "multi_label",
        _with_losses(columns, losses),
        {
            "labels": torch.as_tensor(sums),
            "label_squares": torch.as_tensor(squares),
            "calibration": calibration,
        },
        n_labels,
    )


def value_summary(predictions: Tensor, targets: Tensor, losses: Tensor | None) -> Summary:
    """Return the summary of a regression batch: "target" and "predicted" per sample.

    Args:
        predictions: ``(batch, values)``, in the units of the targets.
        targets: ``(batch, values)``.
        losses: Loss of each sample.
    """
    predictions = _plain(predictions)
    columns = {
        "target": targets.detach().cpu(),
        "predicted": predictions,
        "finite": _finite(predictions),
    }
    return Summary("regression", _with_losses(columns, losses))


def pack_labels(labels: Tensor) -> Tensor:
    """Return bools ``(n, labels)`` as bits, uint8 ``(n, ⌈labels / 8⌉)``."""
    return torch.as_tensor(np.packbits(labels.cpu().numpy(), axis=1))


def unpack_labels(bits: Tensor, n_labels: int) -> Tensor:
    """Return the bools ``(n, labels)`` of ``pack_labels``."""
    return torch.as_tensor(np.unpackbits(bits.numpy(), axis=1, count=n_labels)).bool()


def _with_losses(columns: dict[str, Tensor], losses: Tensor | None) -> dict[str, Tensor]:
    return columns if losses is None else {"loss": losses, **columns}


def _finite(outputs: Tensor) -> Tensor:
    """Return which rows contain only finite values, from their minimum and maximum."""
    lowest, highest = outputs.aminmax(dim=1)
    return lowest.isfinite() & highest.isfinite()


def _plain(outputs: Tensor) -> Tensor:
    """Return outputs on the CPU, in float32 or wider."""
    outputs = outputs.detach().cpu()
    return outputs.float() if outputs.dtype in HALF_DTYPES else outputs


def _sample_weights(weights: Tensor | None, n: int) -> Tensor:
    """Return the sample weights, or ones, as float64 ``(n,)`` on the CPU."""
    return torch.ones(n, dtype=torch.float64) if weights is None else weights.double().cpu()


def _pieces(outputs: Tensor, *columns: Tensor) -> list[tuple[Tensor, ...]]:
    """Split a batch into groups of rows that are small enough to need little memory."""
    rows = max(1, _MOST_VALUES // max(1, outputs.shape[1]))
    return list(zip(*(_split(each, rows) for each in (outputs, *columns)), strict=True))


def _split(value: Tensor, rows: int) -> tuple[Tensor, ...]:
    return cast("tuple[Tensor, ...]", value.split(rows))  # pyright: ignore[reportUnknownMemberType]
