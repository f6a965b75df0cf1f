"""The option ``--threshold``: the probability from which a multi-label model predicts a label."""

from __future__ import annotations

from copy import copy
from typing import Annotated

import typer

from flambeau.errors import ArgumentError, InputError
from flambeau.task import MultiLabel
from flambeau.task.class_validation import check_thresholds
from flambeau.task.model_ensemble import EnsembleTask
from flambeau.task.task import Task

Threshold = Annotated[
    str | None,
    typer.Option(
        help="For a multi-label model: the probability from which a label is predicted, one for "
        "all labels (0.3) or one for each label (0.3,0.5)."
    ),
]
"""The option ``--threshold``."""


def with_threshold(task: Task, text: str | None) -> Task:
    """Return a copy of the task that predicts the labels with at least the given probability.

    This threshold replaces the threshold of training and those that ``calibrate`` fitted.

    Args:
        task: The task of the export.
        text: The option; None returns ``task`` itself.

    Raises:
        ArgumentError: The task has no thresholds, or the text is not one number between 0 and 1, or
            one for each label.
    """
    if text is None:
        return task
    if isinstance(task, EnsembleTask):
        changed = copy(task)
        changed.of_mean = with_threshold(task.of_mean, text)
        return changed
    if not isinstance(task, MultiLabel):
        raise ArgumentError(
            "--threshold is for models that predict several labels per input, but the task of this "
            f"model is {type(task).__name__}. Omit --threshold."
        )
    names = task.output_names
    try:
        given = [float(part) for part in text.split(",")]
        checked = check_thresholds(given * len(names) if len(given) == 1 else given, len(names))
    except InputError as error:
        raise ArgumentError(
            f"--threshold {text}: {error} The labels: {', '.join(names)}."
        ) from error
    except ValueError as error:
        raise ArgumentError(
            f"--threshold {text} is not a number, or one for each label: --threshold 0.3,0.5."
        ) from error
    changed = copy(task)
    changed.threshold = checked
    changed.calibration = {k: v for k, v in task.calibration.items() if k != "thresholds"}
    return changed
