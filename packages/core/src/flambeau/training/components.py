"""``Components``: the objects that are built from a plan and that a run uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader
from flambeau.data.transform import Transform
from flambeau.task.task import Task


@dataclass(frozen=True)
class Components:
    """The objects built from a plan.

    Attributes:
        model: The model, on ``device``.
        task: Loss, metrics, decoding.
        train: Shuffled batches.
        valid: Batches in the order of the samples, or None without a validation set.
        augment: Random transforms of training batches on the device, applied before ``on_device``.
        on_device: The part of the preprocessing that runs on the device (normalisation), for
            training, evaluation and prediction.
        device: The device of the model.
        seed: Seed of every random draw outside the model.
        values: The values of the plan by key.
    """

    model: nn.Module
    task: Task
    train: Loader
    valid: Loader | None
    augment: tuple[Transform, ...]
    on_device: Callable[[Batch], Batch]
    device: torch.device
    seed: int
    values: Mapping[str, Any]
