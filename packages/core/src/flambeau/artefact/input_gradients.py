"""``input_gradients``: integrated gradients of one sample's inputs, for any model of floats.

Domains use it for their ``Domain.attributions``; ``input_attributions`` serves those without one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flambeau.artefact.predictor import Predictor
from flambeau.data.attributions import Attributions
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, did_you_mean
from flambeau.inspect.eval_gradients import eval_gradients
from flambeau.inspect.integrated_gradients import GAP, integrated_gradients
from flambeau.plotting import to_list
from flambeau.task.task import StepContext

_MOST_PARTS = 100_000


@dataclass(frozen=True)
class InputGradients:
    """Integrated gradients of one sample.

    Attributes:
        values: Value of each element of a floating-point input by name, ``(1, …)`` like the input.
        batch: The sample, ready for the model.
        output: Name of the output.
        total: The output minus that for inputs of zero.
        method: Name of the method, with the error of the sum if it is not small.
    """

    values: Mapping[str, Tensor]
    batch: Batch
    output: str
    total: float
    method: str


def input_gradients(predictor: Predictor, item: Any, output: str | None = None) -> InputGradients:
    """Return how much each element of the inputs of a sample moves an output of the model.

    The baseline is zero: for standardised inputs the mean over the train samples. Inputs that are
    integers stay as they are.

    Args:
        predictor: The predictor.
        item: A raw input, as ``predict`` takes it.
        output: Name of an output of the task; None is the highest one.

    Raises:
        ArgumentError: The model has no floating-point input, there is no such output, the
            outputs are not one row of numbers for each sample, or no gradient reaches the inputs.
    """
    encoded = predictor.preprocessor.encode([item]).to(predictor.device)
    batch = predictor.preprocessor.on_device(encoded)
    inputs = {name: value for name, value in batch.inputs.items() if value.is_floating_point()}
    if not inputs:
        raise ArgumentError(
            "The model has no input of real numbers, so no gradient says which part of it counts. "
            "The domain can say so with Domain(attributions=…)."
        )
    context = StepContext("predict", values=dict(predictor.task.values))
    sizes = [value[0].numel() for value in inputs.values()]

    def numbers(points: Tensor) -> Tensor:
        rows = len(points)
        parts = zip(inputs.items(), torch.split(points, sizes, 1), strict=True)
        changed = {
            name: part.reshape(rows, *value.shape[1:]).to(value.dtype)
            for (name, value), part in parts
        }
        repeated = batch.map(lambda value: value.expand(rows, *value.shape[1:]))
        repeated = replace(repeated, inputs={**repeated.inputs, **changed}, extras={}, indices=None)
        return _rows(predictor.task.forward(predictor.model, repeated, context), rows)

    point = torch.cat([value[0].flatten() for value in inputs.values()])
    with predictor.eval_mode(), eval_gradients(predictor.model):
        outputs = numbers(point[None])
        index = output_index(predictor, outputs, output)
        found = integrated_gradients(lambda points: numbers(points)[:, index], point)
    parts = zip(inputs.items(), torch.split(found.values, sizes), strict=True)
    method = "integrated gradients"
    if found.gap > GAP:
        method += f" (their sum is off by {found.gap:.0%})"
    return InputGradients(
        {name: part.reshape(value.shape) for (name, value), part in parts},
        batch,
        output_names(predictor, outputs)[index],
        found.total,
        method,
    )


def input_attributions(
    predictor: Predictor, item: Any, output: str | None, background: Sequence[Any]
) -> Attributions:
    """Return the attributions of the elements of the inputs; ``Domain.attributions`` for tensors.

    Args:
        predictor: The predictor.
        item: A raw input.
        output: Name of an output; None is the highest one.
        background: Not used.
    """
    found = input_gradients(predictor, item, output)
    if sum(value.numel() for value in found.values.values()) > _MOST_PARTS:
        raise ArgumentError(
            f"The sample has more than {_MOST_PARTS:,} elements, too many to name each. Use "
            "flambeau.inspect.integrated_gradients for their values."
        )
    names: list[str] = []
    values: list[float] = []
    for name, value in found.values.items():
        names += [f"{name}[{', '.join(map(str, at))}]" for at in np.ndindex(*value.shape[1:])]
        values += to_list(value.flatten())
    return Attributions(found.output, found.method, tuple(names), tuple(values), total=found.total)


def output_index(predictor: Predictor, outputs: Tensor, output: str | None) -> int:
    """Return the index of an output by name; None is the highest one of the first row.

    Raises:
        ArgumentError: There is no such output.
    """
    names = output_names(predictor, outputs)
    if output is None:
        return int(outputs[0].argmax())
    if output not in names:
        raise ArgumentError(f"The task has no output {output!r}. {did_you_mean(output, names)}")
    return names.index(output)


def output_names(predictor: Predictor, outputs: Tensor) -> list[str]:
    """Return the names of the columns of the outputs; numbers if the task has no names."""
    names = list(predictor.task.output_names)
    n = outputs.shape[1]
    return names if len(names) == n else [f"output {i}" for i in range(n)]


def _rows(outputs: Any, rows: int) -> Tensor:
    """Return the outputs as ``(rows, outputs)``.

    Raises:
        ArgumentError: They are not one row of numbers for each sample.
    """
    if isinstance(outputs, Tensor) and outputs.shape[:1] == (rows,) and outputs.ndim <= 2:
        return outputs.reshape(rows, -1)
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    raise ArgumentError(
        f"The outputs of the model are {shape} for {rows} samples; attributions need one row of "
        "numbers for each sample."
    )
