"""Metrics from functions of outputs and targets, and from scikit-learn's metrics.

The function is called once, with the outputs and targets of all batches: most scores are not the
mean of the scores of batches.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, cast

from torch import Tensor

from flambeau.errors import (
    ArgumentError,
    FlambeauError,
    InputError,
    check_signature,
    did_you_mean,
    explains_arguments,
)
from flambeau.task.metrics import StoringMetric
from flambeau.task.numerics import as_real, predicted_labels
from flambeau.wording import type_and_first_line

Predictions = Literal["labels", "probabilities", "values"]

_FORMS = ("labels", "probabilities", "values")


class FunctionMetric(StoringMetric):
    """A metric that is a function of all outputs and all targets.

    Args:
        function: ``function(outputs, targets)``; returns a number.
        higher_is_better: Whether larger values are better; None if scores are never compared.

    Raises:
        ArgumentError: ``function`` is not a function, or is a metric of scikit-learn, which takes
            the targets first (use ``SklearnMetric``).

    Example:
        >>> def largest_error(outputs, targets):
        ...     return (outputs - targets).abs().max()
        >>> metric = FunctionMetric(largest_error, higher_is_better=False)
        >>> metric.update(torch.tensor([1.0, 2.0]), torch.tensor([1.5, 2.0]))
        >>> float(metric.compute())
        0.5
    """

    def __init__(
        self, function: Callable[[Tensor, Tensor], Any], higher_is_better: bool | None = None
    ) -> None:
        super().__init__()
        check_function(function)
        check_signature(
            function, f"The metric function {name_of(function)!r}", "outputs", "targets"
        )
        self.function = function
        self.higher_is_better = higher_is_better

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Keep outputs and targets ``(batch, …)``."""
        self.keep(outputs, targets)

    def compute(self) -> Any:
        """Return the function's value; nan before the first batch."""
        if not self.sums:
            return float("nan")
        outputs, targets = self.sums["outputs"], self.sums["targets"]
        try:
            return _as_number(self.function(outputs, targets))
        except FlambeauError:
            raise
        except Exception as error:
            raise ArgumentError(
                f"The metric function {name_of(self.function)!r} failed with "
                f"{type_and_first_line(error)}. It gets all outputs {tuple(outputs.shape)} and "
                f"targets {tuple(targets.shape)} of the part."
            ) from error


def _setting_hint(name: str) -> str:
    return f'Set it with settings={{"{name}": …}}.'


@explains_arguments(_setting_hint)
class SklearnMetric(StoringMetric):
    """A metric of scikit-learn, or any function of NumPy arrays with the targets first.

    Args:
        function: ``function(y_true, y_pred)``.
        takes: What the function compares with the targets. "labels": predicted classes, from
            logits ``(batch, classes)``, or predicted label sets, from ``(batch, labels)``.
            "probabilities": the probabilities of all classes or labels; for two classes, of the
            second class only. "values": the outputs as they are (regression).
        higher_is_better: Whether larger values are better.
        ignore_index: Targets with this value are left out (padding).
        threshold: For "labels" of ``(batch, labels)``: a label is predicted from this probability
            on; one for all labels, or one for each. None takes that of the task, or 0.5.
        settings: Further arguments of the function (``{"average": "macro"}``).

    Raises:
        ArgumentError: ``takes`` is unknown, or ``function`` is not a function.

    Example:
        >>> from sklearn.metrics import roc_auc_score
        >>> metric = SklearnMetric(roc_auc_score, "probabilities", higher_is_better=True)
    """

    def __init__(
        self,
        function: Callable[..., Any],
        takes: Predictions,
        *,
        higher_is_better: bool,
        ignore_index: int | None = None,
        threshold: float | Sequence[float] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        if takes not in _FORMS:
            raise ArgumentError(f"Unknown takes {takes!r}. {did_you_mean(str(takes), _FORMS)}")
        if not callable(function) or isinstance(function, type):
            raise ArgumentError(f"{function!r:.60} is not a function.")
        super().__init__()
        self.function = function
        self.takes = takes
        self.higher_is_better = higher_is_better
        self.ignore_index = ignore_index
        self.threshold = threshold
        self.settings = dict(settings or {})

    def use_threshold(self, threshold: float | Sequence[float]) -> None:
        """Use the threshold of the task, unless the metric has its own."""
        self.threshold = threshold if self.threshold is None else self.threshold

    def update(self, outputs: Tensor, targets: Tensor, /) -> None:
        """Keep outputs and targets ``(batch, …)``."""
        self.keep(outputs, targets)

    def compute(self) -> Any:
        """Return the function's value; nan before the first batch.

        Raises:
            InputError: A target is negative and not ``ignore_index``.
        """
        return _as_number(self._call(**self.sums)) if self.sums else float("nan")

    def _call(self, outputs: Tensor, targets: Tensor) -> Any:
        predictions, targets = self._predictions(outputs, targets)
        y_true, y_pred = targets.cpu().numpy(), predictions.cpu().numpy()
        try:
            return self.function(y_true, y_pred, **self.settings)
        except Exception as error:
            raise ArgumentError(
                f"The metric {name_of(self.function)!r} failed with {type_and_first_line(error)}. "
                f"It gets targets {y_true.shape} and {self.takes} {y_pred.shape}. If an argument "
                'is missing, pass it as SklearnMetric(…, settings={"average": "macro"}).'
            ) from error

    def _predictions(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the function compares with the targets, and the targets that count."""
        if outputs.ndim > 2 and not targets.is_floating_point():  # an image of labels
            outputs = outputs.movedim(1, -1).reshape(-1, outputs.shape[1])
            targets = targets.reshape(-1)
        if self.ignore_index is not None:
            kept = targets != self.ignore_index
            outputs, targets = outputs[kept], targets[kept]
        outputs = as_real(outputs)
        is_class = outputs.ndim == 2 and targets.ndim == 1
        if is_class and self.takes != "values" and bool((targets < 0).any()):
            raise InputError(
                f"The targets contain {int(targets.min())}, which is no class. If it marks what "
                f"does not count, give the metric ignore_index={int(targets.min())}."
            )
        if self.takes == "labels":
            limits = 0.5 if self.threshold is None else self.threshold
            predicted = outputs.argmax(dim=1) if is_class else predicted_labels(outputs, limits)
            outputs = predicted.long()
        elif self.takes == "probabilities":
            outputs = outputs.softmax(dim=1) if is_class else outputs.sigmoid()
            if is_class and outputs.shape[1] == 2:
                outputs = outputs[:, 1]
        return outputs, targets


def name_of(function: object) -> str:
    """Return the name of a function, also of one in a ``functools.partial``."""
    inner = getattr(function, "func", function)
    return getattr(inner, "__name__", type(function).__name__)


def check_function(function: object) -> None:
    """Check that a function can be called with (outputs, targets).

    Raises:
        ArgumentError: ``function`` is a class or cannot be called, or its first argument is named
            ``y_true``, as in scikit-learn.
    """
    if not callable(function) or isinstance(function, type):
        raise ArgumentError(f"{function!r:.60} is not a function.")
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return
    if names[:1] == ["y_true"]:
        name = name_of(function)
        raise ArgumentError(
            f"{name} takes the targets first (y_true), as arrays of labels or probabilities, not "
            f'logits. Say what it takes and which values are better: SklearnMetric({name}, "labels"'
            ' or "probabilities" or "values", higher_is_better=True or False).'
        )


def _as_number(value: Any) -> Any:
    """Return a NumPy scalar as a float, any other value unchanged (``score`` checks it)."""
    if isinstance(value, Tensor):
        return value
    item: Any = getattr(value, "item", None)
    return float(cast(Any, item())) if callable(item) and getattr(value, "size", 0) == 1 else value
