"""Compute the loss of each sample of a batch as if it were the only sample."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.task.numerics import HALF_DTYPES

if TYPE_CHECKING:
    from flambeau.task.task import Task


def sample_losses(
    task: Task,
    outputs: Any,
    batch: Batch,
    at_once: Callable[[Tensor, Tensor], Tensor | None] | None = None,
) -> Tensor | None:
    """Return the loss of each sample as if it were alone in the batch, ``(batch,)`` on the CPU.

    Args:
        task: Its ``loss`` is called with the samples one by one.
        outputs: Outputs of the model.
        batch: The batch.
        at_once: A faster function that returns the same losses from all outputs and targets on the
            CPU, or None if it does not support them.

    Returns:
        None if the outputs do not have one row per sample.
    """
    n = len(batch)
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != n:
        return None
    parts = (batch.targets, batch.masks)
    if any(value.ndim == 0 or len(value) != n for part in parts for value in part.values()):
        return None
    # On the CPU, where many small losses are faster than many kernel launches on a device.
    outputs = outputs.detach().cpu()
    if outputs.dtype in HALF_DTYPES:
        outputs = outputs.float()
    losses = None if at_once is None else at_once(outputs, batch.target.cpu())
    return _one_by_one(task, outputs, batch.map(Tensor.cpu)) if losses is None else losses


def _one_by_one(task: Task, outputs: Tensor, batch: Batch) -> Tensor:
    losses = torch.zeros(len(batch), dtype=torch.float64)
    for row in range(len(batch)):
        # Without its sample weight: alone, a sample is the whole mean.
        alone = replace(batch.rows(slice(row, row + 1)), weight=None, sample_weight=None)
        total, weight = task.loss(outputs[row : row + 1], alone)
        # A sample with weight 0 (ignored) has loss 0.
        losses[row] = float(total) / float(weight) if float(weight) else 0.0
    return losses
