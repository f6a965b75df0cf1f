"""``Classification``: exactly one label per sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau.checked_arguments import checked_number
from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, InputError
from flambeau.task.class_validation import (
    check_logits,
    checked_class_names,
    checked_class_weights,
    not_logits_error,
    wrong_width_error,
)
from flambeau.task.classification_metrics import (
    Accuracy,
    BalancedAccuracy,
    MacroF1,
    TopKAccuracy,
)
from flambeau.task.metric_choice import MetricChoice, fresh_metrics, metric_argument
from flambeau.task.metrics import Metric, MetricFactory, update_metric
from flambeau.task.model_call import of_ensemble
from flambeau.task.named_losses import Loss
from flambeau.task.numerics import (
    HALF_DTYPES,
    as_real,
    per_sample,
    real_dtype,
    to_rows,
    weighted,
)
from flambeau.task.predicted_intervals import CONFORMAL, PredictsIntervals, checked_scores
from flambeau.task.probability_metrics import (
    AUROC,
    AveragePrecision,
    BrierScore,
    LogLoss,
    RefinedLogLoss,
    class_rows,
)
from flambeau.task.sample_weights import known_weight, weight_of
from flambeau.wording import class_name

if TYPE_CHECKING:
    from flambeau.task.probability_calibration import Rows

# torch ignores the label -100 by default; an impossible label makes it ignore none.
_NO_LABEL = -(2**62)


@dataclass(frozen=True)
class Prediction:
    """The predicted class of one sample, with probabilities.

    Attributes:
        label: The predicted class: the most probable one, unless the task has costs of mistakes.
        probability: Probability of this class, 0..1.
        probabilities: Probability by class, in the order of the task's classes; their sum is 1.
    """

    label: str
    probability: float
    probabilities: dict[str, float]

    def __str__(self) -> str:
        return f"{self.label} ({self.probability:.1%})"


@dataclass(frozen=True)
class SetPrediction(Prediction):
    """A predicted class, and the classes among which the right one is with a stated probability.

    Attributes:
        classes: Names of these classes, the most probable first.
    """

    classes: tuple[str, ...]


class Classification(PredictsIntervals):
    """Cross entropy over classes, with exactly one label per sample.

    Outputs are logits ``(batch, classes)``; targets are class numbers ``(batch,)`` of any integer
    dtype, or probabilities ``(batch, classes)`` (mixup). Further axes are allowed (``(batch,
    classes, height, width)`` with ``(batch, height, width)``).

    Args:
        classes: Names in the order of the class numbers.
        label_smoothing: Share of the target distribution that is spread over all classes, 0..1.
        class_weights: Factor on the loss of each class. The sum of the losses is then divided by
            the sum of the factors of the targets, as in torch, or by the number of targets if they
            are probabilities. Sample weights multiply the losses and the factors.
        ignore_index: Targets with this value (padding) are ignored by the loss and the metrics.
            Metric objects of core that have an ``ignore_index`` use theirs. None ignores no
            targets.
        loss: A function of outputs and targets, as the model and the data give them, that returns
            one loss per target, such as ``nn.CrossEntropyLoss(reduction="none")``; None selects
            cross entropy. It replaces ``label_smoothing`` and ``class_weights``. An export can
            contain only an object whose class the domain registers in ``losses``.
        metrics: Names from ``Classification.known_metrics``, or metric objects by name. An export
            can contain only objects whose class core or the domain registers.
        costs: For two classes: the costs of mistakes, ``{"false_positive": 1, "false_negative":
            5}``, where the second class is the positive one. It is predicted if its probability is
            at least a threshold: before ``calibrate`` the one that is best for true probabilities
            (1 / 6 here), after it the one with the lowest cost on the calibration part. Metrics of
            labels use it, and "cost" is added to the metrics; the loss does not change. Cannot be
            combined with ``class_weights``, which move the probabilities for the same purpose.
        calibration: What ``calibrate`` returned: ``{"temperature": T}``, with costs also
            "threshold". Predictions and metrics use the logits divided by T.

    Raises:
        ArgumentError: ``classes`` is a string, a metric is unknown, ``loss`` is not callable or
            is combined with an argument that it replaces, or ``costs`` with ``class_weights``.
        InputError: There are fewer than two classes, repeated names, or invalid weights.
    """

    builder = "classification"
    kind = "classification"
    loss_name = "cross entropy"

    @staticmethod
    def known_metrics(ignore_index: int | None = None) -> dict[str, MetricFactory]:
        """Return the metrics that can be chosen by name, with the functions that create them."""
        return {
            "accuracy": partial(Accuracy, ignore_index),
            "auroc": partial(AUROC, ignore_index),
            "average_precision": partial(AveragePrecision, ignore_index),
            "balanced_accuracy": partial(BalancedAccuracy, ignore_index),
            "brier": partial(BrierScore, ignore_index),
            "log_loss": partial(LogLoss, ignore_index),
            "macro_f1": partial(MacroF1, ignore_index),
            "refined_log_loss": partial(RefinedLogLoss, ignore_index),
            "top_5_accuracy": partial(TopKAccuracy, 5, ignore_index),
        }

    def __init__(
        self,
        classes: Sequence[str],
        *,
        label_smoothing: float = 0.0,
        class_weights: Sequence[float] | None = None,
        ignore_index: int | None = None,
        loss: Loss | None = None,
        metrics: MetricChoice | None = None,
        costs: Mapping[str, float] | None = None,
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        self.classes = checked_class_names(classes, type(self).__name__, minimum=2)
        self.label_smoothing = checked_number(
            label_smoothing, "label_smoothing", at_least=0, below=1
        )
        self.class_weights = None
        if class_weights is not None:
            self.class_weights = checked_class_weights(class_weights, len(self.classes))
        self.ignore_index = ignore_index
        self.costs = None if costs is None else self._checked_costs(costs)
        self.own_loss = loss
        if loss is not None:
            self._check_own_loss(loss)
            self.loss_name = class_name(loss)
        self._metrics: MetricChoice = ("accuracy",) if metrics is None else metrics
        self._check_metrics()
        if calibration:
            self.calibration = self._checked_calibration(calibration)
        self._weights: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def _check_metrics(self) -> None:
        """Raise an error for an unknown name and for a metric that is always 1."""
        n = len(self.classes)
        for name, metric in self.metrics().items():
            if isinstance(metric, TopKAccuracy) and metric.k >= n:
                raise InputError(
                    f"The metric {name!r} is always 1 with {n} classes, because the target is "
                    f"always among the {metric.k} highest outputs. Choose accuracy, or "
                    f'metrics={{"top": TopKAccuracy(k)}} with k below {n}.'
                )

    def _checked_costs(self, costs: Mapping[str, float]) -> dict[str, float]:
        from flambeau.task.decision_costs import checked_costs

        if self.class_weights is not None:
            raise ArgumentError(
                "class_weights and costs both correct for unequal mistakes, so together they would "
                "do it twice. Use costs, which keep the probabilities right, or class_weights."
            )
        return checked_costs(costs, self.classes)

    @property
    def decision_threshold(self) -> float | None:
        """Probability from which the second of two classes is predicted; None without costs."""
        if self.costs is None:
            return None
        from flambeau.task.decision_costs import ideal_threshold

        return self.calibration.get("threshold", ideal_threshold(self.costs))

    @property
    def n_outputs(self) -> int:
        return len(self.classes)

    @property
    def output_names(self) -> tuple[str, ...]:
        return self.classes

    @property
    def standard_loss(self) -> str:
        is_own = type(self).loss is not Classification.loss or self.own_loss is not None
        return "" if is_own else "cross_entropy"

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, Tensor | float]:
        if of_ensemble(outputs):
            return outputs.mean_loss(partial(Classification.loss, self), batch)
        targets = batch.target
        soft = self._is_soft(outputs, targets)
        if outputs.dtype in HALF_DTYPES:
            outputs = outputs.float()
        weight = self._weight_on(outputs.device, outputs.dtype)
        targets = targets.to(outputs.dtype) if soft else targets.long()
        # Probabilities have no label to ignore, for which torch accepts negative numbers only.
        ignored = _NO_LABEL if soft or self.ignore_index is None else self.ignore_index
        samples = batch.sample_weight
        if self.own_loss is not None:
            total = self._own_losses(self.own_loss, outputs, targets, soft=soft)
            if samples is not None:
                samples = per_sample(samples.to(total.dtype), total)
                total = weighted(total, samples)
            n_losses = total.numel()
            total = total.sum()
            if soft:
                return total, weight_of(n_losses, samples, targets)
            return total, self._count(targets, None, samples)
        total = F.cross_entropy(
            outputs,
            targets,
            weight,
            ignore_index=ignored,
            reduction="sum" if samples is None else "none",
            label_smoothing=self.label_smoothing,
        )
        if samples is not None:
            samples = per_sample(samples.to(outputs.dtype), total)
            total = weighted(total, samples).sum()
        if not soft:
            return total, self._count(targets, weight, samples)
        n_targets = targets.numel() // self.n_outputs
        return total, weight_of(n_targets, samples, targets)

    def _own_losses(self, loss: Loss, outputs: Tensor, targets: Tensor, *, soft: bool) -> Tensor:
        """Return what ``loss`` returns, with 0 for ignored targets.

        Raises:
            InputError: ``loss`` does not return one loss per target.
        """
        kept = None if soft or self.ignore_index is None else targets != self.ignore_index
        each = loss(outputs, targets if kept is None else torch.where(kept, targets, 0))
        expected = (outputs.shape[0], *outputs.shape[2:])
        if each.shape != expected:
            raise InputError(
                f"The loss {class_name(loss)} returned shape {tuple(each.shape)} for "
                f"outputs {tuple(outputs.shape)}. Return one loss per target, {expected} (of "
                'torch\'s losses: reduction="none").'
            )
        return each if kept is None else torch.where(kept, each, 0)

    def _check_own_loss(self, loss: object) -> None:
        if not callable(loss) or isinstance(loss, type):
            raise ArgumentError(
                f"loss is {loss!r:.60}, but must be a function or an object such as "
                'nn.CrossEntropyLoss(reduction="none"). Losses by name are choices of the plan: '
                'choices={"loss": "balanced_cross_entropy"}.'
            )
        if self.label_smoothing or self.class_weights is not None:
            name = "label_smoothing" if self.label_smoothing else "class_weights"
            raise ArgumentError(
                f"{name} has no effect together with a custom loss. Remove it, and set it in the "
                "loss function instead."
            )

    def host_weight(self, batch: Batch) -> float | None:
        targets = batch.target
        if targets.is_floating_point():
            return known_weight(batch, targets.numel() // self.n_outputs)
        if self.class_weights is not None or self.ignore_index is not None:
            return None
        return known_weight(batch, targets.numel())

    def target_weight(self, batch: Batch) -> Tensor | float | None:
        targets, samples = batch.target, batch.sample_weight
        if samples is not None:
            samples = per_sample(as_real(samples), targets)
        if targets.is_floating_point():
            samples = None if samples is None else samples.flatten()
            return weight_of(targets.numel() // self.n_outputs, samples, targets)
        weight = self._weight_on(targets.device, real_dtype(targets.device))
        return self._count(targets.long(), weight, samples)

    def metrics(self) -> Mapping[str, Metric]:
        known = self.known_metrics(self.ignore_index)
        found = fresh_metrics(self._metrics, known, self.ignore_index)
        if self.costs is None:
            return found
        from flambeau.task.decision_costs import MeanCost

        return {"cost": MeanCost(**self.costs, ignore_index=self.ignore_index), **found}

    def update(self, metrics: Mapping[str, Any], outputs: Any, batch: Batch) -> None:
        """Update the metrics; with costs, those of labels score the decisions by threshold."""
        threshold = self.decision_threshold
        if threshold is None:
            super().update(metrics, outputs, batch)
            return
        from flambeau.task.decision_costs import is_label_metric, with_threshold

        labels = {name: metric for name, metric in metrics.items() if is_label_metric(metric)}
        others = {name: metric for name, metric in metrics.items() if name not in labels}
        super().update(others, outputs, batch)
        decided = with_threshold(self.calibrated(outputs), threshold)
        for name, metric in labels.items():
            update_metric(name, metric, decided, batch.target, batch.sample_weight)

    def sample_losses(self, outputs: Any, batch: Batch) -> Tensor | None:
        from flambeau.task.sample_losses import sample_losses

        # A subclass may override the loss.
        is_own = type(self).loss is Classification.loss
        return sample_losses(self, outputs, batch, self._losses if is_own else None)

    def _losses(self, outputs: Tensor, targets: Tensor) -> Tensor | None:
        zero_weight = 0 in (self.class_weights or ()) or self.own_loss is not None
        if outputs.ndim != 2 or targets.is_floating_point() or self.label_smoothing or zero_weight:
            return None
        ignored = -100 if self.ignore_index is None else self.ignore_index
        # For a single sample, the class weight cancels out.
        return F.cross_entropy(outputs, targets.long(), ignore_index=ignored, reduction="none")

    def calibrate(self, pairs: Iterable[tuple[Any, Batch]]) -> Mapping[str, Any]:
        """Return ``{"temperature": T}``, for which the log-loss of the targets is lowest.

        With costs also "threshold": the one with the lowest cost on these samples.
        """
        from flambeau.task.probability_calibration import fit_temperature, gather

        logits, targets, weights = gather(self._rows(*pair) for pair in pairs)
        temperature = fit_temperature(logits, targets, weights)
        if self.costs is None:
            return {"temperature": temperature}
        from flambeau.task.decision_costs import best_threshold

        p = (logits.double() / temperature).softmax(dim=1)[:, 1]
        threshold = best_threshold(p, targets, self.costs, weights)
        return {"temperature": temperature, "threshold": threshold}

    def _checked_calibration(self, values: Mapping[str, Any]) -> dict[str, Any]:
        from flambeau.task.probability_calibration import check_calibration

        known = ["temperature"] if self.costs is None else ["temperature", "threshold"]
        found = check_calibration(values, [*known, CONFORMAL])
        if "threshold" in found:
            from flambeau.task.decision_costs import checked_threshold

            found["threshold"] = checked_threshold(found["threshold"])
        if CONFORMAL in found:
            found[CONFORMAL] = checked_scores(found[CONFORMAL])
        return found

    def interval_scores(self, outputs: Any, batch: Batch) -> tuple[Mapping[str, Tensor], Tensor]:
        from flambeau.task.predicted_intervals import class_interval_scores

        self._is_soft(outputs, batch.target)  # raises for wrong shapes
        return class_interval_scores(outputs, batch, self.ignore_index)

    def probability_rows(self, outputs: Any, batch: Batch) -> Rows:
        logits, targets, weights = self._rows(self.calibrated(outputs), batch)
        return as_real(logits).softmax(dim=1), targets, weights

    def _rows(self, outputs: Any, batch: Batch) -> Rows:
        """Return logits ``(n, classes)``, class numbers and weights, without ignored targets."""
        self._is_soft(outputs, batch.target)  # raises for wrong shapes
        logits, targets = class_rows(outputs, batch.target)
        weights = batch.sample_weight
        if weights is not None:
            weights = weights.repeat_interleave(len(targets) // max(1, len(weights)))
        if self.ignore_index is None:
            return logits, targets, weights
        kept = targets != self.ignore_index
        return logits[kept], targets[kept], None if weights is None else weights[kept]

    def decode(self, outputs: Tensor) -> list[Prediction]:
        """Return the predicted class of each sample, from logits ``(batch, classes)``.

        It is the most probable one or, with ``costs``, the one that the threshold decides.
        """
        check_logits(outputs, self.classes, type(self).__name__)
        predictions: list[Prediction] = []
        threshold = self.decision_threshold
        for row in to_rows(as_real(self.calibrated(outputs.detach())).softmax(dim=1)):
            best = max(range(len(row)), key=row.__getitem__)
            if threshold is not None:
                best = int(row[1] >= threshold)
            named = dict(zip(self.classes, row, strict=True))
            predictions.append(Prediction(self.classes[best], row[best], named))
        if self.interval is None:
            return predictions
        from flambeau.task.conformal import ordered_sets

        p = as_real(outputs.detach()).softmax(dim=1)
        sets = ordered_sets(p, self.interval_quantiles()["classes"])
        return [
            SetPrediction(**vars(each), classes=tuple(self.classes[at] for at in members))
            for each, members in zip(predictions, sets, strict=True)
        ]

    def arguments(self) -> Mapping[str, Any]:
        return {
            "classes": list(self.classes),
            "label_smoothing": self.label_smoothing,
            "class_weights": None if self.class_weights is None else list(self.class_weights),
            "ignore_index": self.ignore_index,
            "metrics": metric_argument(self._metrics),
            **({} if self.own_loss is None else {"loss": self.own_loss}),
            **({} if self.costs is None else {"costs": dict(self.costs)}),
            **({"calibration": dict(self.calibration)} if self.calibration else {}),
        }

    def _is_soft(self, outputs: Any, targets: Tensor) -> bool:
        """Check shapes and dtypes, without device reads; return whether targets are soft."""
        if not isinstance(outputs, Tensor) or outputs.ndim < 2:
            raise not_logits_error(outputs, "Classification", self.n_outputs)
        shape = outputs.shape
        if shape[1] != self.n_outputs:
            raise wrong_width_error(outputs, "Classification", self.n_outputs)
        if targets.is_floating_point():
            if targets.shape == shape:
                return True
            if targets.shape == (shape[0], *shape[2:]):
                raise InputError(
                    f"Targets have dtype {targets.dtype}, but Classification expects class numbers "
                    f"0 to {self.n_outputs - 1} as integers. Use targets.long() in the data set if "
                    "they are class numbers, or Regression if they are measurements."
                )
        elif targets.shape == (shape[0], *shape[2:]):
            return False
        raise self._wrong_target_shape(shape, targets)

    def _wrong_target_shape(self, shape: torch.Size, targets: Tensor) -> InputError:
        expected = (shape[0], *shape[2:])
        message = (
            f"Targets have shape {tuple(targets.shape)}, but Classification expects {expected}"
        )
        if targets.shape == (*expected, 1):
            return InputError(
                f"{message}. The data set returns an array of length 1 for each sample. Squeeze it "
                "in the data set, or use Regression if the targets are measurements."
            )
        if targets.shape == shape:
            return InputError(
                f"{message}. Targets of {targets.dtype} with one number per class look like "
                "several labels per sample: use MultiLabel, or targets.argmax(1) if exactly one is "
                "1."
            )
        return InputError(
            f"{message} for outputs {tuple(shape)}: one class number per sample. Fix the targets "
            "in the data set, or the model if its outputs have the wrong shape."
        )

    def _weight_on(self, device: torch.device, dtype: torch.dtype) -> Tensor | None:
        """Return the class weights on a device; they are copied to it once."""
        if self.class_weights is None:
            return None
        key = device, dtype
        if key not in self._weights:
            self._weights[key] = torch.tensor(self.class_weights, dtype=dtype, device=device)
        return self._weights[key]

    def _count(
        self, targets: Tensor, weight: Tensor | None, samples: Tensor | None
    ) -> Tensor | float:
        """Return the weight of the loss; ``samples`` are sample weights ``(batch, 1, …)``."""
        factor = 1 if samples is None else samples
        if self.ignore_index is None:
            if weight is None:
                return weight_of(targets.numel(), samples, targets)
            return (weight[targets] * factor).sum()
        kept = targets != self.ignore_index
        if weight is None:
            return (kept * factor).sum()
        return (weight[torch.where(kept, targets, 0)] * kept * factor).sum()
