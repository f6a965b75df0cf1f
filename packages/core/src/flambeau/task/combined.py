"""``CombinedTask``: several targets at once, each with a task of its own."""

from __future__ import annotations

import copy
import math
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError
from flambeau.task.class_validation import explaining_labels
from flambeau.task.log_link import LogLinkTask
from flambeau.task.metrics import Metric, Mode
from flambeau.task.model_call import call_model, of_ensemble
from flambeau.task.predicted_intervals import CONFORMAL, PredictsIntervals, fit_intervals
from flambeau.task.task import StepContext, Task

if TYPE_CHECKING:
    from flambeau.data.memory_loader import MemoryDataset


class CombinedTask(Task):
    """A task for each of several targets, which are predicted by one model.

    A batch has one target for each task, under the name of the task. The model returns a mapping
    from these names to outputs; or one tensor ``(batch, values)``, whose columns are those of the
    tasks in their order (``n_outputs`` of each).

    The loss is ``Σ factor · loss``, where the loss of each target is a mean over the samples of the
    step that have this target. Therefore a step does not depend on how the samples are grouped into
    micro-batches and processes, also if each target is missing in other samples. Missing targets
    are those that the task ignores: ``Classification(names, ignore_index=-100)``,
    ``Regression(ignore_nan=True)``. The history has a column of the loss of each target,
    "train_NAME_loss" and "valid_NAME_loss"; metrics have the name of the target as a prefix.

    Args:
        tasks: The task of each target by name.
        factors: Factor on the loss of each target, above 0; 1 for those that are not named.
        calibration: What ``calibrate`` returned: the calibration of each task by name.

    Raises:
        ArgumentError: A task is not a Task, changes the forward pass or the evaluation, or is
            combined itself; or a factor has an unknown name.
        InputError: There are no tasks, a factor is not above 0, or two metrics have the same name.

    Example:
        >>> from flambeau.task import Classification, Regression
        >>> task = CombinedTask(
        ...     {"income": Classification(["low", "high"]), "hours": Regression(["hours"])},
        ...     factors={"hours": 0.5},
        ... )
        >>> task.n_outputs, list(task.metrics())
        (3, ['income_accuracy', 'hours_mae', 'hours_rmse', 'hours_r2'])
    """

    builder = "combined"
    kind = "combined"

    def __init__(
        self,
        tasks: Mapping[str, Task],
        factors: Mapping[str, float] | None = None,
        *,
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        self.tasks = {str(name): _checked_task(name, task) for name, task in tasks.items()}
        if not self.tasks:
            raise InputError('CombinedTask has no tasks. Give one for each target: {"age": …}.')
        inputs = (name for task in self.tasks.values() for name in task.task_inputs)
        self.task_inputs = tuple(dict.fromkeys(inputs))
        self.loss_factors = _checked_factors(factors or {}, self.tasks)
        self.loss_name = ", ".join(f"{name}: {task.loss_name}" for name, task in self.tasks.items())
        self.metrics()
        if calibration:
            self.calibration = calibration  # pyright: ignore[reportIncompatibleVariableOverride]

    def __copy__(self) -> Self:
        """Return a copy with copies of the tasks, so that each has its own calibration."""
        found = type(self).__new__(type(self))
        vars(found).update(vars(self))
        found.tasks = {name: copy.copy(task) for name, task in self.tasks.items()}
        return found

    # The calibration of the tasks, which the learner reads and sets as that of this task.

    @property
    def calibration(self) -> Mapping[str, Any]:
        """The calibration of each task that has one, by name."""
        found = {name: dict(task.calibration) for name, task in self.tasks.items()}
        return {name: values for name, values in found.items() if values}

    @calibration.setter
    def calibration(self, values: Mapping[str, Any]) -> None:
        if unknown := [name for name in values if name not in self.tasks]:
            raise ArgumentError(
                f"calibration has {unknown[0]!r}, but the tasks are {', '.join(self.tasks)}."
            )
        for name, task in self.tasks.items():
            task.calibration = dict(values.get(name, {}))

    @property
    def n_outputs(self) -> int | None:
        widths = [task.n_outputs for task in self.tasks.values()]
        return None if None in widths else sum(cast("list[int]", widths))

    @property
    def output_names(self) -> tuple[str, ...]:
        return tuple(
            f"{name}.{output}" for name, task in self.tasks.items() for output in task.output_names
        )

    def forward(self, model: nn.Module, batch: Batch, context: StepContext) -> Any:
        outputs = call_model(model, batch.inputs)
        if not self.task_inputs:
            return outputs
        return {
            name: task.with_offset(own, batch) if isinstance(task, LogLinkTask) else own
            for (name, own), task in zip(
                self.outputs_of(outputs).items(), self.tasks.values(), strict=True
            )
        }

    def check_targets(self, part: str, dataset: MemoryDataset) -> None:
        for name, task in self.tasks.items():
            if name in dataset.targets:
                own = {name: dataset.targets[name]}
                task.check_targets(part, dataset.with_columns(targets=own))

    # Outputs and targets of each task

    def outputs_of(self, outputs: Any) -> dict[str, Any]:
        """Return the outputs of each task by name.

        Raises:
            InputError: The outputs are neither a mapping with the names of the tasks nor a tensor
                with the columns of all tasks.
        """
        if isinstance(outputs, Mapping):
            named = cast("Mapping[str, Any]", outputs)
            if named.keys() != self.tasks.keys():
                raise InputError(
                    f"The model returned outputs for {', '.join(map(str, named)) or 'nothing'}, "
                    f"but the tasks are {', '.join(self.tasks)}. Return a mapping with these names."
                )
            return {name: named[name] for name in self.tasks}
        width = self.n_outputs
        if of_ensemble(outputs) and outputs.members.shape[2:] == (width,):
            widths = [cast("int", task.n_outputs) for task in self.tasks.values()]
            parts = torch.split(outputs.members, widths, dim=2)
            return {
                name: replace(outputs, members=part)
                for name, part in zip(self.tasks, parts, strict=True)
            }
        shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else None
        if width is None or shape is None or len(shape) != 2 or shape[1] != width:
            columns = f" or one tensor (batch, {width})" if width is not None else ""
            found = type(outputs).__name__ if shape is None else f"tensor of shape {shape}"
            raise InputError(
                f"The model returned a {found}, but CombinedTask needs a mapping with the names "
                f"{', '.join(self.tasks)}{columns}: {self._widths()}."
            )
        widths = [cast("int", task.n_outputs) for task in self.tasks.values()]
        parts = torch.split(cast("Tensor", outputs), widths, dim=1)
        return dict(zip(self.tasks, parts, strict=True))

    def batch_of(self, name: str, batch: Batch) -> Batch:
        """Return the batch with only the target of one task.

        Raises:
            InputError: The batch has no target of this name.
        """
        if name not in batch.targets:
            raise InputError(
                f"The batch has no target {name!r}, only {', '.join(batch.targets) or 'none'}. "
                "Give the data one target for each task of CombinedTask, under its name."
            )
        return replace(batch, targets={name: batch.targets[name]})

    def _widths(self) -> str:
        return ", ".join(f"{name} {task.n_outputs}" for name, task in self.tasks.items())

    # Loss and metrics

    def losses(self, outputs: Any, batch: Batch) -> dict[str, tuple[Tensor, Tensor | float]]:
        found: dict[str, tuple[Tensor, Tensor | float]] = {}
        own = self.outputs_of(outputs)
        for name, task in self.tasks.items():
            part = self.batch_of(name, batch)
            with self._logging(name, task), explaining_labels(part, task.n_outputs):
                found[name] = task.loss(own[name], part)
        return found

    def loss_weights(self, batch: Batch) -> dict[str, Tensor | float | None]:
        found: dict[str, Tensor | float | None] = {}
        for name, task in self.tasks.items():
            part = self.batch_of(name, batch)
            with explaining_labels(part, task.n_outputs):
                found[name] = task.target_weight(part)
        return found

    @contextmanager
    def _logging(self, name: str, task: Task) -> Generator[None]:
        """Give the values that a task logs the name of its target as a prefix."""
        sink = self._sink
        if sink is None:
            yield
            return

        def prefixed(weight: Batch | float | Tensor, values: Mapping[str, Tensor | float]) -> None:
            if isinstance(weight, Batch):
                known = task.host_weight(weight)
                weight = float(len(weight)) if known is None else known
            sink(weight, {f"{name}_{key}": value for key, value in values.items()})

        vars(task)["_sink"] = prefixed  # not setattr: a task may be a frozen dataclass
        try:
            yield
        finally:
            vars(task)["_sink"] = None

    def metrics(self) -> dict[str, Metric]:
        """Return the metrics of the tasks; their names have that of the target as a prefix."""
        found: dict[str, Metric] = {}
        losses = {"loss", *(f"{name}_loss" for name in self.tasks)}
        for name, task in self.tasks.items():
            for key, metric in task.metrics().items():
                full = f"{name}_{key}"
                if full in found or full in losses:
                    raise InputError(
                        f"Two scores would have the name {full!r}. Rename the target {name!r} or "
                        f"its metric {key!r}."
                    )
                found[full] = metric
        return found

    def score_modes(self) -> dict[str, Mode]:
        modes: dict[str, Mode] = {"loss": "min"}
        for name, task in self.tasks.items():
            modes |= {f"{name}_{key}": mode for key, mode in task.score_modes().items()}
        return modes

    def update(self, metrics: Mapping[str, Any], outputs: Any, batch: Batch) -> None:
        others = self.update_loss(metrics, outputs, batch)
        own = self.outputs_of(outputs)
        for name, task in self.tasks.items():
            keys = {f"{name}_{key}": key for key in task.metrics()}
            chosen = {key: others[full] for full, key in keys.items() if full in others}
            if chosen:
                part = self.batch_of(name, batch)
                with explaining_labels(part, task.n_outputs):
                    task.update(chosen, own[name], part)

    def sample_losses(self, outputs: Any, batch: Batch) -> Tensor | None:
        """Return ``Σ factor · loss`` of each sample; None if samples may lack a target.

        A mean over samples would then differ from the loss.
        """
        own = self.outputs_of(outputs)
        total = torch.zeros(len(batch), dtype=torch.float64)
        for name, task in self.tasks.items():
            part = self.batch_of(name, batch)
            losses = task.sample_losses(own[name], part)
            if losses is None or task.host_weight(replace(part, sample_weight=None)) is None:
                return None
            total += self.loss_factors[name] * losses
        return total

    # Predictions

    def calibrate(self, pairs: Iterable[tuple[Any, Batch]]) -> dict[str, Any]:
        """Return what the tasks' ``calibrate`` return, by name; outputs are kept in memory."""
        kept = self.pairs_by_target(pairs)
        found = {name: dict(task.calibrate(kept[name])) for name, task in self.tasks.items()}
        return {name: values for name, values in found.items() if values}

    def pairs_by_target(
        self, pairs: Iterable[tuple[Any, Batch]]
    ) -> dict[str, list[tuple[Any, Batch]]]:
        """Return outputs and batches of each task by name, given those of all tasks."""
        found: dict[str, list[tuple[Any, Batch]]] = {name: [] for name in self.tasks}
        for outputs, batch in pairs:
            for name, own in self.outputs_of(outputs).items():
                found[name].append((own, self.batch_of(name, batch)))
        return found

    def for_prediction(self, options: Mapping[str, Any]) -> Self:
        """Return the task with these options for each of its tasks that has them.

        The coverage of intervals holds for each target by itself, not for all of them at once.
        """
        if not options:
            return self
        with_interval = [
            name for name, task in self.tasks.items() if isinstance(task, PredictsIntervals)
        ]
        others = {name: value for name, value in options.items() if name != "interval"}
        if not with_interval and "interval" in options:
            super().for_prediction(options)  # raises
        found = copy.copy(self)
        found.tasks = {
            name: task.for_prediction(options if name in with_interval else others)
            for name, task in found.tasks.items()
        }
        return found

    def decode(self, outputs: Any) -> list[dict[str, Any]]:
        """Return the prediction of each task by its name, for each sample."""
        own = self.outputs_of(outputs)
        columns: list[Sequence[Any]] = [task.decode(own[name]) for name, task in self.tasks.items()]
        return [dict(zip(self.tasks, row, strict=True)) for row in zip(*columns, strict=True)]

    def arguments(self) -> dict[str, Any]:
        fitted = {"calibration": dict(self.calibration)} if self.calibration else {}
        return {"tasks": dict(self.tasks), "factors": dict(self.loss_factors), **fitted}


def with_intervals(
    task: Task, values: Mapping[str, Any], pairs: Iterable[tuple[Any, Batch]]
) -> dict[str, Any]:
    """Return the values of a calibration with the scores that intervals need.

    Args:
        task: The task.
        values: What its ``calibrate`` returned.
        pairs: As for ``fit_intervals``.

    Raises:
        ArgumentError: The task predicts no intervals.
    """
    if not isinstance(task, CombinedTask):
        return {**values, CONFORMAL: fit_intervals(task, pairs)}
    found = {name: dict(own) for name, own in values.items()}
    for name, own_pairs in task.pairs_by_target(pairs).items():
        own = task.tasks[name]
        if isinstance(own, PredictsIntervals):
            try:
                scores = fit_intervals(own, own_pairs)
            except InputError as error:
                raise InputError(f"The target {name!r}: {error}") from error
            found.setdefault(name, {})[CONFORMAL] = scores
    return found


def _checked_task(name: object, task: object) -> Task:
    if not isinstance(task, Task):
        raise ArgumentError(
            f"The task of {name!r} is {task!r:.60}, but it must be a Task, such as "
            "Regression([…]) or Classification([…])."
        )
    kind = type(task)
    if task.loss_factors:
        raise ArgumentError(
            f"The task of {name!r} has several losses itself. Give its tasks to the one "
            "CombinedTask."
        )
    for method in ("forward", "predict", "evaluate"):
        known = [getattr(each, method) for each in (Task, LogLinkTask)]
        if getattr(kind, method) not in known:
            raise ArgumentError(
                f"The task of {name!r} ({kind.__name__}) overrides {method}, which CombinedTask "
                f"would not call: the model is called once for all targets. Override {method} in a "
                "subclass of CombinedTask."
            )
    return task


def _checked_factors(factors: Mapping[str, float], tasks: Mapping[str, Task]) -> dict[str, float]:
    if unknown := [name for name in factors if name not in tasks]:
        raise ArgumentError(f"factors has {unknown[0]!r}, but the tasks are {', '.join(tasks)}.")
    found = {name: float(factors.get(name, 1.0)) for name in tasks}
    for name, factor in found.items():
        if not 0 < factor < math.inf:
            raise InputError(
                f"The factor of {name!r} is {factor}, but must be finite and above 0. Leave a "
                "target out of the tasks if its loss should not count."
            )
    return found
