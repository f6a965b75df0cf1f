"""What tasks over classes check, and what they say when it does not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from flambeau.errors import ArgumentError, InputError
from flambeau.task.metrics import MetricChoice

HALF = (torch.float16, torch.bfloat16)
"""Types whose 11 or 8 bits are too few for a sum of logarithms."""


def rows_of(values: Tensor) -> list[list[float]]:
    """``(batch, columns)`` as plain numbers; reads the device."""
    return values.tolist()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def metric_names(wanted: MetricChoice) -> list[str] | None:
    """What ``arguments()`` saves: names, or None for objects, which no JSON can hold."""
    return None if isinstance(wanted, Mapping) else list(wanted)


def class_names(classes: Sequence[str], task: str, *, least: int) -> tuple[str, ...]:
    """The checked names.

    Raises:
        ArgumentError: Not a sequence of texts.
        InputError: Too few, or one twice.
    """
    if isinstance(classes, str):
        raise ArgumentError(
            f"{task} got the text {classes!r} as its classes; give a list: [{classes!r}, ...]."
        )
    names = tuple(classes)
    for name in names:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] callers differ
            raise ArgumentError(
                f"{task} got the class {name!r}; class names are text: {str(name)!r}."
            )
    if len(names) < least:
        raise InputError(f"{task} needs at least {least} classes, and got {list(names)}.")
    if len(set(names)) < len(names):
        doubled = next(name for i, name in enumerate(names) if name in names[:i])
        raise InputError(f"{task} got {doubled!r} more than once among its classes.")
    return names


def no_logits(outputs: object, task: str, n: int) -> InputError:
    """For an answer that is no tensor with a column a class."""
    found = (
        f"shape {tuple(outputs.shape)}" if isinstance(outputs, Tensor) else type(outputs).__name__
    )
    return InputError(
        f"The model's answer is {found} but {task} expects logits (batch, {n}). "
        "Return one tensor with a column for each class from the model's forward."
    )


def wrong_width(outputs: Tensor, task: str, n: int) -> InputError:
    """For an answer with another number of columns than there are classes."""
    return InputError(
        f"The model's answer has shape {tuple(outputs.shape)}, {outputs.shape[1]} columns, but "
        f"{task} has {n} classes. Give the model's last layer {n} outputs."
    )


def check_answers(outputs: Tensor, classes: Sequence[str], task: str) -> None:
    """Refuses outputs that ``decode`` cannot read."""
    if outputs.ndim != 2:
        raise no_logits(outputs, task, len(classes))
    if outputs.shape[1] != len(classes):
        raise wrong_width(outputs, task, len(classes))
