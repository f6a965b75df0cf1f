"""Find the parameters of a task, such as the class centres of ArcFace or weights of losses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import cast

import torch
from torch import nn

from flambeau.task.task import Task


class ModelAndTask(nn.Module):
    """A model together with the modules and parameters of its task.

    Args:
        model: The model that is trained.
        task: The module of the task.
    """

    def __init__(self, model: nn.Module, task: nn.Module) -> None:
        super().__init__()
        self.model, self.task = model, task


def task_module(task: Task) -> nn.Module | None:
    """Return a module with the parameters of a task and of its loss; None without any.

    These are the task itself, if it is an ``nn.Module``, or else the modules and parameters among
    its attributes, in lists and in dictionaries. A module in eval mode is not trained with the
    model and is left out.
    """
    if isinstance(task, nn.Module):
        return task if next(task.parameters(), None) is not None else None
    found = nn.Module()
    for name, value in task_parts(task):
        if isinstance(value, nn.Parameter):
            found.register_parameter(name, value)
        elif value.training and next(value.parameters(), None) is not None:
            found.add_module(name, value)
    return found if next(found.parameters(), None) is not None else None


def task_parts(task: Task) -> Iterator[tuple[str, nn.Module | nn.Parameter]]:
    """Yield the modules and parameters among the attributes of a task, each once."""
    seen: set[int] = set()
    for name, value in vars(task).items():
        for key, part in _entries(name, value):
            # The tasks of a combined task have parts of their own.
            is_task = isinstance(part, Task) and not isinstance(part, nn.Module)
            found = task_parts(part) if isinstance(part, Task) and is_task else [("", part)]
            for inner, each in found:
                if isinstance(each, nn.Module | nn.Parameter) and id(each) not in seen:
                    seen.add(id(each))
                    yield f"{key}_{inner}".rstrip("_").replace(".", "_"), each


def trained_module(model: nn.Module, task: Task) -> nn.Module:
    """Return the model, together with the parameters of the task if it has any."""
    found = task_module(task)
    return model if found is None else ModelAndTask(model, found)


def move_task(task: Task, device: torch.device) -> None:
    """Move the modules and parameters of the task to the device."""
    if isinstance(task, nn.Module):
        task.to(device)
        return
    for _, part in task_parts(task):
        if isinstance(part, nn.Module):
            part.to(device)
        else:
            part.data = part.data.to(device)


def _entries(name: str, value: object) -> Iterator[tuple[str, object]]:
    yield name, value
    if isinstance(value, list | tuple):
        for index, entry in enumerate(cast("list[object]", value)):
            yield f"{name}_{index}", entry
    elif isinstance(value, Mapping):
        for key, entry in cast("Mapping[object, object]", value).items():
            yield f"{name}_{key}", entry
