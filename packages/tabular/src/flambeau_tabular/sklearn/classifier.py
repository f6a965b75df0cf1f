"""``FlambeauClassifier``: classes of the rows of a table, as a scikit-learn estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import ClassifierMixin

from flambeau.errors import InputError
from flambeau.task import MultiLabel
from flambeau.task.numerics import predicted_labels
from flambeau_tabular.sklearn.estimator import TabularEstimator
from flambeau_tabular.sklearn.read_targets import ReadTargets, read_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from flambeau_tabular.sklearn.fit_data import FitRows


class FlambeauClassifier(ClassifierMixin, TabularEstimator):
    """Predicts classes with a network for tables, as an estimator of scikit-learn.

    ``y`` of ``fit`` has one label per row (text, integers, bools), or columns of 0 and 1 for
    several labels per row.

    Args:
        model: "mlp" (RealMLP) or "tabm"; None lets the plan choose by the device.
        epochs: Passes over the train rows; None takes the plan's.
        valid: Share of the rows (or their number) on which the best epoch is chosen; 0 for none,
            so that the last epoch is kept.
        calibration: Share of the rows on which the probabilities are calibrated after training,
            with a temperature; ``predictor_.predict(frame, interval=0.9)`` is then possible.
        options: How columns are read: kinds, scaling, and the columns of ``X`` with the time, the
            group or the weight of each row.
        choices: Values to fix in the plan, by key: ``{"lr": 0.01}``. In a search "choices__lr".
        training: Options that are not in the plan: averaging, clipping, ….
        device: Device of training and prediction, such as "cpu"; None lets the plan choose.
        random_state: Seed of the split, the initial weights, the order of the rows and dropout, as
            in scikit-learn: an integer gives the same model each time; None and a ``RandomState``
            give another one in each fit.
        verbose: Whether to show progress.

    Attributes:
        classes_: The classes, sorted; for several labels per row the numbers of their columns.
        n_features_in_: Number of columns of ``X``.
        feature_names_in_: Names of the columns, if all are text.
        predictor_: The predictor; its predictions are frames and may have intervals.
        learner_: The learner of the fit, with its data; not in an estimator from a pickle.
        plan_: Every choice of the training with its reason.

    Example:
        >>> from sklearn.datasets import load_iris
        >>> X, y = load_iris(return_X_y=True, as_frame=True)
        >>> found = FlambeauClassifier(epochs=4, random_state=0).fit(X, y)
        >>> found.predict_proba(X).shape, found.classes_
        ((150, 3), array([0, 1, 2]))
    """

    classes_: NDArray[Any]

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, ``(n,)``, in the type of ``y``.

        With ``TabularOptions(costs=…)`` it is the class with the lowest expected cost.
        For several labels per row the result is 0 and 1, ``(n, labels)``.
        """
        outputs = self._outputs(X)
        task = self.predictor_.task
        if isinstance(task, MultiLabel):
            logits = task.calibrated(outputs)
            return predicted_labels(logits, task.thresholds).numpy().astype(np.int64)
        p = self._probabilities(outputs)
        threshold = getattr(task, "decision_threshold", None)
        best = p.argmax(axis=1) if threshold is None else (p[:, 1] >= threshold).astype(np.int64)
        return self.classes_[best]

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each class, ``(n, classes)``, in the order of ``classes_``.

        For several labels per row each column is the probability of that label.
        """
        return self._probabilities(self._outputs(X))

    def _probabilities(self, outputs: Tensor) -> NDArray[np.float64]:
        task = self.predictor_.task
        logits = task.calibrated(outputs).double()
        p = logits.sigmoid() if isinstance(task, MultiLabel) else logits.softmax(dim=1)
        return p.numpy()

    def _targets_of(self, y: Any, known: ReadTargets | None = None) -> ReadTargets:
        is_single = known is None or known.targets.kind == "classification"
        return read_labels(y, known.classes if known is not None and is_single else None)

    def _check_targets(self, rows: FitRows) -> None:
        targets = rows.read.targets
        if targets.kind != "classification":
            return
        present = [name for name, n in targets.counts().items() if n]
        if len(present) < 2:
            weighted = " with a weight above 0" if rows.weights is not None else ""
            raise InputError(
                f"y has only one class, {present[0]!r}, in all {len(rows.frame):,} rows"
                f"{weighted}. Classification needs at least two classes: give rows of another "
                "class."
            )

    def _set_targets(self, read: ReadTargets) -> None:
        self.classes_ = np.asarray(read.classes)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
