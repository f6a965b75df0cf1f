"""``Problem`` and ``Predicted``: what a task predicts, and predictions of any model for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.report.interpretation import Interpretation
from flambeau.task import Classification, MultiLabel, Regression
from flambeau.task.decoded_columns import decode_columns
from flambeau.task.log_link import LogLinkTask
from flambeau.task.quantiles import QuantileRegression
from flambeau.task.task import Task

ProblemKind = Literal["classes", "labels", "numbers", "amounts", "quantiles"]

_BATCH = 8_192


@dataclass(frozen=True)
class Problem:
    """What is predicted, as far as a model of any library has to know it.

    Attributes:
        kind: "classes": one class; "labels": any number of labels; "numbers"; "amounts": counts and
            amounts with a logarithmic link; "quantiles".
        names: Names of the classes, labels or numbers.
        loss: "mse", "huber" or "mae" for numbers.
        log: "log" or "log1p" if the model predicts the logarithm of numbers, else "".
        power: Variance power of amounts: 1 Poisson, 2 gamma, between them Tweedie.
        levels: Levels of the quantiles.
        threshold: Probability from which the second of two classes is predicted; None predicts the
            most probable one.
        thresholds: Probability from which each label is predicted.
    """

    kind: ProblemKind
    names: tuple[str, ...]
    loss: str = "mse"
    log: str = ""
    power: float = 1.0
    levels: tuple[float, ...] = ()
    threshold: float | None = None
    thresholds: tuple[float, ...] = ()

    @classmethod
    def of(cls, task: Task) -> Problem | None:
        """Return the problem of a task of core; None for other tasks."""
        if isinstance(task, Classification):
            return cls("classes", task.classes, threshold=task.decision_threshold)
        if isinstance(task, MultiLabel):
            return cls("labels", tuple(task.classes), thresholds=task.thresholds)
        if isinstance(task, LogLinkTask):
            return cls("amounts", task.names, power=task.power) if task.offset is None else None
        if isinstance(task, QuantileRegression):
            return cls("quantiles", task.names, levels=task.quantiles)
        if isinstance(task, Regression):
            loss = task.loss_kind if isinstance(task.loss_kind, str) else "mse"
            return cls("numbers", task.names, loss=loss, log=task.target_log or "")
        return None

    def decided(self, values: Tensor, thresholds: tuple[float, ...] | None = None) -> Tensor:
        """Return the predicted class ``(n,)``, or the predicted labels ``(n, labels)`` as bools."""
        if self.kind == "labels":
            return values >= torch.tensor(thresholds or self.thresholds, dtype=values.dtype)
        if self.threshold is not None:
            return (values[:, 1] >= self.threshold).long()
        return values.argmax(dim=1)


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions for n rows in the units of the targets, float64.

    Attributes:
        values: Probabilities ``(n, classes)`` or ``(n, labels)``, or numbers ``(n, values)``; the
            medians for quantiles.
        decided: Predicted classes ``(n,)``, or labels ``(n, labels)``; None for numbers.
        quantiles: ``(n, values, levels)``; None unless the problem is "quantiles".
    """

    values: Tensor
    decided: Any = None
    quantiles: Any = None

    def __len__(self) -> int:
        return len(self.values)

    def take(self, rows: Tensor) -> Predicted:
        """Return the predictions for these rows."""
        columns = (self.values, self.decided, self.quantiles)
        taken: list[Any] = [None if each is None else each[rows] for each in columns]
        return Predicted(*taken)


def predict_encoded(
    found: Interpretation, problem: Problem, inputs: dict[str, Tensor], *, calibrated: bool = True
) -> Predicted:
    """Return the predictions of the model of a report for encoded rows.

    Args:
        found: The report's interpretation, which has the model.
        problem: The problem of its task.
        inputs: Encoded tensors by name, ``(n, …)``.
        calibrated: Whether a fitted temperature is applied.
    """
    parts = [
        as_predicted(found.task, problem, outputs, n, calibrated=calibrated)
        for outputs, n in encoded_batches(found, inputs)
    ]
    return Predicted(
        torch.cat([each.values for each in parts]),
        _joined([each.decided for each in parts]),
        _joined([each.quantiles for each in parts]),
    )


def encoded_batches(found: Interpretation, inputs: dict[str, Tensor]) -> Iterator[tuple[Any, int]]:
    """Yield the outputs of the model for encoded rows, and their number, batch by batch."""
    run = found.run
    if run is None:
        raise InputError("The report has no model to run: create it with interpret(model, …).")
    n = len(next(iter(inputs.values())))
    for start in range(0, n, _BATCH):
        piece = {name: each[start : start + _BATCH] for name, each in inputs.items()}
        rows = len(next(iter(piece.values())))
        yield run(Batch(piece, weight=float(rows), indices=torch.arange(rows))), rows


def as_predicted(
    task: Task, problem: Problem, outputs: Any, n: int, *, calibrated: bool = True
) -> Predicted:
    """Return the predictions of a task's outputs for n rows, on the CPU."""
    if problem.kind in ("classes", "labels"):
        logits = (task.calibrated(outputs) if calibrated else outputs).double()
        values = logits.softmax(dim=1) if problem.kind == "classes" else logits.sigmoid()
        return Predicted(values, problem.decided(values))
    columns = [torch.as_tensor(each) for each in decode_columns(task, outputs, n).values()]
    found = torch.stack(columns, dim=1).double()
    width = len(problem.names)
    if problem.kind != "quantiles":
        return Predicted(found[:, :width])
    return Predicted(found[:, :width], quantiles=found[:, width:].view(n, width, -1))


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    found = [each for each in parts if each is not None]
    return torch.cat(found) if found else None
