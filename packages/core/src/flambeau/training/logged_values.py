"""``LoggedValues``: the values given to ``task.log`` and ``step.log``, averaged over an epoch."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.distributed import processes
from flambeau.errors import ArgumentError
from flambeau.task.task import StepContext, Task
from flambeau.training.losses import StepLosses
from flambeau.training.state import StepResult

Sums = Mapping[str, tuple[float, float]]
"""Sum of value × weight, and sum of the weights, by name."""

_Key = tuple[str, torch.device]


class LoggedValues:
    """Weighted means of named values, collected on the device and read at the end of an epoch.

    Args:
        task: The task of the run; a value must not have the name of one of its scores.
        skip_nonfinite: Leave out values that are not finite, as the loss does with
            ``nonfinite="skip"``.
    """

    def __init__(self, task: Task, *, skip_nonfinite: bool = False) -> None:
        self._task, self._skip_nonfinite = task, skip_nonfinite
        self._means: dict[_Key, StepLosses] = {}

    def add(self, weight: Batch | float | Tensor, values: Mapping[str, Tensor | float]) -> None:
        """Add values of a batch; nothing is read from the device.

        Raises:
            ArgumentError: A value is not one real number, or its name is that of a score; or there
                is no value, or the weight is neither a batch nor a number.
        """
        if not values or not isinstance(cast(object, weight), Batch | Tensor | float | int):
            raise ArgumentError(
                f"log got a {type(weight).__name__} and {len(values)} values by name. Pass the "
                "batch or a number first, and the values by name: self.log(batch, kl=kl.mean()), "
                "step.log(critic=loss); a dict of values as **values."
            )
        if isinstance(weight, Batch):
            weight = self._weight_of(weight)
        for name, value in values.items():
            scalar = _scalar(name, value)
            key = (name, scalar.device)
            if key not in self._means:
                self._start(key)
            self._means[key].add(StepResult(scalar, weight))

    def read(self) -> Sums:
        """Return the sums of the epoch, read from the device, and start the next one."""
        sums: dict[str, tuple[float, float]] = {}
        for (name, _), means in self._means.items():
            added, weight = means.read_sums()
            before = sums.get(name, (0.0, 0.0))
            sums[name] = (before[0] + added, before[1] + weight)
        self._means.clear()
        return sums

    def state_dict(self) -> list[dict[str, Any]]:
        """Return the values of the unfinished epoch, for a checkpoint."""
        return [
            {"name": name, "device": str(device), **means.state_dict()}
            for (name, device), means in self._means.items()
        ]

    def load_state_dict(self, state: Iterable[Mapping[str, Any]]) -> None:
        """Load what ``state_dict`` returned."""
        self._means.clear()
        for each in state:
            key = (each["name"], torch.device(each["device"]))
            self._start(key)
            self._means[key].load_state_dict(each)

    def _start(self, key: _Key) -> None:
        name = key[0]
        # A step with several losses logs each of them; in an evaluation they are scores.
        losses = {f"{each}_loss" for each in self._task.loss_factors}
        if name in {"loss", *self._task.metrics(), *self._task.score_modes()} - losses:
            raise _name_is_used(name)
        self._means[key] = StepLosses(_ignore, skip_nonfinite=self._skip_nonfinite)

    def _weight_of(self, batch: Batch) -> float:
        known = self._task.host_weight(batch)
        if known is not None:
            return known
        return float(len(batch)) if batch.weight is None else batch.weight


@contextmanager
def collecting(task: Task, logged: LoggedValues) -> Generator[None]:
    """Collect the values given to ``task.log`` and ``step.log`` inside the block."""
    attributes = vars(task)  # not setattr: a task may be a frozen dataclass
    before = attributes.get("_sink")
    attributes["_sink"] = logged.add
    try:
        yield
    finally:
        if before is None:
            del attributes["_sink"]  # the class has the default
        else:
            attributes["_sink"] = before


def evaluate(
    task: Task, model: nn.Module, batches: Iterable[Batch], context: StepContext
) -> dict[str, float]:
    """Return the scores of ``task.evaluate`` and the means of the values logged meanwhile.

    Raises:
        ArgumentError: A logged value has the name of a score.
    """
    logged = LoggedValues(task)
    with collecting(task, logged):
        scores = task.evaluate(model, batches, context)
    group, sums = processes.current(), logged.read()
    found = group.all_gather(sums) if context.sharded and group is not None else [sums]
    values = means_of(found)
    for name in values:
        if name in scores:
            raise _name_is_used(name)
    return {**scores, **values}


def means_of(sums: Iterable[Sums]) -> dict[str, float]:
    """Return the means by name over the sums of all processes; NaN if every weight is 0."""
    total: dict[str, tuple[float, float]] = {}
    for each in sums:
        for name, (added, weight) in each.items():
            before = total.get(name, (0.0, 0.0))
            total[name] = (before[0] + added, before[1] + weight)
    return {name: added / weight if weight else math.nan for name, (added, weight) in total.items()}


def _scalar(name: str, value: object) -> Tensor:
    if isinstance(value, Tensor):
        if value.numel() == 1 and not value.is_complex():
            return value.detach().reshape(())
        what = f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}"
    elif isinstance(value, bool | int | float):
        return torch.tensor(float(value), dtype=torch.float64)
    else:
        what = f"a {type(value).__name__}"
    raise ArgumentError(
        f"log({name}=…) got {what}, but a value must be one real number: the mean over the batch "
        f"({name}.mean()), whose weight is the batch."
    )


def _name_is_used(name: str) -> ArgumentError:
    return ArgumentError(
        f"log({name}=…) would overwrite the history's column 'train_{name}' or 'valid_{name}': "
        f"{name!r} is the loss or a metric. Use another name: log(own_{name}=…)."
    )


def _ignore(losses: object) -> None:
    """Do nothing: the logged values of single steps are not kept."""
