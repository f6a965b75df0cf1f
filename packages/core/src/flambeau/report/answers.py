"""One pass over a part of the data: what the model answered, what is true, what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.report.top_losses import sample_losses
from flambeau.task.checks import HALF
from flambeau.task.classification import Classification
from flambeau.task.metrics import MeanLoss, Metric, score
from flambeau.task.multi_label import MultiLabel
from flambeau.task.regression import Regression
from flambeau.task.task import StepContext, Task

Kind = Literal["classification", "multi_label", "regression", "other"]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model answered on every sample of a part.

    Attributes:
        kind: What the answers are; "other" for those of which only scores can be told.
        ids: Sample numbers as in ``data.split``, int64 ``(n,)``.
        outputs: Logits ``(n, classes)``, or numbers in the targets' units ``(n, values)``, at
            least float32; None for "other".
        targets: Class numbers ``(n,)``, -1 where ignored; 0 and 1 ``(n, labels)``; or numbers
            ``(n, values)``. None for "other".
        losses: Of each sample, ``(n,)``; None where the task cannot tell them apart.
        scores: Loss and metrics, as ``evaluate`` gives them.
    """

    kind: Kind
    ids: Tensor
    outputs: Tensor | None
    targets: Tensor | None
    losses: Tensor | None
    scores: dict[str, float]

    def __len__(self) -> int:
        return len(self.ids)


def collect(
    model: nn.Module, task: Task, batches: Callable[[], Iterable[Batch]], context: StepContext
) -> Answers:
    """The answers of a model, in eval mode, to every sample; all of it ends up on the CPU.

    Args:
        model: In eval mode.
        task: Gives loss and metrics. One with an ``evaluate`` of its own is asked for its scores
            in a second pass.
        batches: Begins a pass over the samples, on the model's device.
        context: For the forward pass.
    """
    kind = _kind_of(task)
    record = _Record()
    own = type(task).evaluate is not Task.evaluate
    metrics: dict[str, Any] = {} if own else {"loss": MeanLoss(), **task.metrics()}
    ids: list[Tensor] = []
    losses: list[Tensor | None] = []
    seen = 0
    with torch.no_grad():
        for batch in batches():
            outputs = task.forward(model, batch, context)
            if kind != "other" and not _is_row_a_sample(outputs, batch):
                kind = "other"
            # As a metric it sees what people see: numbers in the units of the targets.
            watching = {} if kind == "other" else {"answers": record}
            task.update({**metrics, **watching}, outputs, batch)
            losses.append(sample_losses(task, outputs, batch))
            count = torch.arange(seen, seen + len(batch))
            ids.append(count if batch.indices is None else batch.indices.cpu())
            seen += len(batch)
        if own:
            scores = task.evaluate(model, batches(), context)
        else:
            scores = {name: score(cast(Metric, metric)) for name, metric in metrics.items()}
    if not ids:
        raise InputError("There is no batch to interpret: the part has no samples.")
    known = [each for each in losses if each is not None]
    return Answers(
        kind=kind,
        ids=torch.cat(ids),
        outputs=None if kind == "other" else torch.cat(record.outputs),
        targets=None if kind == "other" else _plain_targets(task, torch.cat(record.targets)),
        losses=torch.cat(known).double() if len(known) == len(losses) else None,
        scores=scores,
    )


class _Record:
    """A metric that keeps what it is shown."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []
        self.targets: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        outputs = outputs.detach().cpu()
        self.outputs.append(outputs.float() if outputs.dtype in HALF else outputs)
        self.targets.append(targets.detach().cpu())


def _plain_targets(task: Task, targets: Tensor) -> Tensor:
    """Class numbers where there are classes, -1 for those that the task ignores."""
    if not isinstance(task, Classification):
        return targets
    numbers = targets.argmax(dim=1) if targets.is_floating_point() else targets.long()
    return (
        numbers
        if task.ignore_index is None
        else numbers.masked_fill(numbers == task.ignore_index, -1)
    )


def _kind_of(task: Task) -> Kind:
    if isinstance(task, Classification):
        return "classification"
    if isinstance(task, MultiLabel):
        return "multi_label"
    return "regression" if isinstance(task, Regression) else "other"


def _is_row_a_sample(outputs: Any, batch: Batch) -> bool:
    """Not so for masks, or for tokens that are flattened into rows."""
    return isinstance(outputs, Tensor) and outputs.ndim <= 2 and len(outputs) == len(batch)
