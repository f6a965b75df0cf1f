"""``EnsembleTask`` and ``ModelEnsemble``: several trained models that predict as one."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.data.joint_preprocessor import batch_of
from flambeau.errors import ArgumentError, InputError
from flambeau.task.averages import Averages, SeveralAverages, averages_of
from flambeau.task.fold_intervals import FoldIntervals, SeveralFoldIntervals
from flambeau.task.fold_scores import FoldScores
from flambeau.task.metrics import Metric, Mode
from flambeau.task.predicted_intervals import CONFORMAL
from flambeau.task.task import StepContext, Task
from flambeau.wording import name_some

if TYPE_CHECKING:
    from flambeau.task.batch_summary import Summary
    from flambeau.task.probability_calibration import Rows


class ModelEnsemble(nn.Module):
    """Several models in one module; an ``EnsembleTask`` calls each of them.

    Args:
        members: The models.
    """

    def __init__(self, members: Iterable[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)


class EnsembleTask(Task):
    """The mean prediction of several models, each with its own task and preprocessor.

    Class probabilities are averaged, and numbers in the units of their targets, first over the
    models of a fold and then over the folds. Outputs are the means of each fold,
    ``(batch, folds, …)``. Loss and metrics score the mean over the folds; the loss of numbers is in
    the units of the targets, which the members standardise differently.

    Args:
        tasks: The task of each model, by any name, in the order of the members of the model.
        folds: Number of the fold of each model, from 0.
        inputs: Number of the preprocessor of each model in the ``JointPreprocessor``, from 0.
        calibration: ``{"intervals": {name: scores of each fold}}``, for intervals or sets of
            classes; ``{"intervals": {target: {name: scores of each fold}}}`` for several targets.
            See `flambeau.task.fold_scores`.

    Raises:
        ArgumentError: There are no tasks, their predictions cannot be averaged or differ in their
            outputs, or the numbers do not fit them.
    """

    builder = "ensemble"

    def __init__(
        self,
        tasks: Mapping[str, Task],
        folds: Sequence[int],
        inputs: Sequence[int],
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        self.tasks = dict(tasks)
        self.folds, self.inputs = tuple(folds), tuple(inputs)
        self._averages: list[Averages] = [averages_of(task) for task in self.tasks.values()]
        self._check()
        first = next(iter(self.tasks.values()))
        self.of_mean: Task = self._averages[0].of_averages()
        """The task that decodes and scores the mean over the folds."""
        self.kind = first.kind
        self.loss_name = self.of_mean.loss_name
        self.ignore_index = first.ignore_index
        self.ignores_sample_weight = first.ignores_sample_weight
        self.task_inputs = first.task_inputs
        self.interval: float | None = None
        if calibration:
            self.calibration = dict(calibration)

    def _check(self) -> None:
        n = len(self.tasks)
        if not n or len(self.folds) != n or len(self.inputs) != n:
            raise ArgumentError(
                f"The ensemble has {n} tasks, {len(self.folds)} numbers of folds and "
                f"{len(self.inputs)} numbers of preprocessors. Give one of each for every model."
            )
        if sorted(set(self.folds)) != list(range(len(set(self.folds)))):
            raise ArgumentError(
                f"The folds are numbered {sorted(set(self.folds))}, but must be 0, 1, 2, …."
            )
        first, *others = self.tasks.values()
        for task in others:
            if type(task) is not type(first) or task.output_names != first.output_names:
                raise ArgumentError(
                    f"The models of an ensemble predict different outputs: {_shown(first)} and "
                    f"{_shown(task)}. Give all of them the same classes or names."
                )

    # Outputs

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Tensor:
        """Return the mean prediction of the models of each fold, ``(batch, folds, …)``."""
        if not isinstance(model, ModelEnsemble) or len(model.members) != len(self.tasks):
            raise InputError(
                f"EnsembleTask needs a ModelEnsemble of {len(self.tasks)} models, not a "
                f"{type(model).__name__}."
            )
        found: list[list[Tensor]] = [[] for _ in range(len(set(self.folds)))]
        members = zip(model.members, self.tasks.values(), self._averages, strict=True)
        for at, (member, task, averages) in enumerate(members):
            own = batch_of(batch, self.inputs[at])
            values = {**task.values, **context.values}
            outputs = task.predict(member, own, replace(context, stage="predict", values=values))
            found[self.folds[at]].append(averages.to_average(outputs))
        return torch.stack([torch.stack(each).mean(dim=0) for each in found], dim=1)

    def mean(self, outputs: Tensor) -> Any:
        """Return the mean over the folds as outputs of ``of_mean``."""
        return self._averages[0].from_average(outputs.mean(dim=1))

    def of_fold(self, averages: Tensor) -> Any:
        """Return the averages of one fold, ``(batch, …)``, as outputs of ``of_mean``."""
        return self._averages[0].from_average(averages)

    @property
    def n_outputs(self) -> int | None:
        return self.of_mean.n_outputs

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.of_mean.output_names

    @property
    def thresholds(self) -> tuple[float, ...]:
        return self.of_mean.thresholds

    # Loss, metrics and reports

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        return self.of_mean.loss(self.mean(outputs), batch)

    def metrics(self) -> Mapping[str, Metric]:
        return self.of_mean.metrics()

    def loss_metrics(self) -> Mapping[str, Metric]:
        return self.of_mean.loss_metrics()

    def score_modes(self) -> Mapping[str, Mode]:
        return self.of_mean.score_modes()

    def update(self, metrics: Mapping[str, Any], outputs: Any, batch: Batch) -> None:
        self.of_mean.update(metrics, self.mean(outputs), batch)

    def sample_losses(self, outputs: Any, batch: Batch) -> Tensor | None:
        return self.of_mean.sample_losses(self.mean(outputs), batch)

    def summarise(self, outputs: Any, batch: Batch) -> Summary:
        return self.of_mean.summarise(self.mean(outputs), batch)

    def probability_rows(self, outputs: Any, batch: Batch) -> Rows | None:
        return self.of_mean.probability_rows(self.mean(outputs), batch)

    # Predictions

    def decode(self, outputs: Tensor) -> list[Any]:
        found = self.of_mean.decode(self.mean(outputs))
        if self.interval is None:
            return found
        return self._intervals.add_to(found, outputs, self.interval)

    def decode_columns(self, outputs: Tensor) -> Mapping[str, Any]:
        """Return the fields of the predictions as columns."""
        from flambeau.data.prediction_columns import columns_of
        from flambeau.task.decoded_columns import decode_columns

        if self.interval is not None:
            return columns_of(self.decode(outputs))
        return decode_columns(self.of_mean, self.mean(outputs), len(outputs))

    def example_prediction(self) -> Any:
        if self.interval is None:
            return self.of_mean.example_prediction()
        zeros = torch.zeros(1, len(set(self.folds)), self.n_outputs or 1, dtype=torch.float64)
        return self.decode(zeros)[0]

    def for_prediction(self, options: Mapping[str, Any]) -> Self:
        level = options.get("interval")
        found = copy.copy(self)
        others = {name: value for name, value in options.items() if name != "interval"}
        found.of_mean = self.of_mean.for_prediction(others)
        if level is not None:
            from flambeau.task.conformal import check_level

            check_level(level)
            _ = self._intervals  # raises without scores
            found.interval = level
        return found

    @cached_property
    def _intervals(self) -> FoldIntervals | SeveralFoldIntervals:
        saved = cast("Mapping[str, Any]", self.calibration.get(CONFORMAL, {}))
        if not saved:
            raise InputError(
                f"This ensemble has no scores for intervals, because {type(self.of_mean).__name__} "
                "predicts none. Predict without an interval."
            )
        averages = self._averages[0]
        if isinstance(averages, SeveralAverages):
            of_targets = {target: _read(each) for target, each in saved.items()}
            return SeveralFoldIntervals(averages, of_targets)
        return FoldIntervals(self.of_mean, self.of_fold, _read(saved))

    def arguments(self) -> Mapping[str, Any]:
        return {
            "tasks": dict(self.tasks),
            "folds": list(self.folds),
            "inputs": list(self.inputs),
            **({"calibration": dict(self.calibration)} if self.calibration else {}),
        }


def _read(saved: Mapping[str, Any]) -> dict[str, FoldScores]:
    return {name: FoldScores.read(each) for name, each in saved.items()}


def _shown(task: Task) -> str:
    return f"{type(task).__name__} of {name_some(task.output_names, most=10)}"
