"""Conformal prediction: intervals and sets of classes with a stated coverage.

Samples that the model was not trained on give *scores*, which say how far a target is from its
prediction. A new target has, with probability ``level``, a score that is not above a quantile of
them, whatever the model is, as long as the new sample and those samples are exchangeable: drawn in
the same way, in any order. Rows of one person and values in order of time are not.

Source:
    Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; Angelopoulos and Bates,
    "A Gentle Introduction to Conformal Prediction", 2021.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flambeau.checked_arguments import as_plain
from flambeau.data.tables import to_list
from flambeau.errors import ArgumentError, InputError
from flambeau.task.numerics import distinct

MOST_STORED = 2_000
"""Scores that are stored; of more, every so many, so that a level is at most 1/2,000 too high."""


@dataclass(frozen=True)
class ConformalScores:
    """Scores of calibration samples in ascending order, from which any level can be read.

    Attributes:
        scores: Ascending scores.
        cumulated: For each score, the weight of all samples whose score is at most as large.
        total: The weight of all samples: their number, or that of their groups.
    """

    scores: tuple[float, ...]
    cumulated: tuple[float, ...]
    total: float

    @classmethod
    def of(
        cls, scores: Tensor, weights: Tensor | None = None, groups: Tensor | None = None
    ) -> ConformalScores:
        """Return the scores of calibration samples.

        Args:
            scores: ``(n,)``, larger for a target that is farther from its prediction.
            weights: ``(n,)``; a sample with weight 2 counts as two. None for 1 each.
            groups: ``(n,)`` numbers of groups whose rows depend on each other. Each group then
                counts as one sample in all, so that the coverage holds for a row of a new group
                (Lee, Barber and Willett, "Distribution-free inference with hierarchical data",
                2023).

        Raises:
            InputError: There are no samples, or a score is not a number.
        """
        scores = scores.detach().double().cpu().reshape(-1)
        if not len(scores):
            raise InputError("There are no calibration samples, from which to compute intervals.")
        if bool(scores.isnan().any()):
            raise InputError(
                f"{int(scores.isnan().sum()):,} of {len(scores):,} calibration samples have a nan "
                "as score. Check the outputs of the model."
            )
        each = torch.ones_like(scores) if weights is None else weights.double().cpu()
        if groups is not None:
            numbers = distinct(groups.cpu())[1]
            of_group = torch.zeros(int(numbers.max()) + 1, dtype=torch.float64)
            of_group.index_add_(0, numbers, each)
            each = each / of_group[numbers]
        order = scores.argsort(stable=True)
        cumulated = each[order].cumsum(0)
        total = float(cumulated[-1])
        if len(scores) > MOST_STORED:
            wanted = torch.arange(1, MOST_STORED + 1, dtype=torch.float64) / MOST_STORED * total
            # The first score that reaches the weight: the coverage is never lower than stated.
            kept = torch.searchsorted(cumulated, wanted - 1e-9 * total).clamp(max=len(scores) - 1)
            order, cumulated = order[kept], cumulated[kept]
        return cls(tuple(to_list(scores[order])), tuple(to_list(cumulated)), total)

    def quantile(self, level: float) -> float:
        """Return the score that a new sample exceeds with a probability of at most 1 - ``level``.

        It is infinite if there are too few samples for the level: 9 are needed for 0.9.

        Raises:
            ArgumentError: The level is not between 0 and 1.
        """
        check_level(level)
        # The new sample counts as one more, with a score that may be infinite.
        wanted = level * (self.total + 1) - 1e-9
        for score, reached in zip(self.scores, self.cumulated, strict=True):
            if reached >= wanted:
                return score
        return math.inf

    def arguments(self) -> Mapping[str, Any]:
        """Return JSON values, from which ``ConformalScores.read`` creates equal scores."""
        counts = tuple(float(at) for at in range(1, len(self.scores) + 1))
        weights = {} if self.cumulated == counts else {"cumulated": list(self.cumulated)}
        return {"scores": list(self.scores), "total": self.total, **weights}

    @classmethod
    def read(cls, arguments: Mapping[str, Any]) -> ConformalScores:
        """Return the scores from the result of ``arguments``."""
        scores: Sequence[float] = arguments["scores"]
        cumulated = arguments.get("cumulated") or range(1, len(scores) + 1)
        return cls(tuple(scores), tuple(map(float, cumulated)), arguments["total"])


def check_level(level: float) -> None:
    """Check a level of coverage.

    Raises:
        ArgumentError: It is not a number between 0 and 1.
    """
    number = as_plain(level)
    if not isinstance(number, int | float) or isinstance(number, bool) or not 0 < number < 1:
        raise ArgumentError(
            f"interval is {level!r:.40}, but must be a share between 0 and 1: 0.9 for intervals "
            "that contain the target in 90% of all cases."
        )


def class_scores(probabilities: Tensor, targets: Tensor) -> Tensor:
    """Return 1 minus the probability of the right class, ``(n,)``.

    Sets of all classes whose probability is at least 1 minus the quantile are the smallest ones on
    average (Sadinle, Lei and Wasserman, "Least Ambiguous Set-Valued Classifiers", 2019).

    Args:
        probabilities: ``(n, classes)``.
        targets: Class numbers, int64 ``(n,)``.
    """
    return 1 - probabilities.double().gather(1, targets.long().unsqueeze(1)).squeeze(1)


def class_sets(probabilities: Tensor, quantile: float) -> Tensor:
    """Return which classes are in the set of each sample: bool ``(n, classes)``.

    The most probable class always is, so that no set is empty.
    """
    found = 1 - probabilities.double() <= quantile
    best = probabilities.argmax(dim=1, keepdim=True)
    return found.scatter(1, best, value=True)


def ordered_sets(probabilities: Tensor, quantile: float) -> list[list[int]]:
    """Return the class numbers in the set of each sample, the most probable class first."""
    return in_order(probabilities, class_sets(probabilities, quantile))


def in_order(probabilities: Tensor, members: Tensor) -> list[list[int]]:
    """Return the class numbers in each set, the most probable class first.

    Args:
        probabilities: ``(n, classes)``.
        members: Which classes are in each set, bool ``(n, classes)``.
    """
    order: list[list[int]] = to_list(probabilities.argsort(dim=1, descending=True, stable=True))
    is_member: list[list[bool]] = to_list(members.cpu())
    return [[at for at in row if is_in[at]] for row, is_in in zip(order, is_member, strict=True)]


def widened(low: Tensor, high: Tensor, quantiles: Sequence[float]) -> tuple[Tensor, Tensor]:
    """Return intervals that are wider by a quantile at both ends, or narrower if it is negative.

    Args:
        low: Lower ends, ``(batch, values)``.
        high: Upper ends.
        quantiles: One for each of the values.
    """
    by = low.new_tensor(quantiles)
    # An interval that is narrowed by more than its width is one point.
    middle = (low + high) / 2
    return (low - by).minimum(middle), (high + by).maximum(middle)


def interval_scores(targets: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return by how much targets are outside of ``[low, high]``; negative inside.

    For a model of one value, ``low`` and ``high`` are both the prediction, and the score is the
    absolute error. For quantiles, the intervals are as wide as the model finds necessary for a
    sample (Romano, Patterson and Candès, "Conformalized Quantile Regression", 2019).

    Args:
        targets: ``(n, …)``, in the units of the predictions.
        low: Lower ends, of the same shape.
        high: Upper ends.
    """
    return torch.maximum(low.double() - targets.double(), targets.double() - high.double())
