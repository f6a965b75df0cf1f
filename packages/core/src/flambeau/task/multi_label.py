"""``MultiLabel``: any number of labels per sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.task.class_validation import (
    check_logits,
    checked_class_names,
    not_logits_error,
    wrong_width_error,
)
from flambeau.task.classification_metrics import ExactMatch, MultiLabelMacroF1, MultiLabelMicroF1
from flambeau.task.metrics import (
    Metric,
    MetricChoice,
    MetricFactory,
    fresh_metrics,
    metric_argument,
)
from flambeau.task.numerics import HALF_DTYPES, to_rows
from flambeau.task.task import Task


@dataclass(frozen=True)
class MultiLabelPrediction:
    """The predicted labels of one sample, with probabilities.

    Attributes:
        labels: Labels whose probability is at least the task's threshold, in the task's order.
        probabilities: Probability by label; each is 0..1, independently of the others.
    """

    labels: tuple[str, ...]
    probabilities: dict[str, float]


class MultiLabel(Task):
    """Binary cross entropy for each label: zero, one or several labels per sample.

    Outputs are logits and targets 0 or 1 (or probabilities), both ``(batch, labels)``. The loss is
    the mean over samples and labels.

    Args:
        classes: Names of the labels in the order of the columns.
        threshold: A label is predicted if its probability is at least this.
        metrics: Names from ``MultiLabel.known_metrics``, or metric objects by name. An
            export contains objects whose class core or the domain registers.

    Raises:
        ArgumentError: ``classes`` is a string, or a metric is unknown.
        InputError: There is no class, a name is repeated, or the threshold is outside 0..1.
    """

    builder = "multi_label"
    loss_name = "binary cross entropy"

    @staticmethod
    def known_metrics(threshold: float = 0.5) -> dict[str, MetricFactory]:
        """Return the metrics that ``metrics`` can name."""
        return {
            "exact_match": partial(ExactMatch, threshold),
            "macro_f1": partial(MultiLabelMacroF1, threshold),
            "micro_f1": partial(MultiLabelMicroF1, threshold),
        }

    def __init__(
        self,
        classes: Sequence[str],
        threshold: float = 0.5,
        *,
        metrics: MetricChoice | None = None,
    ) -> None:
        self.classes = checked_class_names(classes, type(self).__name__, minimum=1)
        if not 0 < threshold < 1:
            raise InputError(f"threshold must be a probability between 0 and 1, not {threshold}.")
        self.threshold = float(threshold)
        self._metrics: MetricChoice = ("micro_f1", "exact_match") if metrics is None else metrics
        self.metrics()

    @property
    def n_outputs(self) -> int:
        return len(self.classes)

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        targets = batch.target
        if not isinstance(outputs, Tensor) or outputs.ndim != 2:
            raise not_logits_error(outputs, "MultiLabel", self.n_outputs)
        if outputs.shape[1] != self.n_outputs:
            raise wrong_width_error(outputs, "MultiLabel", self.n_outputs)
        if targets.shape != outputs.shape:
            raise InputError(
                f"Targets have shape {tuple(targets.shape)}, but MultiLabel expects "
                f"{tuple(outputs.shape)}: one 0 or 1 for each of the {self.n_outputs} labels. "
                "Use Classification if every sample has exactly one label."
            )
        if outputs.dtype in HALF_DTYPES:
            outputs = outputs.float()
        total = F.binary_cross_entropy_with_logits(
            outputs, targets.to(outputs.dtype), reduction="sum"
        )
        return total, float(targets.numel())

    def host_weight(self, batch: Batch) -> float | None:
        return float(batch.target.numel())

    def metrics(self) -> Mapping[str, Metric]:
        return fresh_metrics(self._metrics, self.known_metrics(self.threshold))

    def decode(self, outputs: Tensor) -> list[MultiLabelPrediction]:
        """Return the predicted labels of each sample, from logits ``(batch, labels)``."""
        check_logits(outputs, self.classes, type(self).__name__)
        predictions: list[MultiLabelPrediction] = []
        for row in to_rows(outputs.detach().float().sigmoid()):
            named = dict(zip(self.classes, row, strict=True))
            labels = tuple(name for name, value in named.items() if value >= self.threshold)
            predictions.append(MultiLabelPrediction(labels, named))
        return predictions

    def arguments(self) -> Mapping[str, Any]:
        return {
            "classes": list(self.classes),
            "threshold": self.threshold,
            "metrics": metric_argument(self._metrics),
        }
