"""The decision between two classes by the costs of its mistakes.

``tests/core/task/test_decision_costs.py`` compares it with a search over all thresholds.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flambeau.errors import ArgumentError, InputError
from flambeau.task.classification_metrics import (
    Accuracy,
    BalancedAccuracy,
    ConfusionMatrix,
    MacroF1,
)
from flambeau.task.function_metrics import SklearnMetric
from flambeau.task.metrics import SumMetric
from flambeau.task.numerics import as_real
from flambeau.task.probability_metrics import class_rows, row_weights

NAMES = ("false_positive", "false_negative")


def checked_costs(costs: Mapping[str, float], classes: tuple[str, ...]) -> dict[str, float]:
    """Return the costs of both mistakes.

    Raises:
        ArgumentError: A name is missing or unknown.
        InputError: There are not two classes, or a cost is not above 0.
    """
    if len(classes) != 2:
        raise InputError(
            f"costs are for two classes, but there are {len(classes)}. Omit costs, or combine "
            "classes."
        )
    if set(costs) != set(NAMES):
        raise ArgumentError(
            f"costs has {', '.join(costs) or 'no names'}, but needs 'false_positive' (the target "
            f"is {classes[0]!r}) and 'false_negative' (the target is {classes[1]!r})."
        )
    found = {name: float(costs[name]) for name in NAMES}
    for name, cost in found.items():
        if not 0 < cost < math.inf:
            raise InputError(f"The cost {name} is {cost}, but must be finite and above 0.")
    return found


def ideal_threshold(costs: Mapping[str, float]) -> float:
    """Return the probability of the second class from which it has the lower expected cost.

    Source:
        Elkan, "The foundations of cost-sensitive learning", IJCAI 2001.
    """
    return costs["false_positive"] / (costs["false_positive"] + costs["false_negative"])


def best_threshold(
    probabilities: Tensor, targets: Tensor, costs: Mapping[str, float], weights: Tensor | None
) -> float:
    """Return the threshold with the lowest cost on these samples.

    It lies halfway between two predicted probabilities, or between one of them and 0 or 1. If
    several thresholds have the lowest cost, the one nearest to ``ideal_threshold`` is returned.

    Args:
        probabilities: Probability of the second class, ``(n,)``.
        targets: 0 or 1, ``(n,)``.
        costs: Cost of a false positive and of a false negative.
        weights: Sample weights above 0, ``(n,)``; None counts every sample once.
    """
    p, order = probabilities.double().sort(descending=True)
    each = torch.ones(len(p)).double() if weights is None else weights.double()[order]
    positive = targets[order] == 1
    # Entry k: the first k samples are predicted to be positive.
    zero = p.new_zeros(1)
    false_positive = torch.cat([zero, (each * ~positive).cumsum(0)])
    found_positive = torch.cat([zero, (each * positive).cumsum(0)])
    total = costs["false_positive"] * false_positive + costs["false_negative"] * (
        found_positive[-1] - found_positive
    )
    above, below = torch.cat([p.new_ones(1), p]), torch.cat([p, zero])
    total[above == below] = math.inf  # samples of equal probability cannot be separated
    halfway = (above + below) / 2
    best = halfway[total <= total.min() * (1 + 1e-12)]
    chosen = float(best[(best - ideal_threshold(costs)).abs().argmin()])
    # A threshold lies between 0 and 1, which halves of extreme probabilities may round to.
    return min(max(chosen, sys.float_info.min), 1 - sys.float_info.epsilon)


def checked_threshold(threshold: Any) -> float:
    """Return the threshold of a calibration.

    Raises:
        InputError: It is not between 0 and 1.
    """
    if not 0 < threshold < 1:
        raise InputError(f"threshold must be a probability between 0 and 1, not {threshold}.")
    return float(threshold)


def decides_second(probability: Tensor, threshold: float) -> Tensor:
    """Return whether the second class is predicted, from its probability."""
    return probability >= threshold


def with_threshold(logits: Tensor, threshold: float) -> Tensor:
    """Return logits ``(batch, 2, …)`` whose largest entry is the predicted class.

    Their softmax is not a probability; metrics of labels use them.
    """
    probability = as_real(logits).softmax(dim=1)[:, 1]
    second = decides_second(probability, threshold).to(logits.dtype)
    # A nan stays one, so that a score is nan as well.
    kept = 0 * logits
    return kept + torch.stack([1 - second, second], dim=1)


def is_label_metric(metric: Any) -> bool:
    """Return whether a metric compares predicted labels with targets, not probabilities."""
    inner = getattr(metric, "metric", metric)  # of several processes
    if isinstance(inner, SklearnMetric):
        return inner.takes == "labels"
    return isinstance(inner, MeanCost | Accuracy | BalancedAccuracy | ConfusionMatrix | MacroF1)


class MeanCost(SumMetric):
    """The mean cost of the decisions, per sample.

    Args:
        false_positive: Cost of predicting the second class where the first is the target.
        false_negative: Cost of predicting the first class where the second is the target.
        ignore_index: Targets with this value do not count.
    """

    higher_is_better = False
    takes_weights = True

    def __init__(
        self, false_positive: float, false_negative: float, ignore_index: int | None = None
    ) -> None:
        super().__init__()
        self.false_positive, self.false_negative = false_positive, false_negative
        self.ignore_index = ignore_index

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None, /) -> None:
        """Add logits ``(batch, 2, …)``, whose largest entry is the decision, and targets."""
        rows, labels = class_rows(outputs, targets)
        each = row_weights(weights, targets)
        each = as_real(torch.ones_like(labels) if each is None else each)
        if self.ignore_index is not None:
            each = each * (labels != self.ignore_index)
        decided = rows.argmax(dim=1)
        wrong_positive = (decided == 1) & (labels == 0)
        wrong_negative = (decided == 0) & (labels == 1)
        cost = self.false_positive * wrong_positive + self.false_negative * wrong_negative
        self.note_nan(rows, each > 0)
        self.add("cost", (each * cost).sum())
        self.add("count", each.sum())

    def compute(self) -> float:
        """Return a value ≥ 0; nan before the first batch."""
        return self._ratio("cost", "count")

    def arguments(self) -> Mapping[str, Any]:
        return {
            "false_positive": self.false_positive,
            "false_negative": self.false_negative,
            "ignore_index": self.ignore_index,
        }
