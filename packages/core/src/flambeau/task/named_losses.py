"""The losses that a plan can choose by name, and the task arguments that select them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from flambeau.errors import InputError
from flambeau.wording import class_name

Loss = Callable[[Tensor, Tensor], Tensor]
"""A loss function of outputs and targets that returns one loss per element, such as
``nn.HuberLoss(reduction="none")``."""

LABEL_SMOOTHING = 0.1
"""Label smoothing of "smoothed_cross_entropy", from Szegedy et al., "Rethinking the Inception
Architecture", 2015 (arXiv 1512.00567), section 7."""

LOSSES: Mapping[str, Mapping[str, str]] = {
    "classification": {
        "cross_entropy": "Negative log-likelihood of the label, one of several classes.",
        "balanced_cross_entropy": "Cross entropy weighted so that every class has the same total "
        "weight.",
        "smoothed_cross_entropy": f"Cross entropy with label smoothing {LABEL_SMOOTHING}.",
    },
    "multi_label": {"binary_cross_entropy": "Several labels per sample, one yes/no decision each."},
    "regression": {
        "mse": "Mean squared error; its minimum is the mean of the targets.",
        "huber": "Quadratic up to 1, then linear: less sensitive to outliers.",
        "mae": "Mean absolute error; its minimum is the median of the targets.",
    },
}
"""Task of core → name of a loss → description; the default loss is the first."""


def loss_arguments(values: Mapping[str, Any], counts: Sequence[float] = ()) -> dict[str, Any]:
    """Return the keyword arguments with which a task of core uses the plan's loss.

    Args:
        values: Values of the plan by key; without the key "loss" the task keeps its default loss.
        counts: Number of train rows per class in the order of the outputs, or the sums of their
            weights (``class_totals``), for the balanced loss.

    Raises:
        InputError: The balanced loss was chosen, but the classes were not counted.
    """
    task, loss = values.get("task"), values.get("loss")
    if loss is None or loss not in LOSSES.get(str(task), {}):
        return {}
    if task == "regression":
        return {"loss": loss}
    if loss == "smoothed_cross_entropy":
        return {"label_smoothing": LABEL_SMOOTHING}
    if loss == "balanced_cross_entropy":
        if not counts:
            raise InputError(
                "loss='balanced_cross_entropy' needs the number of train rows per class, but these "
                "data are only read during training. Pass Classification(class_weights=…) as the "
                "task."
            )
        return {"class_weights": balanced_weights(counts)}
    return {}


def balanced_weights(counts: Sequence[float]) -> list[float]:
    """Return one factor per class, so that all classes have the same total weight in the loss.

    The factor is ``rows / (classes · count)``, as in scikit-learn's ``class_weight="balanced"``; 1
    for a class without rows.

    >>> balanced_weights([30, 10])
    [0.6666666666666666, 2.0]
    """
    rows, present = sum(counts), sum(count > 0 for count in counts)
    return [rows / (present * count) if count else 1.0 for count in counts]


VALUE_LOSSES: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "mse": ("mean squared error", F.mse_loss),
    "huber": ("Huber loss", F.huber_loss),
    "mae": ("mean absolute error", F.l1_loss),
}


def reducible(loss: Loss) -> Callable[..., Tensor]:
    """Return a function like ``loss``, but with torch's argument ``reduction``."""

    def reduced(outputs: Tensor, targets: Tensor, *, reduction: str) -> Tensor:
        each = loss(outputs, targets)
        if each.shape != outputs.shape:
            raise InputError(
                f"The loss {class_name(loss)} returned shape {tuple(each.shape)} for outputs "
                f"{tuple(outputs.shape)}. Return one loss per element (of torch's losses: "
                'reduction="none"), so that the task can weight and sum them.'
            )
        return each.sum() if reduction == "sum" else each

    return reduced
