"""``MultiLabel``: any number of labels per sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau.task.class_validation import (
    check_logits,
    check_thresholds,
    checked_class_names,
    not_logits_error,
    wrong_width_error,
)
from flambeau.task.classification_metrics import ExactMatch, MultiLabelMacroF1, MultiLabelMicroF1
from flambeau.task.metric_choice import MetricChoice, fresh_metrics, metric_argument
from flambeau.task.metrics import Metric, MetricFactory
from flambeau.task.model_call import of_ensemble
from flambeau.task.numerics import (
    HALF_DTYPES,
    as_real,
    per_sample,
    predicted_labels,
    to_rows,
    weighted,
)
from flambeau.task.probability_metrics import (
    MultiLabelAUROC,
    MultiLabelAveragePrecision,
    MultiLabelBrierScore,
    MultiLabelLogLoss,
    check_label_shapes,
    is_soft,
)
from flambeau.task.sample_weights import known_weight, weight_of
from flambeau.task.task import Task

if TYPE_CHECKING:
    from flambeau.task.probability_calibration import Rows


@dataclass(frozen=True)
class MultiLabelPrediction:
    """The predicted labels of one sample, with probabilities.

    Attributes:
        labels: Labels whose probability is at least their threshold, in the task's order.
        probabilities: Probability by label; each is 0..1, independently of the others.
    """

    labels: tuple[str, ...]
    probabilities: dict[str, float]

    def __str__(self) -> str:
        return ", ".join(f"{each} ({self.probabilities[each]:.1%})" for each in self.labels) or (
            "no label"
        )


class MultiLabel(Task):
    """Binary cross entropy for each label: zero, one or several labels per sample.

    Outputs are logits and targets 0 or 1 (or probabilities), both ``(batch, labels)``. The loss is
    the mean over samples (weighted, with sample weights) and labels.

    Args:
        classes: Names of the labels in the order of the columns.
        threshold: A label is predicted if its probability is at least this; one for all labels, or
            a list with one for each. ``calibrate`` does not change a list.
        metrics: Names from ``MultiLabel.known_metrics``, or metric objects by name. An export can
            contain only objects whose class core or the domain registers.
        calibration: What ``calibrate`` returned: ``{"temperature": T, "thresholds": [...]}``.
            Predictions and metrics use the logits divided by T, and the thresholds of this
            dictionary.

    Raises:
        ArgumentError: ``classes`` is a string, or a metric is unknown.
        InputError: There is no class, a name is repeated, or the threshold is outside 0..1.
    """

    builder = "multi_label"
    kind = "multi_label"
    loss_name = "binary cross entropy"

    @staticmethod
    def known_metrics(threshold: float | Sequence[float] = 0.5) -> dict[str, MetricFactory]:
        """Return the metrics that can be chosen by name, with the functions that create them."""
        return {
            "auroc": MultiLabelAUROC,
            "average_precision": MultiLabelAveragePrecision,
            "brier": MultiLabelBrierScore,
            "exact_match": partial(ExactMatch, threshold),
            "log_loss": MultiLabelLogLoss,
            "macro_f1": partial(MultiLabelMacroF1, threshold),
            "micro_f1": partial(MultiLabelMicroF1, threshold),
        }

    def __init__(
        self,
        classes: Sequence[str],
        threshold: float | Sequence[float] = 0.5,
        *,
        metrics: MetricChoice | None = None,
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        self.classes = checked_class_names(classes, type(self).__name__, minimum=1)
        n = len(self.classes)
        is_one = isinstance(threshold, int | float)
        checked = check_thresholds([threshold] * n if is_one else threshold, n)
        self.threshold: float | tuple[float, ...] = checked[0] if is_one else checked
        if calibration:
            from flambeau.task.probability_calibration import check_calibration

            self.calibration = check_calibration(calibration, ["temperature", "thresholds"], n)
        self._metrics: MetricChoice = ("micro_f1", "exact_match") if metrics is None else metrics
        self.metrics()

    @property
    def n_outputs(self) -> int:
        return len(self.classes)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.classes

    @property
    def standard_loss(self) -> str:
        return "binary_cross_entropy" if type(self).loss is MultiLabel.loss else ""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        if of_ensemble(outputs):
            return outputs.mean_loss(partial(MultiLabel.loss, self), batch)
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
        samples, targets = batch.sample_weight, targets.to(outputs.dtype)
        if samples is None:
            total = F.binary_cross_entropy_with_logits(outputs, targets, reduction="sum")
        else:
            samples = per_sample(samples.to(outputs.dtype), outputs)
            losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
            total = weighted(losses, samples).sum()
        return total, weight_of(targets.numel(), samples, targets)

    def host_weight(self, batch: Batch) -> float | None:
        return known_weight(batch, batch.target.numel())

    def target_weight(self, batch: Batch) -> Tensor | float | None:
        return weight_of(batch.target.numel(), batch.sample_weight, batch.target)

    def metrics(self) -> Mapping[str, Metric]:
        fitted: Sequence[float] | None = self.calibration.get("thresholds")
        threshold = self.threshold if fitted is None else tuple(fitted)
        return fresh_metrics(self._metrics, self.known_metrics(threshold), threshold=threshold)

    def calibrate(self, pairs: Iterable[tuple[Any, Batch]]) -> Mapping[str, Any]:
        """Return a temperature, and for each label the threshold with the best F1.

        The temperature gives the lowest log-loss. A list of thresholds that was passed as
        ``threshold`` is returned unchanged.
        """
        from flambeau.task.probability_calibration import (
            best_f1_thresholds,
            fit_label_temperature,
            gather,
        )

        logits, targets, weights = gather(
            (outputs, self._hard(outputs, batch), batch.sample_weight) for outputs, batch in pairs
        )
        temperature = fit_label_temperature(logits, targets, weights)
        if isinstance(self.threshold, tuple):
            return {"temperature": temperature, "thresholds": list(self.threshold)}
        p = (logits.double() / temperature).sigmoid()
        current = [self.threshold] * self.n_outputs
        return {
            "temperature": temperature,
            "thresholds": best_f1_thresholds(p, targets, current, weights),
        }

    def probability_rows(self, outputs: Any, batch: Batch) -> Rows:
        p = as_real(self.calibrated(outputs)).sigmoid()
        return p, self._hard(outputs, batch), batch.sample_weight

    def _hard(self, outputs: Any, batch: Batch) -> Tensor:
        """Return the targets ``(batch, labels)``, after checking that each is 0 or 1."""
        targets = batch.target
        check_label_shapes(outputs, targets)
        if bool(is_soft(targets).any()):
            raise InputError(
                "Some calibration targets are between 0 and 1 (soft labels), but a calibration "
                "needs 0 or 1. Give the calibration part hard labels."
            )
        return targets

    def sample_losses(self, outputs: Any, batch: Batch) -> Tensor | None:
        from flambeau.task.sample_losses import sample_losses

        # A subclass may override the loss.
        is_own = type(self).loss is MultiLabel.loss
        return sample_losses(self, outputs, batch, self._losses if is_own else None)

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor:
        targets = targets.to(outputs.dtype)
        each = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return each.mean(dim=1)

    def decode(self, outputs: Tensor) -> list[MultiLabelPrediction]:
        """Return the predicted labels of each sample, from logits ``(batch, labels)``."""
        check_logits(outputs, self.classes, type(self).__name__)
        predictions: list[MultiLabelPrediction] = []
        logits = as_real(self.calibrated(outputs.detach()))
        chosen = to_rows(predicted_labels(logits, self.thresholds))
        for row, predicted in zip(to_rows(logits.sigmoid()), chosen, strict=True):
            named = dict(zip(self.classes, row, strict=True))
            labels = tuple(
                name for name, is_one in zip(self.classes, predicted, strict=True) if is_one
            )
            predictions.append(MultiLabelPrediction(labels, named))
        return predictions

    def arguments(self) -> Mapping[str, Any]:
        return {
            "classes": list(self.classes),
            "threshold": list(one) if isinstance(one := self.threshold, tuple) else one,
            "metrics": metric_argument(self._metrics),
            **({"calibration": dict(self.calibration)} if self.calibration else {}),
        }
