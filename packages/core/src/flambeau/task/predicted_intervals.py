"""``PredictsIntervals``: intervals and sets of classes with a stated coverage, for tasks."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor

from flambeau.errors import ArgumentError, InputError
from flambeau.task.task import Task

if TYPE_CHECKING:
    from flambeau.data.batch import Batch

CONFORMAL = "intervals"
"""Name of the interval scores in ``Task.calibration``."""

GROUP = "group"
"""Name in ``Batch.extras`` of the group of each calibration sample."""


class PredictsIntervals(Task):
    """Part of a task that can predict intervals after ``learner.calibrate(intervals=True)``.

    See `flambeau.task.conformal` for what the coverage means, and when it holds.

    Attributes:
        interval: The coverage of predicted intervals, such as 0.9; None predicts none.
    """

    interval: float | None = None

    def interval_scores(self, outputs: Any, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor]:
        """Return how far each target is from its prediction, by name, and the sample weights.

        Args:
            outputs: What ``predict`` returned, not calibrated.
            batch: The batch, with targets.

        Returns:
            Scores ``(rows,)`` by name, and weights ``(rows,)``. Rows without a target have the
            weight 0.
        """
        raise NotImplementedError

    def with_interval(self, level: float) -> Self:
        """Return the task with predictions that contain an interval or a set of classes.

        Args:
            level: Coverage, between 0 and 1.

        Raises:
            ArgumentError: The level is not between 0 and 1.
            InputError: The intervals were not calibrated.
        """
        from flambeau.task.conformal import check_level

        check_level(level)
        if CONFORMAL not in self.calibration:
            raise InputError(
                "The intervals of this model are not calibrated. Keep samples for it when the data "
                "are built (calibration=0.2), call learner.calibrate(intervals=True) after "
                "training, and export again."
            )
        task = copy.copy(self)
        task.interval = level
        return task

    def for_prediction(self, options: Mapping[str, Any]) -> Task:
        level = options.get("interval")
        others = {name: value for name, value in options.items() if name != "interval"}
        task = super().for_prediction(others)
        if level is None or not isinstance(task, PredictsIntervals):
            return task
        return task.with_interval(level)

    def interval_quantiles(self) -> Mapping[str, float]:
        """Return the quantile of the scores at the level of ``with_interval``, by name."""
        from flambeau.task.conformal import ConformalScores

        level = self.interval or 0.0
        saved: Mapping[str, Any] = self.calibration[CONFORMAL]
        return {name: ConformalScores.read(each).quantile(level) for name, each in saved.items()}


def class_interval_scores(
    outputs: Tensor, batch: Batch, ignore_index: int | None
) -> tuple[Mapping[str, Tensor], Tensor]:
    """Return the scores of the right classes and the sample weights, of all rows of the batch.

    Args:
        outputs: Logits, without the temperature, which was fitted on the same samples.
        batch: The batch, with class numbers as its target.
        ignore_index: The class number of rows without a target, which get the weight 0.
    """
    from flambeau.task.conformal import class_scores
    from flambeau.task.numerics import as_real
    from flambeau.task.probability_metrics import class_rows

    logits, targets = class_rows(outputs, batch.target)
    known = torch.ones_like(targets, dtype=torch.bool)
    if ignore_index is not None:
        known = targets != ignore_index
    scores = class_scores(as_real(logits).softmax(dim=1), targets.where(known, 0))
    weights = batch.sample_weight
    if weights is None:
        return {"classes": scores}, known.to(scores.dtype)
    repeats = len(targets) // max(1, len(weights))
    return {"classes": scores}, weights.repeat_interleave(repeats) * known


def fit_intervals(task: Any, pairs: Iterable[tuple[Any, Batch]]) -> dict[str, Any]:
    """Return the scores of the calibration samples by name, as JSON values.

    Args:
        task: The task.
        pairs: Outputs and batch of each calibration batch. ``batch.extras["group"]`` has the group
            of each sample, if samples of one group depend on each other.

    Raises:
        ArgumentError: The task predicts no intervals.
    """
    from flambeau.task.conformal import ConformalScores

    if not isinstance(task, PredictsIntervals):
        raise ArgumentError(
            f"{type(task).__name__} predicts no intervals. Use Regression, QuantileRegression or "
            "Classification, or call learner.calibrate() without intervals."
        )
    scores: dict[str, list[Tensor]] = {}
    weights: list[Tensor] = []
    groups: list[Any] = []
    for outputs, batch in pairs:
        found, weight = task.interval_scores(outputs, batch)
        for name, each in found.items():
            scores.setdefault(name, []).append(each.double().cpu())
        weights.append(weight.double().cpu())
        groups.extend(batch.extras.get(GROUP, ()))
    weight = torch.cat(weights) if weights else torch.zeros(0)
    used = weight > 0
    if not bool(used.any()):
        raise InputError("There are no calibration samples, from which to compute intervals.")
    numbers = group_numbers(groups)[used] if groups else None
    return {
        name: dict(ConformalScores.of(torch.cat(each)[used], weight[used], numbers).arguments())
        for name, each in scores.items()
    }


def group_numbers(groups: Sequence[Any]) -> Tensor:
    """Return a number for the group of each row, int64 ``(rows,)``."""
    number_of = {group: number for number, group in enumerate(dict.fromkeys(groups))}
    return torch.tensor([number_of[group] for group in groups])


def checked_scores(values: Any) -> dict[str, Any]:
    """Return the interval scores of an export, after checking their form.

    Raises:
        InputError: They are not scores by name.
    """
    is_mapping = isinstance(values, Mapping)
    entries = cast("Mapping[str, Any]", values) if is_mapping else {"": ()}
    is_valid = all(
        isinstance(each, Mapping) and {"scores", "total"} <= set(cast("Mapping[str, Any]", each))
        for each in entries.values()
    )
    if not is_valid:
        raise InputError(
            "The interval scores of the calibration are damaged. Export the model again."
        )
    return {name: dict(each) for name, each in entries.items()}
