"""Confusion matrices: counts, shares, the most confused pairs, scores per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flambeau.errors import ArgumentError, InputError
from flambeau.report.intervals import Interval, weighted_wilson
from flambeau.report.text_table import as_count, count_text, text_table
from flambeau.task.batch_summary import PairCounts
from flambeau.task.numerics import to_rows

_PRINTED_CLASSES = 15  # a wider matrix does not fit into a terminal
_TINY = torch.finfo(torch.float64).tiny
_MATRIX_CLASSES = 5_000  # of a matrix of 200 MB


@dataclass(frozen=True)
class ConfusedPair:
    """Samples of one class that were predicted as another.

    Attributes:
        target: Class in the targets.
        predicted: Predicted class.
        count: Number of samples. All counts here are sums of weights if samples have weights.
        share: Share of all samples of ``target``, 0..1.
    """

    target: str
    predicted: str
    count: float
    share: float

    def __str__(self) -> str:
        shown = f"{count_text(self.count)} ({self.share:.1%})"
        return f"{self.target} predicted as {self.predicted}: {shown}"


@dataclass(frozen=True)
class ClassScores:
    """The scores of one class or label.

    Attributes:
        name: Name of the class.
        support: Samples of this class.
        predicted: Samples predicted as this class.
        precision: Share of correct predictions among ``predicted``, with a Wilson interval; None if
            ``predicted`` is 0.
        recall: Share of correct predictions among ``support``, with a Wilson interval; None if
            ``support`` is 0.
        f1: Harmonic mean of precision and recall, 0..1; None if ``support`` and ``predicted`` are
            both 0.
    """

    name: str
    support: float
    predicted: float
    precision: Interval | None
    recall: Interval | None
    f1: float | None


@dataclass(frozen=True, eq=False)
class Confusion:
    """A confusion matrix with class names; only pairs of classes that occur are stored.

    Attributes:
        seen: Counts of the pairs (target, predicted).
        classes: Names by class index.
    """

    seen: PairCounts
    classes: tuple[str, ...]

    @classmethod
    def of(cls, predicted: Tensor, targets: Tensor, classes: Sequence[str]) -> Confusion:
        """Count pairs of class indices, ``(n,)`` each.

        Raises:
            InputError: The lengths differ, or an index is out of range.
        """
        if predicted.shape != targets.shape or targets.ndim != 1:
            raise InputError(
                "Predictions and targets must be class indices of the same shape (n,), but they "
                f"have the shapes {tuple(predicted.shape)} and {tuple(targets.shape)}."
            )
        return cls.from_pairs(PairCounts.of(targets, predicted), classes)

    @classmethod
    def from_pairs(cls, seen: PairCounts, classes: Sequence[str]) -> Confusion:
        """Return the confusion matrix of pairs that are already counted.

        Raises:
            InputError: An index is out of range.
        """
        n = len(classes)
        for name, indices in (("target", seen.pairs[:, 0]), ("predicted", seen.pairs[:, 1])):
            wrong = indices[(indices < 0) | (indices >= n)]
            if len(wrong):
                raise InputError(
                    f"The {name} class index {int(wrong[0])} is out of range: there are {n} "
                    f"classes, 0 to {n - 1}."
                )
        return cls(seen, tuple(classes))

    @property
    def matrix(self) -> Tensor:
        """Counts ``(classes, classes)``: rows are targets, columns predictions.

        The dtype is int64, or float64 for sums of sample weights.

        Raises:
            ArgumentError: There are more than 5,000 classes, whose matrix takes over 200 MB.
        """
        n = len(self.classes)
        if n > _MATRIX_CLASSES:
            raise ArgumentError(
                f"The matrix of {n:,} classes has {n * n:,} cells ({n * n * 8 / 1e9:.1f} GB). "
                "Use seen, most_confused() or class_scores(), which store only pairs that occur."
            )
        cells = torch.zeros(n * n, dtype=self.seen.counts.dtype)
        cells[self.seen.pairs[:, 0] * n + self.seen.pairs[:, 1]] = self.seen.counts
        return cells.view(n, n)

    def normalised(self, by: Literal["target", "predicted", "all"] = "target") -> Tensor:
        """Return the matrix as shares instead of counts, float64 ``(classes, classes)``.

        Args:
            by: "target": each row sums to 1 (the diagonal is the recall); "predicted": each column
                sums to 1 (the diagonal is the precision); "all": the matrix sums to 1. Empty rows
                and columns stay 0.

        Raises:
            ArgumentError: ``by`` is not one of these values, or there are too many classes.
        """
        counts = self.matrix.double()
        if by == "target":
            return counts / counts.sum(dim=1, keepdim=True).clamp(min=_TINY)
        if by == "predicted":
            return counts / counts.sum(dim=0, keepdim=True).clamp(min=_TINY)
        if by == "all":
            return counts / counts.sum().clamp(min=_TINY)
        raise ArgumentError(f"by is {by!r}, but must be 'target', 'predicted' or 'all'.")

    def most_confused(self, n: int = 10) -> list[ConfusedPair]:
        """Return at most ``n`` pairs of classes, the pairs with the most errors first."""
        wrong = self.seen.pairs[:, 0] != self.seen.pairs[:, 1]
        pairs, counts = self.seen.pairs[wrong], self.seen.counts[wrong]
        support = self._totals(0)
        # Stable: pairs with equal counts keep the order of the classes.
        order = counts.sort(descending=True, stable=True).indices[: max(n, 0)]
        found: list[ConfusedPair] = []
        for position in order:
            row, column = (int(each) for each in pairs[position])
            names, count = (
                (self.classes[row], self.classes[column]),
                as_count(float(counts[position])),
            )
            found.append(ConfusedPair(*names, count, count / float(support[row])))
        return found

    def class_scores(self) -> list[ClassScores]:
        """Return support, precision, recall and F1 of each class."""
        pairs = self.seen.pairs
        right = pairs[:, 0] == pairs[:, 1]
        correct = torch.zeros(len(self.classes), dtype=self.seen.counts.dtype)
        correct[pairs[right, 0]] = self.seen.counts[right]
        squares = self.seen.squares
        return _class_scores(
            self.classes,
            correct,
            (self._totals(0), self._totals(0, squares)),
            (self._totals(1), self._totals(1, squares)),
        )

    def _totals(self, side: int, of: Tensor | None = None) -> Tensor:
        """Return the count of each class among targets (``side`` 0) or predictions (1)."""
        counts = self.seen.counts if of is None else of
        total = torch.zeros(len(self.classes), dtype=counts.dtype)
        return total.index_add_(0, self.seen.pairs[:, side], counts)

    def __str__(self) -> str:
        if len(self.classes) > _PRINTED_CLASSES:
            return "\n".join(map(str, self.most_confused())) or "no errors"
        rows = [list(map(as_count, row)) for row in to_rows(self.matrix)]
        named = [[name, *row] for name, row in zip(self.classes, rows, strict=True)]
        return text_table(["target \\ predicted", *self.classes], named)


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """Counts of correct and wrong predictions for each label of a multi-label task.

    Attributes:
        classes: Names of the labels.
        true_positives: Predicted and in the target, int64 ``(labels,)``, or sums of weights.
        false_positives: Predicted but not in the target.
        false_negatives: In the target but not predicted.
        true_negatives: Neither predicted nor in the target.
        squares: Sums of the squared weights of predictions and of targets, ``(2, labels)``; None
            without weights.
    """

    classes: tuple[str, ...]
    true_positives: Tensor
    false_positives: Tensor
    false_negatives: Tensor
    true_negatives: Tensor
    squares: Tensor | None = None

    @classmethod
    def of(cls, predicted: Tensor, targets: Tensor, classes: Sequence[str]) -> LabelCounts:
        """Count correct, missed and falsely predicted labels in bool tensors ``(n, labels)``.

        Raises:
            InputError: The shapes differ from ``(n, labels)``.
        """
        shape = predicted.shape
        if shape != targets.shape or predicted.ndim != 2 or shape[1] != len(classes):
            raise InputError(
                f"Predicted labels and targets must both have the shape (n, {len(classes)}), but "
                f"they have the shapes {tuple(shape)} and {tuple(targets.shape)}."
            )
        predicted, targets = predicted.bool().cpu(), targets.bool().cpu()
        return cls(
            tuple(classes),
            (predicted & targets).sum(dim=0),
            (predicted & ~targets).sum(dim=0),
            (~predicted & targets).sum(dim=0),
            (~predicted & ~targets).sum(dim=0),
        )

    def class_scores(self) -> list[ClassScores]:
        """Return support, precision, recall and F1 of each label."""
        positives = self.true_positives
        support, predicted = positives + self.false_negatives, positives + self.false_positives
        squares = (predicted, support) if self.squares is None else self.squares
        return _class_scores(
            self.classes, positives, (support, squares[1]), (predicted, squares[0])
        )

    def __str__(self) -> str:
        columns = (
            self.true_positives,
            self.false_positives,
            self.false_negatives,
            self.true_negatives,
        )
        rows = [list(map(as_count, row)) for row in to_rows(torch.stack(columns, dim=1))]
        named = [[name, *row] for name, row in zip(self.classes, rows, strict=True)]
        return text_table(["label", "TP", "FP", "FN", "TN"], named)


def _class_scores(
    classes: Sequence[str],
    correct: Tensor,
    support: tuple[Tensor, Tensor],
    predicted: tuple[Tensor, Tensor],
) -> list[ClassScores]:
    """Return the scores of each class, from counts ``(classes,)`` and their sums of squares."""
    rows: list[ClassScores] = []
    columns = to_rows(torch.stack([correct, *support, *predicted], dim=1))
    for name, counts in zip(classes, columns, strict=True):
        hits, n_targets, squares, n_predicted, predicted_squares = counts
        rows.append(
            ClassScores(
                name,
                as_count(n_targets),
                as_count(n_predicted),
                weighted_wilson(hits, n_predicted, predicted_squares) if n_predicted else None,
                weighted_wilson(hits, n_targets, squares) if n_targets else None,
                2 * hits / (n_targets + n_predicted) if n_targets + n_predicted else None,
            )
        )
    return rows
