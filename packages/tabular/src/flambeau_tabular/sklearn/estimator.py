"""``TabularEstimator``: what the classifier and the regressor have in common."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from flambeau import Checkpointing, FlambeauWarning, Learner, Plan, Predictor
from flambeau import random as keyed
from flambeau.data.split_request import SplitRequest
from flambeau.errors import ArgumentError, InputError, did_you_mean, explains_arguments
from flambeau.global_rng import preserve_generators
from flambeau_tabular.models import MODELS
from flambeau_tabular.options import TabularOptions
from flambeau_tabular.sklearn.artefact_bytes import artefact_bytes, predictor_from_bytes
from flambeau_tabular.sklearn.fit_data import FitRows, fit_data, fit_rows
from flambeau_tabular.sklearn.input_rows import read_fit_rows, read_rows
from flambeau_tabular.sklearn.model_outputs import model_outputs

if TYPE_CHECKING:
    from torch import Tensor

    from flambeau import TrainingOptions
    from flambeau.training.state import TrainState
    from flambeau_tabular.sklearn.read_targets import ReadTargets

_NESTED = "choices__"


def _hint(name: str) -> str:
    if name in TabularOptions.__dataclass_fields__:
        return f"Set it with options=TabularOptions({name}=…)."
    return f"A value of the plan is set with choices={{{name!r}: …}}."


class _NoCheckpoints(Checkpointing):
    """Replaces the checkpoints of a run: an estimator writes no files and resumes no run."""

    def __init__(self) -> None:
        super().__init__(every_s=None, at_epoch_end=False)

    def on_exception(self, state: TrainState) -> None:
        """Save nothing."""


@explains_arguments(_hint)
class TabularEstimator(BaseEstimator):
    """A flambeau model for tables with the methods of a scikit-learn estimator.

    Use ``FlambeauClassifier`` or ``FlambeauRegressor``, which describe the arguments.
    """

    def __init__(
        self,
        model: str | None = None,
        *,
        epochs: int | None = None,
        valid: float = 0.2,
        calibration: float = 0.0,
        options: TabularOptions | None = None,
        choices: Mapping[str, Any] | None = None,
        training: TrainingOptions | None = None,
        device: str | None = None,
        random_state: Any = None,
        verbose: bool | int = False,
    ) -> None:
        self.model = model
        self.epochs = epochs
        self.valid = valid
        self.calibration = calibration
        self.options = options
        self.choices = choices
        self.training = training
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # ------------------------------------------------------------ training

    def fit(
        self,
        X: Any,
        y: Any,
        sample_weight: Any = None,
        *,
        groups: Any = None,
        X_val: Any = None,
        y_val: Any = None,
    ) -> Self:
        """Train a new model.

        Args:
            X: Rows ``(n, columns)``: a frame of any library that speaks Arrow (pandas, polars,
                pyarrow, DuckDB), whose columns get their kinds as in `TabularData.from_df`; or an
                array or list, whose columns are numbers if its dtype is one. NaN, None and infinity
                are missing.
            y: One target per row; see the class.
            sample_weight: Weight of each row in loss and metrics, ``(n,)``. Rows of weight 0 are
                left out.
            groups: Group of each row, ``(n,)``; a group is in train or in validation, never in
                both.
            X_val: Separate validation rows, in place of the share ``valid`` of ``X``.
            y_val: Their targets.

        Returns:
            The estimator itself.

        Raises:
            ValueError: An argument does not fit; the message says what to do.
        """
        if y is None:
            raise ValueError(
                f"This {type(self).__name__} estimator requires y to be passed, but the target y "
                "is None."
            )
        self._check_parameters()
        if (X_val is None) != (y_val is None):
            raise ArgumentError("X_val and y_val belong together. Give both or neither.")
        frame, numbers = read_fit_rows(self, X)
        read = self._targets_of(y)
        rows = fit_rows(frame, numbers, read, sample_weight, groups)
        self._check_targets(rows)
        valid = None
        if X_val is not None:
            names = frame.column_names
            separate = self._targets_of(y_val, read)
            valid = fit_rows(read_rows(self, X_val, names), numbers, separate, None, None)
        seed = int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))
        request = SplitRequest(
            0.2 if valid is not None else self.valid, calibration=self.calibration, seed=seed
        )
        data = fit_data(rows, valid, self.options or TabularOptions(), request)
        learner = self._train(data, seed)
        self._columns = tuple(frame.column_names)
        self._set_targets(read)
        self._learner = learner
        self._artefact: Mapping[str, bytes] | None = None
        self.predictor_: Predictor = learner.predictor()
        return self

    def _train(self, data: Any, seed: int) -> Learner:
        choices = {"probe": "off", **(self.choices or {})}
        if self.device is not None:
            choices["device"] = str(self.device)
        learner = Learner(
            data,
            self.model,
            choices=choices,
            training=self.training,
            callbacks=[_NoCheckpoints()],
            seed=seed,
            quiet=not self.verbose,
        )
        with preserve_generators():
            torch.manual_seed(keyed.key(seed, "dropout"))
            learner.fit(self.epochs)
            if len(data.split.calibration):
                _calibrate(learner)
        return learner

    def _check_parameters(self) -> None:
        names = [name for name in MODELS if not name.startswith("collab")]
        if self.model is not None and self.model not in names:
            raise ArgumentError(
                f"model is {self.model!r:.60}. Give None or the name of an architecture. "
                f"{did_you_mean(str(self.model), names)} Train a module of your own with Learner."
            )
        if not (self.choices is None or isinstance(self.choices, Mapping)):
            raise ArgumentError(
                f"choices is {self.choices!r:.60}. Give values of the plan by key: "
                'choices={"lr": 0.01}.'
            )
        if not (self.options is None or isinstance(self.options, TabularOptions)):
            raise ArgumentError(
                f"options is {self.options!r:.60}. Give TabularOptions(…), with the kinds of "
                "columns, their scaling, time or group."
            )

    @abstractmethod
    def _targets_of(self, y: Any, known: ReadTargets | None = None) -> ReadTargets:
        """Return the targets in ``y``; ``known`` are those of the train rows, for ``y_val``."""

    @abstractmethod
    def _check_targets(self, rows: FitRows) -> None:
        """Raise an error if nothing can be learned from the targets."""

    @abstractmethod
    def _set_targets(self, read: ReadTargets) -> None:
        """Set the attributes that describe the targets."""

    # ------------------------------------------------------------ prediction

    def _outputs(self, X: Any) -> Tensor:
        """Return the outputs of the model for rows, before decoding."""
        check_is_fitted(self)
        return model_outputs(self.predictor_, read_rows(self, X, self._columns))

    @property
    def learner_(self) -> Learner:
        """The learner, with its data and history."""
        learner = getattr(self, "_learner", None)
        if learner is None:
            check_is_fitted(self)
            raise AttributeError(
                "This estimator was loaded from a pickle, which contains the model but neither "
                "data nor learner. predictor_ and plan_ are available; fit again for a learner_."
            )
        return learner

    @property
    def plan_(self) -> Plan:
        """Every choice of the training with its reason; ``print`` shows them as a table."""
        check_is_fitted(self)
        learner = getattr(self, "_learner", None)
        if learner is not None:
            return learner.plan
        record = self.predictor_.record
        return Plan.from_json(record.plan if record is not None else {})

    # ------------------------------------------------------------ scikit-learn

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "predictor_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.target_tags.required = True
        tags.target_tags.multi_output = True
        return tags

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments of the constructor; with ``deep`` each choice as "choices__KEY"."""
        found = super().get_params(deep=deep)
        if deep and isinstance(self.choices, Mapping):
            found |= {f"{_NESTED}{name}": value for name, value in self.choices.items()}
        return found

    def set_params(self, **params: Any) -> Self:
        """Set arguments of the constructor; "choices__lr" sets one choice and keeps the others."""
        nested = {
            name.removeprefix(_NESTED): value
            for name, value in params.items()
            if name.startswith(_NESTED)
        }
        super().set_params(**{n: v for n, v in params.items() if not n.startswith(_NESTED)})
        if nested:
            self.choices = {**(self.choices or {}), **nested}
        return self

    def __getstate__(self) -> dict[str, Any]:
        """Return the state for a pickle: the model is the bytes of its export."""
        state: dict[str, Any] = dict(cast("Any", super().__getstate__()))
        learner = state.pop("_learner", None)
        state.pop("predictor_", None)
        if learner is not None:
            state["_artefact"] = artefact_bytes(learner)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        artefact = state.get("_artefact")
        if artefact is not None:
            self.predictor_ = predictor_from_bytes(artefact, self.device)


def _calibrate(learner: Learner) -> None:
    """Calibrate probabilities and intervals; warn if the calibration rows do not allow it."""
    try:
        learner.calibrate(intervals=learner.task.kind != "multi_label")
    except InputError as error:
        warnings.warn(f"Not calibrated: {error}", FlambeauWarning, stacklevel=4)
