"""Which class was taken for which: counts, shares, the pairs that are confused most."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flambeau.errors import ArgumentError, InputError
from flambeau.report.intervals import Interval, wilson
from flambeau.report.tables import text_table

_PRINTED_CLASSES = 15  # a wider matrix does not fit a terminal


@dataclass(frozen=True)
class Confused:
    """Samples of one class that were taken for another.

    Attributes:
        truth: What they are.
        predicted: What they were taken for.
        count: How many.
        share: Of all samples of ``truth``, 0..1.
    """

    truth: str
    predicted: str
    count: int
    share: float

    def __str__(self) -> str:
        return f"{self.truth} taken for {self.predicted}: {self.count:,} ({self.share:.1%})"


@dataclass(frozen=True)
class ClassScores:
    """How one class (or label) fares.

    Attributes:
        name: The class.
        support: Samples that are of it.
        predicted: Samples that were taken for it.
        precision: Right ones among ``predicted``, with a Wilson interval; None where there is
            none.
        recall: Right ones among ``support``, likewise.
        f1: Harmonic mean of the two, 0..1; None where the class is neither true nor predicted.
    """

    name: str
    support: int
    predicted: int
    precision: Interval | None
    recall: Interval | None
    f1: float | None


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts by true and predicted class.

    Attributes:
        matrix: int64 ``(classes, classes)``: rows are the truth, columns the prediction.
        classes: Names in the order of both.
    """

    matrix: Tensor
    classes: tuple[str, ...]

    @classmethod
    def of(cls, predicted: Tensor, truth: Tensor, classes: Sequence[str]) -> Confusion:
        """Counted from class numbers, ``(n,)`` each.

        Raises:
            InputError: Different lengths, or a number that is none of the classes.
        """
        n = len(classes)
        if predicted.shape != truth.shape or truth.ndim != 1:
            raise InputError(
                f"Predictions {tuple(predicted.shape)} and truth {tuple(truth.shape)} must both be "
                "class numbers of shape (n,)."
            )
        for name, numbers in (("predicted", predicted), ("true", truth)):
            wrong = numbers[(numbers < 0) | (numbers >= n)]
            if len(wrong):
                raise InputError(f"The {name} class {int(wrong[0])} is none of 0 to {n - 1}.")
        cells = truth.long().cpu() * n + predicted.long().cpu()
        return cls(cells.bincount(minlength=n * n).view(n, n), tuple(classes))

    def normalised(self, by: Literal["truth", "predicted", "all"] = "truth") -> Tensor:
        """Shares instead of counts, float64 ``(classes, classes)``.

        Args:
            by: "truth": each row adds up to 1 (its diagonal is the recall); "predicted": each
                column does (precision); "all": everything does. Empty rows and columns stay 0.
        """
        counts = self.matrix.double()
        if by == "truth":
            return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)
        if by == "predicted":
            return counts / counts.sum(dim=0, keepdim=True).clamp(min=1)
        if by == "all":
            return counts / counts.sum().clamp(min=1)
        raise ArgumentError(f"by is {by!r}, but must be 'truth', 'predicted' or 'all'.")

    def most_confused(self, n: int = 10) -> list[Confused]:
        """The pairs with most wrong answers, at most ``n``, the largest first."""
        wrong = self.matrix.clone().fill_diagonal_(0)
        share = self.normalised()
        # Stable: pairs with one count stay in the order of the classes.
        order = wrong.flatten().sort(descending=True, stable=True).indices[: max(n, 0)]
        found: list[Confused] = []
        for place in order:
            row, column = divmod(int(place), len(self.classes))
            count = int(wrong[row, column])
            if count:
                names = self.classes[row], self.classes[column]
                found.append(Confused(*names, count, float(share[row, column])))
        return found

    def table(self) -> list[ClassScores]:
        """Support, precision, recall and F1 of each class."""
        right = self.matrix.diagonal()
        return class_scores(self.classes, right, self.matrix.sum(dim=1), self.matrix.sum(dim=0))

    def __str__(self) -> str:
        if len(self.classes) > _PRINTED_CLASSES:
            return "\n".join(map(str, self.most_confused())) or "no class taken for another"
        rows = self.matrix.numpy().tolist()
        named = [[name, *row] for name, row in zip(self.classes, rows, strict=True)]
        return text_table(["true \\ predicted", *self.classes], named)


@dataclass(frozen=True, eq=False)
class LabelCounts:
    """Counts for each label of its own, where a sample may have several.

    Attributes:
        classes: Names of the labels.
        right: Chosen and true, int64 ``(labels,)``.
        wrong: Chosen but not true.
        missed: True but not chosen.
        rest: Neither.
    """

    classes: tuple[str, ...]
    right: Tensor
    wrong: Tensor
    missed: Tensor
    rest: Tensor

    @classmethod
    def of(cls, chosen: Tensor, truth: Tensor, classes: Sequence[str]) -> LabelCounts:
        """Counted from bool tensors, ``(n, labels)`` each.

        Raises:
            InputError: Other shapes.
        """
        if chosen.shape != truth.shape or chosen.ndim != 2 or chosen.shape[1] != len(classes):
            raise InputError(
                f"Chosen {tuple(chosen.shape)} and true {tuple(truth.shape)} labels must both have "
                f"shape (n, {len(classes)})."
            )
        chosen, truth = chosen.bool().cpu(), truth.bool().cpu()
        return cls(
            tuple(classes),
            (chosen & truth).sum(dim=0),
            (chosen & ~truth).sum(dim=0),
            (~chosen & truth).sum(dim=0),
            (~chosen & ~truth).sum(dim=0),
        )

    def table(self) -> list[ClassScores]:
        """Support, precision, recall and F1 of each label."""
        return class_scores(
            self.classes, self.right, self.right + self.missed, self.right + self.wrong
        )

    def __str__(self) -> str:
        columns = (self.right, self.wrong, self.missed, self.rest)
        rows = torch.stack(columns, dim=1).numpy().tolist()
        named = [[name, *row] for name, row in zip(self.classes, rows, strict=True)]
        return text_table(["label", "right", "wrong", "missed", "rest"], named)


def class_scores(
    classes: Sequence[str], right: Tensor, support: Tensor, predicted: Tensor
) -> list[ClassScores]:
    """A row a class from three counts, int64 ``(classes,)`` each."""
    rows: list[ClassScores] = []
    for place, name in enumerate(classes):
        hits, true, taken = int(right[place]), int(support[place]), int(predicted[place])
        rows.append(
            ClassScores(
                name,
                true,
                taken,
                wilson(hits, taken) if taken else None,
                wilson(hits, true) if true else None,
                2 * hits / (true + taken) if true + taken else None,
            )
        )
    return rows
