"""``score_differences``: how much two sets of models differ on the same samples, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flambeau.errors import InputError
from flambeau.report.intervals import Interval
from flambeau.report.predictions import Predictions
from flambeau.report.scores import StandardScore, resampled_score, standard_scores

LOWER_IS_BETTER = ("loss", "mae", "rmse")
"""The standard scores of which smaller values are better."""


@dataclass(frozen=True)
class ScoreDifference:
    """The difference of one score.

    Attributes:
        name: Name of the score.
        first: The score of each of the first models.
        second: The score of each of the second models.
        interval: Mean of ``second`` minus mean of ``first``, with its interval; None if it cannot
            be resampled (a single sample, or a single group).
        higher_is_better: Whether a larger score is better.
    """

    name: str
    first: tuple[float, ...]
    second: tuple[float, ...]
    interval: Interval | None
    higher_is_better: bool


def score_differences(
    first: Sequence[Predictions],
    second: Sequence[Predictions],
    groups: Tensor | None = None,
    level: float = 0.95,
) -> list[ScoreDifference]:
    """Return the differences of the loss and the standard metrics, with paired intervals.

    All models are scored on the same resamples, as in ``paired_difference``. Of several models on a
    side, which differ in their seed, the scores of a resample are averaged. The interval says how
    much the difference depends on the samples, not how much it depends on the seeds.

    Args:
        first: Predictions of one or several models for the same samples, in the same order.
        second: Predictions of other models for them.
        groups: Group numbers of the samples ``(n,)``: whole groups are resampled.
        level: Confidence level, between 0 and 1.

    Raises:
        InputError: The samples, targets, weights or kinds of the predictions differ.
    """
    models = [*first, *second]
    fault = different_samples(models)
    if fault is not None:
        raise InputError(f"The predictions cannot be compared: {fault}.")
    weights, n_first = models[0].weights, len(first)
    found: list[ScoreDifference] = []
    for score in standard_scores(models):
        own_weights, own_groups = score.of_rows(weights), score.of_rows(groups)
        joint = _JointScore(score, n_first)
        values = joint.values(own_weights)
        interval = resampled_score(
            joint.difference, joint.columns, own_weights, own_groups, level=level
        )
        found.append(
            ScoreDifference(
                score.name,
                tuple(values[:n_first]),
                tuple(values[n_first:]),
                interval,
                score.name not in LOWER_IS_BETTER,
            )
        )
    return found


def different_samples(models: Sequence[Predictions]) -> str | None:
    """Return why predictions are not for the same samples with the same targets; None if they are.

    Args:
        models: Predictions of each model.
    """
    one = models[0]
    for other in models[1:]:
        if other.kind != one.kind:
            return f"one model predicts {one.kind}, another one {other.kind}"
        if not torch.equal(one.ids, other.ids):
            return "they are for other samples"
        if not _equal(one.targets, other.targets):
            return "the samples have other targets"
        if not _equal(one.weights, other.weights):
            return "the samples have other weights"
    return None


class _JointScore:
    """A score of several models as one statistic of all their columns.

    Args:
        score: The score of each model.
        n_first: Number of the first models.
    """

    def __init__(self, score: StandardScore, n_first: int) -> None:
        self.models, self.n_first = score.models, n_first
        self.columns = [column for model in score.models for column in model.columns]

    def values(self, weights: Tensor | None) -> list[float]:
        """Return the score of each model on all samples."""
        given = self.columns if weights is None else [*self.columns, weights]
        return [float(each) for each in self._each(*(column.unsqueeze(0) for column in given))]

    def difference(self, *columns: Tensor) -> Tensor:
        """Return the second models' mean minus the first models' mean, ``(resamples,)``."""
        each = torch.stack(self._each(*columns))
        return each[self.n_first :].mean(dim=0) - each[: self.n_first].mean(dim=0)

    def _each(self, *columns: Tensor) -> list[Tensor]:
        weights = columns[len(self.columns) :]
        found: list[Tensor] = []
        start = 0
        for model in self.models:
            end = start + len(model.columns)
            found.append(model.statistic(*columns[start:end], *weights).double())
            start = end
        return found


def _equal(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and torch.equal(one, other)
