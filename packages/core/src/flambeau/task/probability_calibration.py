"""Fit temperatures, which make probabilities match frequencies, and thresholds of labels.

The samples must not have been used for training.
``tests/core/task/test_probability_calibration.py`` compares the results with scipy and
scikit-learn.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.errors import ArgumentError, InputError
from flambeau.task.class_validation import check_thresholds
from flambeau.task.numerics import to_rows

_ROWS = 8_192
"""Rows that are converted to float64 at a time: 65 MB for 1,000 classes."""

_ENOUGH_ITERATIONS = 200


def check_calibration(
    values: Mapping[str, Any], known: Sequence[str], n_thresholds: int = 0
) -> dict[str, Any]:
    """Return the values of a task's ``calibration`` as a new dict, after checking them.

    Args:
        values: "temperature", "thresholds", or both.
        known: The names that the task knows.
        n_thresholds: Number of thresholds that the task needs.

    Raises:
        ArgumentError: A name is unknown.
        InputError: A value is invalid.
    """
    for name in values:
        if name not in known:
            raise ArgumentError(f"calibration has {name!r}, but the task knows {', '.join(known)}.")
    temperature = values.get("temperature", 1.0)
    if not 0 < temperature < math.inf:
        raise InputError(f"The temperature must be finite and above 0, not {temperature}.")
    thresholds = values.get("thresholds")
    if thresholds is not None:
        check_thresholds(thresholds, n_thresholds)
    return dict(values)


Rows = tuple[Tensor, Tensor, Tensor | None]
"""Outputs or probabilities ``(n, …)``, targets ``(n, …)``, and sample weights ``(n,)`` or None."""


def joined(rows: Iterable[Rows]) -> Rows:
    """Return the rows of all batches as one, on the CPU, without those of weight 0.

    If only some batches have weights, the rows of the other batches get the weight 1.
    """
    found = [tuple(None if part is None else part.detach().cpu() for part in each) for each in rows]
    values, targets = (
        torch.cat([cast("Tensor", each[at]) for each in found] or [torch.empty(0, 1)])
        for at in (0, 1)
    )
    if all(each[2] is None for each in found):
        return values, targets, None
    weights = torch.cat(
        [
            torch.ones(len(cast("Tensor", each[0]))).double()
            if each[2] is None
            else each[2].double()
            for each in found
        ]
    )
    counted = weights > 0
    return values[counted], targets[counted], weights[counted]


def gather(rows: Iterable[Rows]) -> Rows:
    """Return all logits, targets and weights on the CPU, as ``joined`` does.

    Raises:
        InputError: There are no rows, or a logit is not finite.
    """
    found = joined(rows)
    if not len(found[0]):
        raise InputError(
            "There are no calibration samples to fit on: the part is empty, or all its samples "
            "have the weight 0 or an ignored target."
        )
    if not bool(found[0].isfinite().all()):
        raise InputError("Some outputs of the model are not finite. Train the model again first.")
    return found


def fit_temperature(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Return the temperature T that minimises the log-loss of ``softmax(logits / T)``.

    Args:
        logits: ``(n, classes)``.
        targets: Class numbers, int64 ``(n,)``.
        weights: Sample weights above 0, ``(n,)``; None counts every sample once.

    Raises:
        InputError: The log-loss has no minimum, because every sample is classified correctly, or
            because the logits say no more about the targets than chance.

    Source:
        Guo et al., "On calibration of modern neural networks", 2017. The log-loss is convex in
        1/T; here Newton's method finds its minimum to rounding error, within a shrinking interval.
    """
    if bool((logits == logits[:, :1]).all()):
        raise InputError(
            f"The outputs are the same for all classes, on each of the {len(logits):,} calibration "
            "targets, so no temperature changes them. Train the model first."
        )
    chosen = torch.cat([z.gather(1, targets[at].unsqueeze(1)) for at, z in _centred(logits)])
    chosen = chosen.squeeze(1)
    if bool((chosen == 0).all()):
        raise InputError(
            f"The outputs are right for each of the {len(logits):,} calibration targets, so no "
            "temperature is best: the log-loss decreases towards temperature 0. Use more "
            "calibration samples."
        )
    weights = torch.ones(len(logits)).double() if weights is None else weights.double()
    slope, _ = _slopes(logits, chosen, weights, 0.0)
    if slope >= 0:
        raise InputError(
            "On the calibration samples the model's outputs are no better than equal probabilities "
            "for all classes, so no temperature is best. Train the model first, and check that its "
            "classes are in the order of the targets."
        )
    low, high, inverse = 0.0, math.inf, 1.0
    for _ in range(_ENOUGH_ITERATIONS):
        slope, curvature = _slopes(logits, chosen, weights, inverse)
        if slope < 0:
            low = inverse
        else:
            high = inverse
        step = slope / curvature if curvature > 0 else -math.inf
        proposed = inverse - step
        if not low < proposed < high:
            proposed = 2 * low if high == math.inf else (low + high) / 2
        if abs(proposed - inverse) <= 1e-14 * inverse or slope == 0:
            break
        inverse = proposed
    return 1 / inverse


def _slopes(logits: Tensor, chosen: Tensor, weights: Tensor, inverse: float) -> tuple[float, float]:
    """Return the first and second derivative of the mean log-loss by the inverse temperature."""
    slope = curvature = 0.0
    for rows, z in _centred(logits):
        weight = weights[rows]
        p = (z * inverse).softmax(dim=1)
        mean = (p * z).sum(dim=1)
        slope += float((weight * (mean - chosen[rows])).sum())
        curvature += float((weight * (p * (z - mean.unsqueeze(1)).square()).sum(dim=1)).sum())
    total = float(weights.sum())
    return slope / total, curvature / total


def _centred(logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Yield pieces of the logits in float64, minus the largest of each row.

    Subtracting a constant does not change the softmax of a row; large logits would lose digits.
    """
    for start in range(0, len(logits), _ROWS):
        rows = slice(start, start + _ROWS)
        z = logits[rows].double()
        yield rows, z - z.amax(dim=1, keepdim=True)


def fit_label_temperature(logits: Tensor, targets: Tensor, weights: Tensor | None = None) -> float:
    """Return the temperature T that minimises the log-loss of ``sigmoid(logits / T)``.

    All labels share this temperature.

    Args:
        logits: ``(n, labels)``.
        targets: 0 and 1, ``(n, labels)``.
        weights: Sample weights above 0, ``(n,)``; None counts every sample once.

    Raises:
        InputError: As for ``fit_temperature``.
    """
    flat = logits.flatten()
    # A sigmoid is the softmax of (0, logit).
    pairs = torch.stack([torch.zeros_like(flat), flat], dim=1)
    each = None if weights is None else weights.repeat_interleave(logits.shape[1])
    return fit_temperature(pairs, (targets > 0.5).long().flatten(), each)


def best_f1_thresholds(
    probabilities: Tensor,
    targets: Tensor,
    current: Sequence[float],
    weights: Tensor | None = None,
) -> list[float]:
    """Return the threshold of each label with the best F1 on these samples.

    Each threshold lies halfway between two predicted probabilities. If several thresholds have the
    best F1, the one nearest to the current threshold is returned. A label that applies to no sample
    keeps its current threshold.

    Args:
        probabilities: ``(n, labels)``.
        targets: 0 and 1, ``(n, labels)``.
        current: The threshold of each label now.
        weights: Sample weights above 0, ``(n,)``; None counts every sample once.
    """
    weights = torch.ones(len(targets)).double() if weights is None else weights.double()
    columns = zip(probabilities.double().T, (targets > 0.5).T, current, strict=True)
    return [_best_f1_threshold(p, y, weights, now) for p, y, now in columns]


def _best_f1_threshold(p: Tensor, y: Tensor, weights: Tensor, current: float) -> float:
    if not bool(y.any()):
        return current
    ordered, order = p.sort(descending=True)
    each = weights[order]
    correct = (y[order] * each).cumsum(0)
    f1 = 2 * correct / (each.cumsum(0) + correct[-1])
    below = torch.cat([ordered[1:], ordered.new_zeros(1)])
    f1[ordered == below] = -1  # samples of equal probability cannot be separated
    halfway = (ordered + below) / 2
    best = halfway[f1 >= f1.max() - 1e-12]
    found: float = to_rows(best[(best - current).abs().argmin()].reshape(1, 1))[0][0]
    # A threshold lies between 0 and 1, which halves of extreme probabilities may round to.
    return min(max(found, sys.float_info.min), 1 - sys.float_info.epsilon)
