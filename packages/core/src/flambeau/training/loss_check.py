"""Check the result of a task's ``loss`` once, before the first step.

``loss`` must return a sum and its weight. If it returns a mean, or if ``host_weight`` returns a
different weight, each update would be too large or too small by a constant factor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from copy import copy
from dataclasses import is_dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.nested import map_tensors, tensors_in
from flambeau.task.numerics import HALF_DTYPES
from flambeau.task.task import Task

_ROWS = 4  # samples whose losses are compared with the loss of all of them
_TOLERANCE = 1e-3  # of losses and weights; half precision outputs are exact to 1e-2

_Compute = Callable[[Any, Batch], tuple[Tensor, float | Tensor]]


def _sum_and_weight(
    task: Task, result: object, method: str = "loss"
) -> tuple[Tensor, float | Tensor]:
    """Return the loss sum and the weight in the result of ``task.loss``.

    Raises:
        InputError: It is something other than a 0-d sum and its weight.
    """
    name = f"{type(task).__name__}.{method}"
    if isinstance(result, Tensor):
        kind = "one number" if result.ndim == 0 else f"a tensor {tuple(result.shape)}"
        raise InputError(
            f"{name} returned {kind} instead of two: the sum of the losses and its weight. "
            'For a mean over n samples, return the sum (reduction="sum") and float(n).'
        )
    pair = cast("tuple[object, ...]", result) if isinstance(result, tuple) else ()
    described = _described(cast("object", result))
    if len(pair) != 2 or not isinstance(pair[0], Tensor) or pair[0].ndim:
        raise InputError(
            f"{name} returned {described}, but must return two values: the sum of the losses "
            "as a 0-d tensor, and its weight (samples or target tokens)."
        )
    total, weight = pair
    is_number = isinstance(weight, int | float)
    if not is_number and not (isinstance(weight, Tensor) and weight.numel() == 1):
        raise InputError(
            f"{name} returned {_described(weight)} as weight, but it must be one number or a "
            "0-d tensor. For weights per sample, return their sum."
        )
    return cast("Tensor", total), cast("float | Tensor", weight)


def check_loss(task: Task, outputs: Any, batch: Batch, result: object) -> None:
    """Check that the loss is a sum, and that ``host_weight`` returns its weight.

    Args:
        task: The task of the run.
        outputs: Outputs of the model for ``batch``.
        batch: A few samples of a train batch, or the whole batch.
        result: What ``task.loss(outputs, batch)`` returned.

    Raises:
        InputError: The loss is not a sum and its weight, ``host_weight`` returns another weight
            than ``loss``, or the loss does not depend on the sample weights.
    """
    if task.loss_factors:
        _check_losses(task, outputs, batch)
        return
    with torch.no_grad():
        total, weight = _sum_and_weight(task, result)
        returned = float(weight)
        if not 0 <= returned < math.inf:
            raise InputError(
                f"{type(task).__name__}.loss returned the weight {returned:g}, but it must be "
                "finite and at least 0: the loss is divided by it. Return the number of samples, "
                "of target tokens, or the sum of the sample weights."
            )
        promises = {"host_weight": task.host_weight(batch)}
        promises["target_weight"] = _number(task.target_weight(batch))
        _check_sum(f"{type(task).__name__}.loss", task.loss, outputs, batch, (total, returned))
        _check_sample_weights(task, outputs, batch)
    for method, promised in promises.items():
        if promised is not None and not math.isclose(promised, returned, rel_tol=_TOLERANCE):
            raise _wrong_weight(task, method, promised, "loss", returned, len(batch))


def _check_losses(task: Task, outputs: Any, batch: Batch) -> None:
    """Check a task with several losses: each task of a ``CombinedTask``, and the weights."""
    from flambeau.task.combined import CombinedTask
    from flambeau.task.several_losses import checked_losses

    if isinstance(task, CombinedTask):
        own = task.outputs_of(outputs)
        for name, each in task.tasks.items():
            part = task.batch_of(name, batch)
            check_loss(each, own[name], part, each.loss(own[name], part))
    with torch.no_grad():
        promised = task.loss_weights(batch)
        for name, result in checked_losses(task, outputs, batch).items():
            returned = float(_sum_and_weight(task, result, "losses")[1])
            known = _number(promised.get(name))
            if known is not None and not math.isclose(known, returned, rel_tol=_TOLERANCE):
                raise _wrong_weight(task, "loss_weights", known, "losses", returned, len(batch))
            if not isinstance(task, CombinedTask):
                method = f"{type(task).__name__}.losses[{name!r}]"
                _check_sum(method, _loss_of(task, name), outputs, batch, result)


def _loss_of(task: Task, name: str) -> _Compute:
    return lambda outputs, batch: task.losses(outputs, batch)[name]


def _number(weight: Tensor | float | None) -> float | None:
    return None if weight is None else float(weight)


def _wrong_weight(
    task: Task, method: str, promised: float, loss: str, returned: float, n: int
) -> InputError:
    name = type(task).__name__
    return InputError(
        f"{name}.{method} returns the weight {promised:g} for a batch of {n} samples, "
        f"but {name}.{loss} returns {returned:g}. The sum of the losses would be divided by the "
        f"wrong weight. Let {name}.{method} return the weight of the loss, or None if only "
        f"{name}.{loss} can compute it."
    )


def _check_sum(
    name: str, compute: _Compute, outputs: Any, batch: Batch, result: tuple[Tensor, float | Tensor]
) -> None:
    """Raise an error if a loss is the mean over the samples, or a sum with a constant weight.

    It is not checked if the outputs do not have one row per sample.

    Args:
        name: The method, for the message.
        compute: Returns the loss and its weight for outputs and batch.
        outputs: Outputs of the model: tensors in any structure.
        batch: The samples.
        result: ``compute(outputs, batch)``.
    """
    n = len(batch)
    columns = (*batch.targets.values(), *batch.masks.values())
    if n < 2 or any(value.ndim == 0 or len(value) != n for value in columns):
        return
    total, weight = map(float, result)
    sums: list[float] = []
    weights: list[float] = []
    try:
        for row in range(n):
            rows = slice(row, row + 1)
            found = compute(_rows_of(outputs, rows, n), batch.rows(rows))
            sums.append(float(found[0]))
            weights.append(float(found[1]))
    except Exception:  # noqa: BLE001 - a loss of several samples, or outputs of another structure
        return
    whole, added = math.fsum(weights), math.fsum(sums)
    if min(weights) <= 0:
        return
    is_sum = math.isclose(total, added, rel_tol=_TOLERANCE)
    if is_sum and added and all(each == weight for each in weights):
        raise InputError(
            f"{name} returned {total:.4g}, the sum over its {n} samples, with the weight "
            f"{weight:g}, and the same weight for each single sample. The sum would not be divided "
            f"by the number of samples, so steps would be {n} times as long for {n} times as many "
            "samples. Return the number of samples (or target tokens) as weight: float(len(batch))."
        )
    if not math.isclose(whole, weight, rel_tol=_TOLERANCE):
        return
    mean = math.fsum(s * w for s, w in zip(sums, weights, strict=True)) / whole
    is_half = any(value.dtype in HALF_DTYPES for value in tensors_in(outputs))
    is_mean = math.isclose(total, mean, rel_tol=1e-2 if is_half else _TOLERANCE)
    if is_mean and not math.isclose(total, added, rel_tol=0.1):
        raise InputError(
            f"{name} returned {total:.4g} with the weight {weight:g}, but {total:.4g} is the "
            f"mean over its {n} samples, and it would be divided by the weight once more. Return "
            f'the sum of the losses (reduction="sum"; here {mean * weight:.4g}) with that weight.'
        )


def _rows_of(value: Any, rows: slice, n: int) -> Any:
    """Return some rows of outputs with ``n`` rows: tensors in containers, or in attributes.

    Raises:
        ValueError: A tensor does not have one row per sample.
    """

    def part(tensor: Tensor) -> Tensor:
        if not tensor.ndim or len(tensor) != n:
            raise ValueError(f"a tensor of shape {tuple(tensor.shape)}")
        return tensor[rows]

    if isinstance(value, tuple | list | Tensor) or type(value) is dict or is_dataclass(value):
        return map_tensors(part, value)
    few = copy(value)
    if isinstance(value, MutableMapping):  # a class of its own, such as ModelOutput of transformers
        for key, each in cast("Mapping[Any, Any]", value).items():
            few[key] = map_tensors(part, each)
    else:
        for key, each in cast("dict[str, Any]", vars(value)).items():
            setattr(few, key, map_tensors(part, each))
    return few


def _check_sample_weights(task: Task, outputs: Any, batch: Batch) -> None:
    """Raise an error if the loss is the same for equal and for unequal sample weights."""
    given = batch.sample_weight
    if given is None or task.ignores_sample_weight:
        return
    totals: list[float] = []
    for weights in (torch.ones_like(given), torch.arange(len(given)).to(given) + 2):
        changed = replace(batch, sample_weight=weights, weight=float(weights.sum()))
        totals.append(float(task.loss(outputs, changed)[0]))
    if totals[0] and math.isclose(*totals, rel_tol=1e-6):
        name = type(task).__name__
        raise InputError(
            f"The data have sample weights, but {name}.loss does not use batch.sample_weight: each "
            "sample would count once. Multiply the loss of each sample by its weight, and return "
            "the sum of the weights as weight. To train without weights, omit sample_weight in the "
            f"data, or set the attribute {name}.ignores_sample_weight = True."
        )


def needs_check(task: Task) -> bool:
    """Return whether the loss is user-defined; the tests of core check core's losses."""
    kind = type(task)
    methods = (kind.loss, kind.losses, kind.host_weight, kind.target_weight, kind.loss_weights)
    if not all(method.__module__.startswith("flambeau.task.") for method in methods):
        return True
    parts: Mapping[str, Task] = getattr(task, "tasks", {}) if task.loss_factors else {}
    return any(map(needs_check, parts.values()))


def scores_by_loss(task: Task) -> bool:
    """Return whether an evaluation uses ``task.loss``, and so needs a sum and its weight."""
    kind = type(task)
    methods = (kind.evaluate, kind.update, kind.update_loss)
    return all(method.__module__.startswith("flambeau.") for method in methods)


def small_batch(task: Task, batch: Batch) -> Batch:
    """Return a few samples of a train batch, or all if ``host_weight`` has no weight for a few."""
    tensors = (*batch.inputs.values(), *batch.targets.values(), *batch.masks.values())
    if any(value.ndim == 0 or len(value) != len(batch) for value in tensors):
        return batch
    few = batch.first(_ROWS)
    if task.host_weight(batch) is not None and task.host_weight(few) is None:
        return batch
    return few


def _described(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, tuple):
        items = cast("tuple[object, ...]", value)
        return f"({', '.join(map(_described, items))})"
    return f"{value!r:.40}" if isinstance(value, int | float) else f"a {type(value).__name__}"
