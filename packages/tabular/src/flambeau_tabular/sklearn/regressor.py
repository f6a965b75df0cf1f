"""``FlambeauRegressor``: numbers for the rows of a table, as a scikit-learn estimator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import RegressorMixin

from flambeau.task.decoded_columns import decode_columns
from flambeau_tabular.sklearn.estimator import TabularEstimator
from flambeau_tabular.sklearn.read_targets import ReadTargets, read_numbers

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flambeau_tabular.sklearn.fit_data import FitRows


class FlambeauRegressor(RegressorMixin, TabularEstimator):
    """Predicts numbers with a network for tables, as an estimator of scikit-learn.

    ``y`` of ``fit`` has one number per row, ``(n,)``, or several, ``(n, targets)``. They are
    standardised inside; predictions are in the units of ``y``. Counts and amounts take
    ``options=TabularOptions(task="poisson")``, "gamma" or "tweedie".

    Args:
        model: "mlp" (RealMLP) or "tabm"; None lets the plan choose by the device.
        epochs: Passes over the train rows; None takes the plan's.
        valid: Share of the rows (or their number) on which the best epoch is chosen; 0 for none,
            so that the last epoch is kept.
        calibration: Share of the rows on which intervals are calibrated after training:
            ``predictor_.predict(frame, interval=0.9)``.
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
        n_features_in_: Number of columns of ``X``.
        feature_names_in_: Names of the columns, if all are text.
        predictor_: The predictor; its predictions are frames and may have intervals.
        learner_: The learner of the fit, with its data; not in an estimator from a pickle.
        plan_: Every choice of the training with its reason.

    Example:
        >>> from sklearn.datasets import load_diabetes
        >>> X, y = load_diabetes(return_X_y=True)
        >>> found = FlambeauRegressor(epochs=2, random_state=0).fit(X, y)
        >>> found.predict(X).shape
        (442,)
    """

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the prediction for each row, in the shape and the units of ``y``."""
        outputs, task = self._outputs(X), self.predictor_.task
        columns = list(decode_columns(task, outputs, len(outputs)).values())
        # Other columns, such as quantiles, follow those of the targets.
        found = np.stack(columns[: len(task.output_names)], axis=1).astype(np.float64)
        return found if self._is_matrix else found[:, 0]

    def _targets_of(self, y: Any, known: ReadTargets | None = None) -> ReadTargets:
        return read_numbers(y)

    def _check_targets(self, rows: FitRows) -> None:
        """Every number can be learned; `TabularData` refuses those that are all equal."""

    def _set_targets(self, read: ReadTargets) -> None:
        self._is_matrix = read.targets.values.ndim == 2
