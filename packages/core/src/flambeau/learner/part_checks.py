"""Check the samples of a part with the task, before the task uses them."""

from __future__ import annotations

from torch import Tensor

from flambeau.data.loader import Dataset
from flambeau.data.memory_loader import MemoryDataset
from flambeau.errors import InputError
from flambeau.task.metrics import check_takes_weights
from flambeau.task.task import Task


def check_part(task: Task, part: str, dataset: Dataset) -> None:
    """Check targets and task inputs of a part whose data are in memory.

    Raises:
        InputError: The task cannot use a target, lacks a task input, or does not read one.
    """
    if not isinstance(dataset, MemoryDataset):
        return
    name, found = type(task).__name__, dataset.task_inputs
    if unread := [each for each in found if each not in task.task_inputs]:
        raise InputError(
            f"The data have the task input {unread[0]!r}, but {name} does not read it, so it would "
            f"have no effect. Give the task its name (offset={unread[0]!r}), or leave it out of "
            "the data."
        )
    if missing := [each for each in task.task_inputs if each not in found]:
        raise InputError(
            f"{name} needs the task input {missing[0]!r}, but the data do not have it. Give it "
            f"with the data: task_inputs={{{missing[0]!r}: …}}."
        )
    task.check_targets(part, dataset)


def check_valid_weights(task: Task, dataset: Dataset) -> None:
    """Check the weights of the validation samples, if they have weights.

    Raises:
        InputError: All weights are 0, or a metric does not use weights.
    """
    weights: Tensor | None = getattr(dataset, "sample_weight", None)
    if weights is None or type(task).evaluate is not Task.evaluate:
        return
    if not weights.any() and not task.ignores_sample_weight:
        raise InputError(
            f"The sample_weight of all {len(weights):,} validation samples is 0, so no score can "
            "be computed. Use other rows for valid, or train without validation samples."
        )
    for name, metric in task.metrics().items():
        check_takes_weights(name, metric, task.known_metrics())
