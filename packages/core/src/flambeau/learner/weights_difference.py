"""Compare the model of a learner with another one: its weights, and the outputs of its layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flambeau.artefact.model_tensors import check_tensors_fit, load_weights
from flambeau.artefact.saved_weights import read_saved_weights
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, ArtefactError
from flambeau.inspect.feature_similarity import LEAST_SAMPLES, feature_similarity
from flambeau.inspect.model_difference import ModelDifference, model_difference
from flambeau.learner.build import BuiltPlan, require_part
from flambeau.learner.single_steps import refuse_processes
from flambeau.task.task import StepContext
from flambeau.wording import count_of

_MOST_SAMPLES = 512


def difference(
    built: BuiltPlan, context: StepContext, other: object, part: str | None
) -> ModelDifference:
    """Return how the model of a learner differs from another one.

    Args:
        built: The objects of the learner.
        context: Context of the forward pass.
        other: As in ``Learner.difference``, but a learner is given as its model.
        part: Part of the data on which outputs are compared; None compares weights alone.

    Raises:
        ArgumentError: ``other`` has another type.
        ArtefactError: The files of ``other`` are missing or damaged.
        InputError: Outputs are to be compared while several processes train together.
    """
    if part is not None:
        refuse_processes("difference compares the outputs")
        require_part(built.data, part)
    first, name = _other(other)
    found = model_difference(first, built.model, names=(name, "this model"))
    if part is None:
        return found
    if not isinstance(first, nn.Module):
        try:
            first = _with_weights(built.model, first)
        except ArtefactError as error:
            note = f"The outputs are not compared: {error}"
            return replace(found, notes=(*found.notes, note))

    def forward(model: nn.Module, batch: Batch) -> Any:
        return built.task.forward(model, batch, context)

    batches = _some(built.batches(part))
    first = _on_device(first, built.model)
    similarities, n_samples = feature_similarity(first, built.model, batches, forward)
    if not n_samples:
        count = len(built.data.split.part(part))
        note = (
            f"The outputs are not compared: {part} has {count_of(count, 'sample')}, and at least "
            f"{LEAST_SAMPLES} are needed."
        )
        return replace(found, notes=(*found.notes, note))
    return replace(found, similarities=similarities, n_samples=n_samples)


def _on_device(model: nn.Module, like: nn.Module) -> nn.Module:
    """Return the model, or a copy of it on the device of another one."""
    device = next((each.device for each in like.parameters()), torch.device("cpu"))
    if all(each.device == device for each in model.parameters()):
        return model
    return deepcopy(model).to(device)


def _other(other: object) -> tuple[nn.Module | Mapping[str, Tensor], str]:
    if isinstance(other, nn.Module):
        return other, "the other model"
    if not isinstance(other, str | Path):
        raise ArgumentError(
            f"other is {other!r:.60}; give a learner, a module, or the path of an export, a "
            "checkpoint, a run or a file of save."
        )
    return read_saved_weights(other), str(other)


def _with_weights(model: nn.Module, tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return a copy of the model with other weights.

    Raises:
        ArtefactError: The weights do not fit the model.
    """
    check_tensors_fit(model, tensors, "The other model")
    copied = deepcopy(model)
    load_weights(copied, tensors, "The other model")
    return copied


def _some(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Yield batches until they have ``_MOST_SAMPLES`` samples."""
    n_samples = 0
    for batch in batches:
        yield batch
        n_samples += len(batch)
        if n_samples >= _MOST_SAMPLES:
            return
