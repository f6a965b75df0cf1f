"""Checks of class names and logits for tasks over classes, with their error messages."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError

_SAMPLES = 5


def checked_class_names(classes: Sequence[str], task: str, *, minimum: int) -> tuple[str, ...]:
    """Return the class names as a tuple, after checking them.

    Args:
        classes: Names in the order of the class numbers.
        task: Name of the task in error messages.
        minimum: Smallest number of classes.

    Raises:
        ArgumentError: ``classes`` is not a sequence of strings.
        InputError: There are too few classes, or a name occurs twice.
    """
    if isinstance(classes, str):
        raise ArgumentError(
            f"classes must be a list of strings, not the string {classes!r}. Write "
            f"{task}([{classes!r}, ...])."
        )
    if not isinstance(classes, Iterable):  # pyright: ignore[reportUnnecessaryIsInstance] untyped callers
        raise ArgumentError(
            f"classes must be a list of strings, not {classes!r}. Write {task}(['no', 'yes'])."
        )
    if isinstance(classes, list | tuple):
        names = tuple(classes)
    else:
        from flambeau.data.ordered_names import in_order

        names = tuple(in_order(classes, "classes"))
    for name in names:
        if not isinstance(name, str):  # pyright: ignore[reportUnnecessaryIsInstance] untyped callers
            raise ArgumentError(
                f"Class names of {task} must be strings, not {name!r}. Write {str(name)!r}."
            )
    if len(names) < minimum:
        raise InputError(f"{task} needs at least {minimum} classes, not {list(names)}.")
    if len(set(names)) < len(names):
        repeated = next(name for i, name in enumerate(names) if name in names[:i])
        raise InputError(f"{task} got the class {repeated!r} more than once. Remove duplicates.")
    return names


def check_thresholds(thresholds: Sequence[float], n_labels: int) -> tuple[float, ...]:
    """Return the thresholds of the labels as a tuple, after checking them.

    Raises:
        InputError: There is not one threshold for each label, or one of them is not in 0..1.
    """
    found = tuple(float(value) for value in thresholds)
    if len(found) != n_labels:
        raise InputError(
            f"There are {len(found)} thresholds for {n_labels} labels. Give one for each label."
        )
    for value in found:
        if not 0 < value < 1:
            raise InputError(f"threshold must be a probability between 0 and 1, not {value}.")
    return found


def not_logits_error(outputs: object, task: str, n: int) -> InputError:
    """Return the error for outputs that are not a tensor with one column per class."""
    found = (
        f"has shape {tuple(outputs.shape)}"
        if isinstance(outputs, Tensor)
        else f"is of type {type(outputs).__name__}"
    )
    return InputError(
        f"The model's output {found}, but {task} expects logits (batch, {n}). Return one tensor "
        "with a column for each class from the model's forward."
    )


def several_outputs_error(outputs: object, task: str, method: str) -> InputError:
    """Return the error for a model with several outputs, of which the task must select one."""
    return InputError(
        f"The model's output is of type {type(outputs).__name__}, but metrics and predictions of "
        f"{task} need one tensor. Override {method} in the task and select it; for a model with "
        "several outputs update(metrics, outputs, batch) and decode(outputs) are both needed. See "
        "docs/training.md, The task."
    )


def wrong_width_error(outputs: Tensor, task: str, n: int) -> InputError:
    """Return the error for outputs whose number of columns is not the number of classes."""
    width = outputs.shape[1]
    one = (
        " For one logit with binary cross entropy give targets (rows, 1) of 0 and 1, and "
        "task='multi_label'."
    )
    return InputError(
        f"The model's output has shape {tuple(outputs.shape)}, {width} "
        f"column{'' if width == 1 else 's'}, but {task} has {n} classes. Give the model's last "
        f"layer {n} outputs.{one if (width, n) == (1, 2) else ''}"
    )


def check_logits(outputs: Tensor, classes: Sequence[str], task: str) -> None:
    """Raise an InputError unless ``outputs`` are logits ``(batch, classes)``."""
    if not isinstance(outputs, Tensor):  # pyright: ignore[reportUnnecessaryIsInstance] users err
        raise several_outputs_error(outputs, task, "decode(outputs)")
    if outputs.ndim != 2:
        raise not_logits_error(outputs, task, len(classes))
    if outputs.shape[1] != len(classes):
        raise wrong_width_error(outputs, task, len(classes))


@contextmanager
def explaining_labels(batch: Batch, n_classes: int | None) -> Generator[None]:
    """Turn torch's error for a label that is not a class number into an InputError.

    Without an error it costs nothing: the labels are read only after an error.
    """
    try:
        yield
    except IndexError as error:
        found = wrong_label_error(error, batch, n_classes)
        if found is None:
            raise
        raise found from error


def wrong_label_error(error: Exception, batch: Batch, n_classes: int | None) -> InputError | None:
    """Return the error for the labels of ``batch`` that are not class numbers; None without any."""
    if n_classes is None or not isinstance(error, IndexError) or "out of bounds" not in str(error):
        return None
    for name, target in batch.targets.items():
        wrong = (target < 0) | (target >= n_classes)
        if target.ndim == 1 and not target.is_floating_point() and bool(wrong.any()):
            return InputError(
                f"{name!r} contains {int(target[wrong][0])}, but there are {n_classes} classes, 0 "
                f"to {n_classes - 1}{_samples(batch, wrong)}. Correct the labels, or give the data "
                "all classes with class_names=[…] or n_classes=…."
            )
    return None


def _samples(batch: Batch, wrong: Tensor) -> str:
    if batch.indices is None:
        return ""
    numbers = batch.indices[wrong.cpu()][:_SAMPLES]
    return f" (sample {', '.join(str(int(number)) for number in numbers)})"


def checked_class_weights(weights: Sequence[float], n: int) -> tuple[float, ...]:
    """Return the weights of ``n`` classes.

    Raises:
        ArgumentError: ``weights`` is a string.
        InputError: There is not one weight for each class, or a weight is not finite or negative.
    """
    if isinstance(weights, str):
        raise ArgumentError(
            f"class_weights is {weights!r}, but must be one number for each class. Weights that "
            "balance the classes are a choice of the plan, which counts them: "
            'choices={"loss": "balanced_cross_entropy"}.'
        )
    values = tuple(float(value) for value in weights)
    if len(values) != n:
        raise InputError(
            f"There are {len(values)} class_weights for {n} classes. Give one for each class."
        )
    if not all(0 <= value < float("inf") for value in values) or not any(values):
        raise InputError(f"class_weights must be finite, ≥ 0 and not all 0, not {values}.")
    return values
