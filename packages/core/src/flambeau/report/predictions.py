"""``Predictions``: outputs, targets and losses of a model for every sample of a part."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.report.top_losses import sample_losses
from flambeau.task.classification import Classification
from flambeau.task.metrics import MeanLoss, Metric, score
from flambeau.task.multi_label import MultiLabel
from flambeau.task.numerics import HALF_DTYPES
from flambeau.task.regression import Regression
from flambeau.task.task import StepContext, Task

Kind = Literal["classification", "multi_label", "regression", "other"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The outputs of a model for the samples of a part; all tensors are on the CPU.

    Attributes:
        kind: Kind of the predictions; "other" if only scores can be computed from them.
        ids: Sample indices as in ``data.split``, int64 ``(n,)``.
        outputs: Logits ``(n, classes)``, or values ``(n, values)`` in the units of the targets,
            float32 or float64; None for "other".
        targets: Class indices ``(n,)``, -1 if ignored; 0 and 1 ``(n, labels)``; or values
            ``(n, values)``. None for "other".
        losses: Loss of each sample, ``(n,)``; None if the task has no loss per sample.
        weights: Sample weights, float64 ``(n,)``; None where all samples count equally.
        scores: Loss and metrics, equal to the result of ``evaluate``.
    """

    kind: Kind
    ids: Tensor
    outputs: Tensor | None
    targets: Tensor | None
    losses: Tensor | None
    scores: dict[str, float]
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)


def collect_predictions(
    model: nn.Module, task: Task, batches: Callable[[], Iterable[Batch]], context: StepContext
) -> Predictions:
    """Run the model on every sample and return its predictions.

    Args:
        model: A model in eval mode.
        task: Defines loss and metrics. If it overrides ``evaluate``, its scores are computed in a
            second pass.
        batches: Starts a pass over the batches, on the model's device.
        context: Context of the forward pass.

    Raises:
        InputError: There are no samples.
    """
    kind = _kind_of(task)
    recorder = _Recorder()
    has_evaluate = type(task).evaluate is not Task.evaluate
    metrics: dict[str, Any] = {} if has_evaluate else {"loss": MeanLoss(), **task.metrics()}
    ids: list[Tensor] = []
    losses: list[Tensor | None] = []
    weights: list[Tensor] = []
    count = 0
    with torch.no_grad():
        for batch in batches():
            outputs = task.forward(model, batch, context)
            if kind != "other" and not _has_row_per_sample(outputs, batch):
                kind = "other"
            # As a metric, the recorder receives values in the units of the targets.
            recorders = {} if kind == "other" else {"predictions": recorder}
            task.update({**metrics, **recorders}, outputs, batch)
            losses.append(sample_losses(task, outputs, batch))
            if batch.sample_weight is not None:
                weights.append(batch.sample_weight.cpu().double())
            positions = torch.arange(count, count + len(batch))
            ids.append(positions if batch.indices is None else batch.indices.cpu())
            count += len(batch)
        if has_evaluate:
            scores = task.evaluate(model, batches(), context)
        else:
            scores = {name: score(cast(Metric, metric)) for name, metric in metrics.items()}
    if not ids:
        raise InputError("The part has no samples, so there is nothing to interpret.")
    known = [each for each in losses if each is not None]
    return Predictions(
        kind=kind,
        ids=torch.cat(ids),
        outputs=None if kind == "other" else torch.cat(recorder.outputs),
        targets=None if kind == "other" else _plain_targets(task, torch.cat(recorder.targets)),
        losses=torch.cat(known).double() if len(known) == len(losses) else None,
        scores=scores,
        weights=torch.cat(weights) if weights else None,
    )


class _Recorder:
    """A metric that stores the outputs and targets it receives."""

    takes_weights = True

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor, weights: Tensor | None = None) -> None:
        outputs = outputs.detach().cpu()
        self.outputs.append(outputs.float() if outputs.dtype in HALF_DTYPES else outputs)
        self.targets.append(targets.detach().cpu())


def _plain_targets(task: Task, targets: Tensor) -> Tensor:
    """Return class indices for classification (-1 where ignored), other targets unchanged."""
    if not isinstance(task, Classification):
        return targets
    indices = targets.argmax(dim=1) if targets.is_floating_point() else targets.long()
    return (
        indices
        if task.ignore_index is None
        else indices.masked_fill(indices == task.ignore_index, -1)
    )


def _kind_of(task: Task) -> Kind:
    if isinstance(task, Classification):
        return "classification"
    if isinstance(task, MultiLabel):
        return "multi_label"
    return "regression" if isinstance(task, Regression) else "other"


def _has_row_per_sample(outputs: Any, batch: Batch) -> bool:
    """Return False for masks, and for tokens that are flattened into rows."""
    return isinstance(outputs, Tensor) and outputs.ndim <= 2 and len(outputs) == len(batch)
