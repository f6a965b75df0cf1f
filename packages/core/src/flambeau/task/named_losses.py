"""Losses by the names that a plan gives them, and what a task is built with to have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flambeau.errors import InputError

LABEL_SMOOTHING = 0.1
"""Share of a target's mass that "smoothed_cross_entropy" spreads over all classes: Szegedy et al.,
"Rethinking the Inception Architecture", 2015 (arXiv 1512.00567), section 7."""

LOSSES: Mapping[str, Mapping[str, str]] = {
    "classification": {
        "cross_entropy": "One of several classes: the log-likelihood of the label.",
        "balanced_cross_entropy": "As cross_entropy, each class counting the same in all.",
        "smoothed_cross_entropy": f"As cross_entropy, {LABEL_SMOOTHING:.0%} of a label's mass "
        "spread over all classes.",
    },
    "multi_label": {"binary_cross_entropy": "Labels that may hold together: one yes/no each."},
    "regression": {
        "mse": "Numbers: squared error, whose best answer is the mean.",
        "huber": "Squared up to 1, then linear: outliers pull less.",
        "mae": "Absolute error, whose best answer is the median.",
    },
}
"""By core's tasks: the losses each can be built with, the usual one first, and what they are."""


def loss_arguments(
    values: Mapping[str, Any], counts: Sequence[int] | Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Keyword arguments that give one of core's tasks the plan's loss.

    Args:
        values: The plan's; those without a "loss" leave the task its own.
        counts: Train rows of each class in the order of the outputs, for the balanced loss.

    Raises:
        InputError: The balanced loss, and nobody counted the classes.
    """
    task, loss = values.get("task"), values.get("loss")
    if loss is None or loss not in LOSSES.get(str(task), {}):
        return {}
    if task == "regression":
        return {"loss": loss}
    if loss == "smoothed_cross_entropy":
        return {"label_smoothing": LABEL_SMOOTHING}
    if loss == "balanced_cross_entropy":
        numbers = list(counts.values()) if isinstance(counts, Mapping) else list(counts or ())
        if not numbers:
            raise InputError(
                "loss='balanced_cross_entropy' needs to know how many train rows each class has, "
                "but these data are read while training. Give Classification(class_weights=…) as "
                "the task."
            )
        return {"class_weights": balanced_weights(numbers)}
    return {}


def balanced_weights(counts: Sequence[int]) -> list[float]:
    """A factor a class, so that every class has the same part in the loss of all train rows.

    Theirs is ``rows / (classes · count)``, as scikit-learn's ``class_weight="balanced"``; 1 for a
    class without rows.

    >>> balanced_weights([30, 10])
    [0.6666666666666666, 2.0]
    """
    rows, present = sum(counts), sum(count > 0 for count in counts)
    return [rows / (present * count) if count else 1.0 for count in counts]
