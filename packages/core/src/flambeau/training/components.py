"""``Parts``: what a plan has been realised into; everything a run is built from."""

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
    """The realised plan.

    Attributes:
        model: On ``device``.
        task: Loss, metrics, decoding.
        train: Shuffled batches.
        valid: Batches in the order of the samples, or None where there is no valid set.
        augment: Random device transforms of training batches, before ``on_device``.
        on_device: The preprocessor's last part (normalisation), on every path.
        device: Where the model runs.
        seed: Key of every random draw outside the model.
        values: The plan's values by key.
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
