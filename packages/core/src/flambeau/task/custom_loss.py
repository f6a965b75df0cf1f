"""``CustomLoss``: a task from a function that returns the loss of each sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError
from flambeau.task.model_call import of_ensemble
from flambeau.task.numerics import per_sample
from flambeau.task.sample_weights import weight_of
from flambeau.task.task import Task
from flambeau.wording import class_name

SampleLosses = Callable[[Any, Batch], Tensor | Mapping[str, Tensor]]
"""``function(outputs, batch)`` returns the loss of each sample, ``(batch,)``, or of each of its
elements, ``(batch, …)``; or a dictionary of several such losses by name, which are added."""


class CustomLoss(Task):
    """A task whose loss is the mean of the values that a function returns.

    Predictions are the rows of the outputs. An export cannot contain the function.

    Args:
        function: ``function(outputs, batch)`` returns the loss of each sample, ``(batch,)``, or of
            each of its elements, ``(batch, …)``; or several such losses by name: their sum is the
            loss, and the mean of each is logged. Sample weights are applied to the result.

    Raises:
        ArgumentError: ``function`` is not a function.
    """

    def __init__(self, function: SampleLosses) -> None:
        if not callable(function) or isinstance(function, type):
            raise ArgumentError(
                f"CustomLoss got {function!r:.60}; pass a function loss(outputs, batch) that "
                "returns one loss for each sample."
            )
        self.function = function
        self.loss_name = getattr(function, "__name__", class_name(function))

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        """Return the sum and the number of the function's losses, both weighted by sample.

        Raises:
            InputError: The function does not return a tensor with one row for each sample, or its
                terms differ in shape.
        """
        if of_ensemble(outputs):
            return outputs.mean_loss(partial(CustomLoss.loss, self), batch)
        made = cast("object", self.function(outputs, batch))
        if not isinstance(made, Mapping):
            return _sum_and_weight(self._checked(made, batch), batch)
        terms = {
            str(name): self._checked(losses, batch)
            for name, losses in cast("Mapping[object, object]", made).items()
        }
        if len({losses.shape for losses in terms.values()}) != 1:
            shapes = ", ".join(f"{name} {tuple(each.shape)}" for name, each in terms.items())
            raise InputError(
                f"The terms of the loss {self.loss_name} differ in shape ({shapes}), so they have "
                "no sum for each sample. Return terms of one shape: (batch,)."
            )
        self.log(batch, **{name: _mean(losses.detach(), batch) for name, losses in terms.items()})
        return _sum_and_weight(torch.stack(list(terms.values())).sum(0), batch)

    def _checked(self, losses: object, batch: Batch) -> Tensor:
        if isinstance(losses, Tensor) and losses.ndim and len(losses) == len(batch):
            return losses
        found = f"a {type(losses).__name__}"
        if isinstance(losses, Tensor):
            found = f"shape {tuple(losses.shape)}" if losses.ndim else "one number"
        raise InputError(
            f"The loss {self.loss_name} returned {found} for {len(batch)} samples. Return one loss "
            "for each sample, or for each of its elements (of torch's losses: "
            'reduction="none"). For a loss that is no mean over samples, define a Task with '
            "loss(outputs, batch), which returns a sum and its weight."
        )

    def decode(self, outputs: Tensor) -> list[Any]:
        """Return the output of each sample, a tensor on the CPU.

        Raises:
            InputError: The model returns something other than one tensor.
        """
        if not isinstance(cast("object", outputs), Tensor):
            raise InputError(
                f"The model returned a {type(outputs).__name__}, which the task of "
                f"{self.loss_name} cannot decode. Define a Task with decode(outputs), which "
                "returns one prediction for each sample."
            )
        return list(outputs.detach().cpu())


def _sum_and_weight(losses: Tensor, batch: Batch) -> tuple[Tensor, Tensor | float]:
    if batch.sample_weight is None:
        return losses.sum(), float(losses.numel())
    weights = per_sample(batch.sample_weight, losses)
    return (losses * weights).sum(), weight_of(losses.numel(), weights, losses)


def _mean(losses: Tensor, batch: Batch) -> Tensor:
    total, weight = _sum_and_weight(losses, batch)
    if isinstance(weight, Tensor):  # a batch of weight 0 has the sum 0
        weight = weight.clamp(min=torch.finfo(weight.dtype).tiny)
    return total / weight
