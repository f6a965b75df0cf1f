"""The loss of each sample, to find those on which a model is most wrong."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.task.checks import HALF
from flambeau.task.classification import Classification
from flambeau.task.multi_label import MultiLabel
from flambeau.task.regression import Regression
from flambeau.task.task import Task


@dataclass(frozen=True)
class TopLoss:
    """A sample on which the model is very wrong.

    Attributes:
        id: The sample's number, as in ``data.split``.
        loss: Of this sample alone.
        truth: What it is, in words; empty where the task has no words for it.
        predicted: What the model says, in words.
        probability: That the model gives the truth, 0..1; None where there is no such.
    """

    id: int
    loss: float
    truth: str = ""
    predicted: str = ""
    probability: float | None = None

    def __str__(self) -> str:
        sure = "" if self.probability is None else f", probability {self.probability:.1%}"
        words = f": {self.truth}{sure}, taken for {self.predicted}" if self.truth else ""
        return f"sample {self.id}, loss {self.loss:.4g}{words}"


def sample_losses(task: Task, outputs: Any, batch: Batch) -> Tensor | None:
    """The loss of each sample as if it were alone in the batch, ``(batch,)`` on the CPU.

    It always is the task's own loss: samples are passed to ``task.loss`` one by one, unless the
    task is one of core's whose loss is its own, for which all are computed at once.

    Returns:
        None where the outputs do not have one row a sample, so that they cannot be told apart.
    """
    n = len(batch)
    if not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != n:
        return None
    parts = (batch.targets, batch.masks)
    if any(value.ndim == 0 or len(value) != n for part in parts for value in part.values()):
        return None
    # On the host: many small losses there are quicker than as many launches on a device.
    outputs = outputs.detach().cpu()
    if outputs.dtype in HALF:
        outputs = outputs.float()
    quick = _at_once(task, outputs, batch)
    return _one_by_one(task, outputs, batch.map(Tensor.cpu)) if quick is None else quick


def _at_once(task: Task, outputs: Tensor, batch: Batch) -> Tensor | None:
    """For the losses that core defines; a subclass with a loss of its own is none of them."""
    loss = type(task).loss
    if isinstance(task, Classification) and loss is Classification.loss:
        targets = batch.target.cpu()
        zero_weight = 0 in (task.class_weights or ())
        if outputs.ndim != 2 or targets.is_floating_point() or task.label_smoothing or zero_weight:
            return None
        ignored = -100 if task.ignore_index is None else task.ignore_index
        # Alone in a batch, the weight of a class divides by itself.
        return F.cross_entropy(outputs, targets.long(), ignore_index=ignored, reduction="none")
    if isinstance(task, MultiLabel) and loss is MultiLabel.loss:
        targets = batch.target.cpu().to(outputs.dtype)
        each = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return each.mean(dim=1)
    if isinstance(task, Regression) and loss is Regression.loss:
        n = len(batch)
        targets = task.learned(batch.target.cpu()).reshape(n, -1).to(outputs.dtype)
        distances = {"mse": F.mse_loss, "huber": F.huber_loss, "mae": F.l1_loss}
        each = distances[task.loss_kind](outputs.reshape(n, -1), targets, reduction="none")
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
        # A sample that does not count (all of it ignored) has no loss.
        losses[row] = float(total) / float(weight) if float(weight) else 0.0
    return losses


def _row(columns: Mapping[str, Tensor], row: int) -> dict[str, Tensor]:
    return {name: value[row : row + 1] for name, value in columns.items()}
