"""``FoldIntervals``: adds intervals or sets of classes to the mean predictions of folds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.task.averages import SeveralAverages
from flambeau.task.classification import Classification, Prediction, SetPrediction
from flambeau.task.combined import CombinedTask
from flambeau.task.conformal import in_order
from flambeau.task.fold_scores import FoldScores
from flambeau.task.numerics import to_rows
from flambeau.task.predicted_intervals import PredictsIntervals, group_numbers
from flambeau.task.regression import IntervalEstimate, Regression
from flambeau.task.task import Task


class FoldIntervals:
    """Intervals or sets of classes around the mean predictions of folds.

    Args:
        task: Decodes the mean over the folds: ``Classification``, ``Regression`` or derived.
        of_fold: Returns the averages of one fold as outputs of ``task``.
        scores: The scores of the rows of each fold, by name.
    """

    def __init__(
        self, task: Task, of_fold: Callable[[Tensor], Tensor], scores: Mapping[str, FoldScores]
    ) -> None:
        self.task = task
        self.of_fold = of_fold
        self.scores = scores

    def add_to(self, predictions: Sequence[Any], outputs: Tensor, level: float) -> list[Any]:
        """Return the predictions with an interval or a set of classes.

        Args:
            predictions: The decoded mean predictions.
            outputs: The averages of each fold, ``(batch, folds, …)``.
            level: Coverage, between 0 and 1.
        """
        if isinstance(self.task, Classification):
            members = self.scores["classes"].class_sets(outputs, level)
            sets = in_order(outputs.mean(dim=1), members)
            names = self.task.classes
            named = [tuple(names[at] for at in row) for row in sets]
            pairs = zip(cast("Sequence[Prediction]", predictions), named, strict=True)
            return [SetPrediction(**vars(each), classes=row) for each, row in pairs]
        names = list(self.scores)
        prefixes = [""] if len(names) == 1 else [f"{name}." for name in names]
        keys = [f"{prefix}{end}" for end in ("low", "high") for prefix in prefixes]
        rows = to_rows(torch.stack(self._ends(outputs, level), dim=1))
        return [
            IntervalEstimate(each.values, dict(zip(keys, row, strict=True)))
            for each, row in zip(predictions, rows, strict=True)
        ]

    def _ends(self, outputs: Tensor, level: float) -> list[Tensor]:
        """Return the lower ends of all names, then the upper ends, ``(batch,)`` each."""
        low, high = ends_of_folds(self.task, self.of_fold, outputs)
        found = [
            scores.ends(low[..., at], high[..., at], level)
            for at, scores in enumerate(self.scores.values())
        ]
        return [pair[end] for end in (0, 1) for pair in found]


class SeveralFoldIntervals:
    """Intervals or sets of classes around the mean predictions of several targets.

    Args:
        averages: The averages of all targets.
        scores: The scores of each target by its name; targets without scores get no intervals.
    """

    def __init__(
        self, averages: SeveralAverages, scores: Mapping[str, Mapping[str, FoldScores]]
    ) -> None:
        self.averages = averages
        tasks = averages.of_averages().tasks
        self.each = {
            name: FoldIntervals(tasks[name], averages.each[name].from_average, own)
            for name, own in scores.items()
        }

    def add_to(self, predictions: Sequence[Any], outputs: Tensor, level: float) -> list[Any]:
        """Return the predictions, mappings by target, with intervals or sets of classes.

        Args:
            predictions: As for ``FoldIntervals.add_to``.
            outputs: The averages of each fold, ``(batch, folds, columns of all targets)``.
            level: Coverage of each target by itself, between 0 and 1.
        """
        columns = self.averages.columns_of(outputs)
        found = [dict(each) for each in predictions]
        for name, intervals in self.each.items():
            own = intervals.add_to([each[name] for each in predictions], columns[name], level)
            for row, prediction in zip(found, own, strict=True):
                row[name] = prediction
        return found


def ends_of_folds(
    task: Task, of_fold: Callable[[Tensor], Tensor], outputs: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the ends that each fold predicts, ``(batch, folds, names)``, without scores.

    For models of one value both are the value; for models of quantiles the outermost of them.
    """
    if not isinstance(task, Regression):
        raise TypeError(f"{type(task).__name__} predicts no numbers")
    pairs = [task.interval_ends(of_fold(outputs[:, at])) for at in range(outputs.shape[1])]
    return torch.stack([low for low, _ in pairs], 1), torch.stack([high for _, high in pairs], 1)


def fit_several_fold_scores(
    task: CombinedTask, folds: Sequence[tuple[Any, Batch, Sequence[Any] | None]]
) -> dict[str, dict[str, FoldScores]]:
    """Return the scores of held-out rows by target and name.

    A target of which a fold has no held-out rows, or that has no intervals, is left out.

    Args:
        task: The task of the averages of all targets.
        folds: As for ``fit_fold_scores``.
    """
    found: dict[str, dict[str, FoldScores]] = {}
    for name, own in task.tasks.items():
        parts = [
            (outputs[name], task.batch_of(name, batch), groups) for outputs, batch, groups in folds
        ]
        if scores := fit_fold_scores(own, parts):
            found[name] = scores
    return found


def fit_fold_scores(
    task: Task, folds: Iterable[tuple[Any, Batch, Sequence[Any] | None]]
) -> dict[str, FoldScores]:
    """Return the scores of held-out rows by name; empty if the task predicts no intervals.

    Args:
        task: The task of the averages, see `flambeau.task.averages`.
        folds: For each fold: outputs of ``task`` for its held-out rows, a batch with their targets
            and weights, and the group of each row or None.
    """
    if not isinstance(task, PredictsIntervals):
        return {}
    scores: dict[str, list[Tensor]] = {}
    weights: list[Tensor] = []
    groups: list[Tensor | None] = []
    for outputs, batch, groups_of_rows in folds:
        if outputs.ndim != 2:  # a map, or a value for each token
            return {}
        found, weight = task.interval_scores(outputs, batch)
        used = weight > 0
        if not bool(used.any()):
            return {}
        for name, each in found.items():
            scores.setdefault(name, []).append(each.double().cpu()[used])
        weights.append(weight.double().cpu()[used])
        groups.append(None if groups_of_rows is None else group_numbers(groups_of_rows)[used])
    return {name: FoldScores.of(each, weights, groups) for name, each in scores.items()}
