"""``Predictions``: results of a model for every sample of a part, without the raw outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.task.batch_summary import Summary, unpack_labels
from flambeau.task.class_validation import explaining_labels
from flambeau.task.metrics import Metric, refuse_weight_zero, score
from flambeau.task.task import StepContext, Task

_KINDS = ("classification", "multi_label", "regression")
_LABELS = {"target": "target_bits", "predicted": "predicted_bits"}


@dataclass(frozen=True, eq=False)
class Predictions:
    """Results of a model for the samples of a part; all tensors are on the CPU.

    Attributes:
        ids: Sample indices as in ``data.split``, int64 ``(n,)``.
        summary: What the task keeps of the samples: ``summary.samples`` has one entry per sample,
            ``summary.sums`` sums over them.
        weights: Sample weights, float64 ``(n,)``; None if all samples count equally.
        scores: Loss and metrics, equal to the result of ``evaluate``.
    """

    ids: Tensor
    summary: Summary
    scores: Mapping[str, float]
    weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def kind(self) -> str:
        """Kind of the predictions; "other" if only scores can be computed from them."""
        return self.summary.kind

    @property
    def losses(self) -> Tensor | None:
        """Loss of each sample, float64 ``(n,)``; None if the task has no loss per sample."""
        losses = self.summary.samples.get("loss")
        return losses.double() if isinstance(losses, Tensor) else None

    @property
    def targets(self) -> Tensor | None:
        """Class indices ``(n,)``, -1 if ignored; bools ``(n, labels)``; or values ``(n, values)``.

        None for other kinds.
        """
        return self._column("target")

    @property
    def predicted(self) -> Tensor | None:
        """Class indices ``(n,)``; bools ``(n, labels)``; or values ``(n, values)``.

        None for other kinds.
        """
        return self._column("predicted")

    @property
    def finite(self) -> bool:
        """Whether all outputs are finite, as far as this is known."""
        finite = self.summary.samples.get("finite")
        return not isinstance(finite, Tensor) or bool(finite.all())

    def labels(self, name: str, rows: Tensor) -> Tensor:
        """Return "target" or "predicted" labels of some samples, bool ``(rows, labels)``."""
        return unpack_labels(self.figure(_LABELS[name])[rows], self.summary.n_outputs)

    def figure(self, name: str) -> Tensor:
        """Return the tensor ``name`` of ``summary.samples``, which has one entry per sample.

        Raises:
            InputError: There is no tensor of this name.
        """
        found = self.summary.samples.get(name)
        if isinstance(found, Tensor):
            return found
        tensors = [key for key, value in self.summary.samples.items() if isinstance(value, Tensor)]
        raise InputError(
            f"The task's summary has no tensor {name!r} of samples; it has "
            f"{', '.join(tensors) or 'none'}. Return it from Task.summarise."
        )

    def _column(self, name: str) -> Tensor | None:
        if self.kind == "multi_label":
            return self.labels(name, torch.arange(len(self)))
        found = self.summary.samples.get(name)
        return found if isinstance(found, Tensor) else None


def collect_predictions(
    model: nn.Module, task: Task, batches: Callable[[], Iterable[Batch]], context: StepContext
) -> Predictions:
    """Run the model on every sample and return the results for each sample.

    Args:
        model: A model in eval mode.
        task: Defines loss, metrics and summary. If it overrides ``evaluate`` and its summary gives
            no scores, they are computed in a second pass.
        batches: Function that starts a pass over the batches, on the model's device.
        context: Context of the forward pass.

    Raises:
        InputError: There are no samples, none of them counts, or a tensor of a summary does not
            have one entry per sample.
    """
    has_evaluate = type(task).evaluate is not Task.evaluate
    has_summary = type(task).summarise is not Task.summarise or task.kind in _KINDS
    has_predict = has_summary and type(task).predict is not Task.predict
    predicting = replace(context, stage="predict", for_report=True)
    metrics: dict[str, Any] = {} if has_evaluate else {**task.loss_metrics(), **task.metrics()}
    ids: list[Tensor] = []
    collected = Collector()
    weights: list[Tensor] = []
    count = 0
    with torch.no_grad():
        for batch in batches():
            outputs = predicted = None
            if not (has_evaluate and has_predict):
                outputs = predicted = task.forward(model, batch, context)
            if has_predict:
                predicted = task.predict(model, batch, predicting)
            with explaining_labels(batch, task.n_outputs):
                task.update(metrics, outputs, batch)
            collected.add(task.summarise(predicted, batch), len(batch))
            if batch.sample_weight is not None:
                weights.append(batch.sample_weight.cpu().double())
            positions = torch.arange(count, count + len(batch))
            ids.append(positions if batch.indices is None else batch.indices.cpu())
            count += len(batch)
        if not ids:
            raise InputError("The part has no samples, so there is nothing to interpret.")
        summary = collected.total()
        if has_evaluate:
            again = replace(context, carry=None)
            scores = task.summary_scores(summary) or task.evaluate(model, batches(), again)
        else:
            scores = {name: score(cast(Metric, metric)) for name, metric in metrics.items()}
            refuse_weight_zero(metrics, in_run=False)
    return Predictions(torch.cat(ids), summary, scores, torch.cat(weights) if weights else None)


class Collector:
    """Joins the summaries of batches; values that some batches lack are dropped."""

    def __init__(self) -> None:
        self._kinds: set[tuple[str, int]] = set()
        self._columns: dict[str, list[Any]] = {}
        self._sums: dict[str, list[tuple[Any, int]]] = {}
        self._n_batches = 0

    def add(self, summary: Summary, n: int) -> None:
        """Add the summary of a batch of ``n`` samples.

        Raises:
            InputError: A tensor does not have one entry per sample.
        """
        self._n_batches += 1
        self._kinds.add((summary.kind, summary.n_outputs))
        for name, column in summary.samples.items():
            if len(column) != n:
                raise InputError(
                    f"The value {name!r} of a summary has {len(column)} entries for {n} samples. "
                    "Task.summarise must give one per sample, or use Summary.sums."
                )
            self._columns.setdefault(name, []).append(column)
        for name, value in summary.sums.items():
            # Sums of equally many batches are added, so that a growing sum is rarely copied.
            stack = self._sums.setdefault(name, [])
            stack.append((value, 1))
            while len(stack) > 1 and stack[-1][1] == stack[-2][1]:
                (later, n_later), (earlier, n_earlier) = stack.pop(), stack.pop()
                stack.append((earlier + later, n_earlier + n_later))

    def total(self) -> Summary:
        """Return the summary of all batches."""
        samples = {
            name: _joined(parts)
            for name, parts in self._columns.items()
            if len(parts) == self._n_batches
        }
        sums: dict[str, Any] = {}
        for name, stack in self._sums.items():
            if sum(size for _, size in stack) == self._n_batches:
                value = stack[-1][0]
                for earlier, _ in reversed(stack[:-1]):
                    value = earlier + value
                sums[name] = value
        kind, n_outputs = next(iter(self._kinds)) if len(self._kinds) == 1 else ("other", 0)
        return Summary(kind, samples, sums, n_outputs)


def _joined(parts: Sequence[Any]) -> Tensor | list[Any]:
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat(list(parts))
    return [entry for part in parts for entry in part]
