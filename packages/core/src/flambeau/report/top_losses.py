"""The loss of each sample, to find the samples with the highest loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.task.classification import Classification
from flambeau.task.multi_label import MultiLabel
from flambeau.task.numerics import HALF_DTYPES
from flambeau.task.regression import Regression
from flambeau.task.task import Task


@dataclass(frozen=True)
class TopLoss:
    """A sample with a high loss.

    Attributes:
        id: Index of the sample, as in ``data.split``.
        loss: Loss of this sample alone.
        target: The target as text; empty if the kind of task is unknown or the sample is ignored.
        predicted: The prediction as text.
        probability: Predicted probability of the target class, 0..1; None for other tasks.
    """

    id: int
    loss: float
    target: str = ""
    predicted: str = ""
    probability: float | None = None

    def __str__(self) -> str:
        given = "" if self.probability is None else f" (probability {self.probability:.1%})"
        names = f": target {self.target}{given}, predicted {self.predicted}" if self.target else ""
        return f"sample {self.id}, loss {self.loss:.4g}{names}"


def sample_losses(task: Task, outputs: Any, batch: Batch) -> Tensor | None:
    """Return the loss of each sample as if it were alone in the batch, ``(batch,)`` on the CPU.

    Samples are passed to ``task.loss`` one by one. For core's own losses all samples are computed
    at once, with the same result.

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
    losses = _vectorised(task, outputs, batch)
    return _one_by_one(task, outputs, batch.map(Tensor.cpu)) if losses is None else losses


def _vectorised(task: Task, outputs: Tensor, batch: Batch) -> Tensor | None:
    """Return all losses at once if the loss is core's own, else None, as for a subclass."""
    loss = type(task).loss
    if isinstance(task, Classification) and loss is Classification.loss:
        targets = batch.target.cpu()
        zero_weight = 0 in (task.class_weights or ())
        if outputs.ndim != 2 or targets.is_floating_point() or task.label_smoothing or zero_weight:
            return None
        ignored = -100 if task.ignore_index is None else task.ignore_index
        # For a single sample, the class weight cancels out.
        return F.cross_entropy(outputs, targets.long(), ignore_index=ignored, reduction="none")
    if isinstance(task, MultiLabel) and loss is MultiLabel.loss:
        targets = batch.target.cpu().to(outputs.dtype)
        each = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return each.mean(dim=1)
    if isinstance(task, Regression) and loss is Regression.loss:
        n = len(batch)
        targets = task.standardise(batch.target.cpu()).reshape(n, -1).to(outputs.dtype)
        each = task.loss_per_element(outputs.reshape(n, -1), targets)
        return each.mean(dim=1)
    return None


def _one_by_one(task: Task, outputs: Tensor, batch: Batch) -> Tensor:
    losses = torch.zeros(len(batch), dtype=torch.float64)
    for row in range(len(batch)):
        alone = replace(
            batch,
            inputs=_row(batch.inputs, row),
            targets=_row(batch.targets, row),
            masks=_row(batch.masks, row),
            indices=None if batch.indices is None else batch.indices[row : row + 1],
            weight=None,
        )
        total, weight = task.loss(outputs[row : row + 1], alone)
        # A sample with weight 0 (ignored) has loss 0.
        losses[row] = float(total) / float(weight) if float(weight) else 0.0
    return losses


def _row(columns: Mapping[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: value[row : row + 1] for name, value in columns.items()}
