"""Checks of the model and the task that the user passes as objects."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from flambeau.errors import ArgumentError, InputError
from flambeau.task.task import Task

_EXPORTED = (
    "A program of torch.export has one mode, training or evaluation, so it cannot be trained. Pass "
    "the nn.Module that was exported."
)


def check_objects(model: object, task: object) -> None:
    """Check the types of the model and task that the user passed.

    Raises:
        ArgumentError: One of them has the wrong type, for example a class instead of an instance.
        InputError: A parameter or buffer has no shape yet or is on the meta device.
    """
    if not (model is None or isinstance(model, nn.Module | str)):
        hint = f"Pass an instance: {model.__name__}(…)." if isinstance(model, type) else ""
        if type(model).__name__ == "ExportedProgram":
            hint = _EXPORTED
        raise ArgumentError(
            f"model is {model!r:.60}, but it must be an nn.Module, the name of an architecture, or "
            f"None. {hint}".rstrip()
        )
    if not (task is None or isinstance(task, Task)):
        hint = f"Pass an instance: {task.__name__}(…)." if isinstance(task, type) else ""
        if isinstance(task, nn.Module):
            hint = "A loss is an argument of the task: task=Classification(names, loss=…)."
        if isinstance(task, str):
            hint = (
                f'Pass a name as a choice: choices={{"task": {task!r}}}, or as task= of the data.'
            )
        raise ArgumentError(f"task is {task!r:.60}, but it must be a Task. {hint}".rstrip())
    if isinstance(model, nn.Module):
        _check_modes(model)
        _check_memory(model)


def _check_modes(model: nn.Module) -> None:
    """Refuse a module that cannot be switched between training and evaluation (torch.export)."""
    if "train" not in vars(model):  # torch.export replaces the method of its modules
        return
    try:
        model.train(model.training)
    except NotImplementedError as error:
        raise ArgumentError(f"model is a {type(model).__name__}: {error} {_EXPORTED}") from error


def _check_memory(model: nn.Module) -> None:
    kind = type(model).__name__
    for name, value in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(value):
            raise InputError(
                f"{kind}'s {name!r} has no shape yet, so it cannot be trained. Call the model once "
                "on a batch before you pass it to the Learner: model(inputs[:2])."
            )
        if value.is_meta:
            raise InputError(
                f"{kind}'s {name!r} is on the meta device, so it has no values. Create the model "
                "on a real device, or allocate it (model.to_empty(device=…)) and initialise it."
            )
        if value.is_inference():
            raise InputError(
                f"{kind}'s {name!r} was created under torch.inference_mode(), so it cannot be "
                "trained. Create or load the model outside of it."
            )
