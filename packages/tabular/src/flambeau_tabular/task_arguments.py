"""Arguments of the tasks for targets that are numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from flambeau.data.data import select_values
from flambeau.data.targets import Targets
from flambeau.errors import InputError, PlanError
from flambeau.task.named_losses import loss_arguments
from flambeau_tabular.options import LOG_LINK_TASKS
from flambeau_tabular.preprocess import OFFSET


def number_task_arguments(
    train: Targets, offsets: Tensor | None, values: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the arguments of the plan's task.

    Args:
        train: The targets of the train rows.
        offsets: Logarithms of their exposure; None without an exposure.
        values: The plan's values.

    Raises:
        InputError: A target has the same value in all train rows, or has no logarithm.
        PlanError: There is an exposure, but the task does not use it.
    """
    task = values.get("task", "regression")
    arguments = {"names": list(train.names), **select_values(values, "metrics")}
    arguments |= loss_arguments(values)
    numbers = train.values.double().reshape(-1, len(train.names))
    _check_constant(train.names, numbers)
    if task in LOG_LINK_TASKS:
        exposure = 1.0 if offsets is None else float(offsets.double().exp().mean())
        mean = numbers.mean(dim=0) / exposure
        offset = None if offsets is None else OFFSET
        # Targets out of range are refused by the task, which names their rows.
        return {
            **arguments,
            "offset": offset,
            **({"mean": mean.tolist()} if mean.min() > 0 else {}),
        }
    if offsets is not None:
        raise PlanError(
            f"The data have an exposure, but the task {task!r} does not use it. Choose a task for "
            "counts or amounts: TabularOptions(task='poisson'), on the command line --task "
            "poisson; or drop the column."
        )
    if task == "quantile_regression":
        from flambeau.task.quantiles import LEVELS

        arguments["quantiles"] = list(LEVELS)
    way = values.get("targets")
    if way == "as_is":
        return arguments
    if way in ("log", "log1p"):
        from flambeau.task.target_transform import to_log

        numbers, arguments = to_log(numbers, way), {**arguments, "log": way}
    mean, std = numbers.mean(dim=0), numbers.std(dim=0, correction=0)
    return {**arguments, "mean": mean.tolist(), "std": std.tolist()}


def _check_constant(names: tuple[str, ...], numbers: Tensor) -> None:
    for name, column in zip(names, torch.unbind(numbers, dim=1), strict=True):
        if not float(column.std(correction=0)) > 0:
            raise InputError(
                f"The target {name!r} is {float(column[0]):g} in all {len(column):,} train rows, "
                "so there is nothing to learn."
            )
