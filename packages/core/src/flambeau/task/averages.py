"""Averages of the predictions of several models, on the scale on which a mean has a meaning.

Class probabilities are averaged, not logits, and numbers in the units of their targets, because
models that were trained on different rows standardise their targets differently.
"""

# The functions here are part of the tasks, whose files are long.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from flambeau.errors import ArgumentError
from flambeau.task.classification import Classification
from flambeau.task.combined import CombinedTask
from flambeau.task.log_link import LogLinkTask
from flambeau.task.multi_label import MultiLabel
from flambeau.task.numerics import as_real
from flambeau.task.quantiles import QuantileRegression
from flambeau.task.regression import Regression
from flambeau.task.task import Task

AnyTask = TypeVar("AnyTask", bound=Task)


@runtime_checkable
class Averages(Protocol):
    """A task of your own whose predictions can be averaged over several models."""

    def to_average(self, outputs: Any) -> Tensor:
        """Return outputs as numbers whose mean has a meaning, ``(batch, …)``."""
        ...

    def of_averages(self) -> Task:
        """Return the task that decodes and scores what ``from_average`` returns."""
        ...

    def from_average(self, averages: Tensor) -> Any:
        """Return averages as outputs of the task ``of_averages``."""
        ...


def averages_of(task: Task) -> Averages:
    """Return how the predictions of a task are averaged.

    Raises:
        ArgumentError: They cannot be averaged.
    """
    if isinstance(task, Averages):
        return task
    for kind, averages in _KINDS.items():
        if isinstance(task, kind):
            return averages(task)
    raise ArgumentError(
        f"The predictions of {type(task).__name__} cannot be averaged over models. Define "
        "to_average, of_averages and from_average in the task (flambeau.task.averages.Averages); "
        "or train one model with learner.fit()."
    )


class _Probabilities:
    """Probabilities of classes; their logarithms are logits of the same probabilities."""

    def __init__(self, task: Classification) -> None:
        self.task = task

    def to_average(self, outputs: Any) -> Tensor:
        return as_real(self.task.calibrated(outputs)).softmax(dim=1)

    def of_averages(self) -> Task:
        return _uncalibrated(self.task)

    def from_average(self, averages: Tensor) -> Tensor:
        return averages.clamp(min=torch.finfo(averages.dtype).tiny).log()


class _LabelProbabilities:
    """The probability of each label."""

    def __init__(self, task: MultiLabel) -> None:
        self.task = task

    def to_average(self, outputs: Any) -> Tensor:
        return as_real(self.task.calibrated(outputs)).sigmoid()

    def of_averages(self) -> Task:
        found = _uncalibrated(self.task)
        found.threshold = self.task.thresholds
        return found

    def from_average(self, averages: Tensor) -> Tensor:
        tiny = torch.finfo(averages.dtype).tiny
        return averages.clamp(min=tiny).log() - (1 - averages).clamp(min=tiny).log()


class _Numbers:
    """Numbers in the units of the targets."""

    def __init__(self, task: Regression) -> None:
        self.task = task

    def to_average(self, outputs: Any) -> Tensor:
        return self.task._in_target_units(outputs)

    def of_averages(self) -> Task:
        found = _uncalibrated(self.task)
        found.mean = found.std = found._scale = None
        found.target_log = None
        return found

    def from_average(self, averages: Tensor) -> Tensor:
        return averages


class _Quantiles(_Numbers):
    """The quantiles of each number in the units of the targets."""

    task: QuantileRegression

    def to_average(self, outputs: Any) -> Tensor:
        return self.task._in_units(outputs).flatten(start_dim=1)


class _ExpectedValues(_Numbers):
    """Expected values of a task that predicts their logarithm, the offset included."""

    task: LogLinkTask

    def of_averages(self) -> Task:
        found = _uncalibrated(self.task)
        found.center, found._centers = None, {}
        found.offset, found.task_inputs = None, ()
        return found

    def from_average(self, averages: Tensor) -> Tensor:
        return averages.clamp(min=torch.finfo(averages.dtype).tiny).log()


class SeveralAverages:
    """The averages of several targets, one after another: ``(batch, columns of all)``.

    Args:
        task: The task of all targets.

    Attributes:
        each: How the predictions of each target are averaged, by name.
    """

    def __init__(self, task: CombinedTask) -> None:
        self.task = task
        self.each: Mapping[str, Averages] = {
            name: averages_of(own) for name, own in task.tasks.items()
        }

    def to_average(self, outputs: Any) -> Tensor:
        own = self.task.outputs_of(outputs)
        columns = [each.to_average(own[name]).flatten(1) for name, each in self.each.items()]
        return torch.cat(columns, dim=1)

    def of_averages(self) -> CombinedTask:
        found = copy.copy(self.task)
        found.tasks = {name: each.of_averages() for name, each in self.each.items()}
        inputs = (name for own in found.tasks.values() for name in own.task_inputs)
        found.task_inputs = tuple(dict.fromkeys(inputs))
        return found

    def from_average(self, averages: Tensor) -> dict[str, Tensor]:
        own = self.columns_of(averages)
        return {name: each.from_average(own[name]) for name, each in self.each.items()}

    def columns_of(self, averages: Tensor) -> dict[str, Tensor]:
        """Return the averages of each target, along the last axis of those of all."""
        widths = [self.task.tasks[name].n_outputs or 1 for name in self.each]
        return dict(zip(self.each, torch.split(averages, widths, dim=-1), strict=True))


# The first that fits: subclasses come before their base classes.
_KINDS: Mapping[type[Any], Any] = {
    CombinedTask: SeveralAverages,
    QuantileRegression: _Quantiles,
    LogLinkTask: _ExpectedValues,
    Regression: _Numbers,
    Classification: _Probabilities,
    MultiLabel: _LabelProbabilities,
}


def _uncalibrated(task: AnyTask) -> AnyTask:
    """Return a copy of the task without calibration, which would not hold for averages."""
    found = copy.copy(task)
    found.calibration = {}
    return found
