"""``MLflowTracker``: logs to MLflow."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from flambeau.callbacks.trackers.tracker import Outcome, Tracker, folder_name
from flambeau.training.state import TrainState

_LONGEST = 500  # characters of a parameter that every MLflow server takes
_MOST = 100  # parameters in one request
_STATUS = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}


class MLflowTracker(Tracker):
    """Logs each row of the history to a run of MLflow; the plan is its parameters.

    MLflow's parameters cannot change: those of the first fit stay if the learner trains further.
    The active run of ``mlflow.start_run`` is neither used nor changed.

    Args:
        experiment: Name of the experiment; it is created if it does not exist.
        name: Name of the run; None takes the name of the run's folder.
        tracking_uri: Where MLflow stores runs, such as "sqlite:///mlflow.db" or the address of a
            server; None takes MLflow's setting (``MLFLOW_TRACKING_URI``).

    Raises:
        MissingDependencyError: MLflow is not installed.

    Example:
        >>> from flambeau.callbacks.trackers import MLflowTracker
        >>> tracker = MLflowTracker("pets", tracking_uri="sqlite:///mlflow.db")  # doctest: +SKIP
    """

    module = "mlflow"
    package = "mlflow"

    def __init__(
        self, experiment: str, *, name: str | None = None, tracking_uri: str | None = None
    ) -> None:
        super().__init__()
        self.experiment, self.name, self.tracking_uri = experiment, name, tracking_uri
        self._client: Any = None

    def start(self, state: TrainState, parameters: Mapping[str, Any]) -> str:
        self._client = self.api.MlflowClient(self.tracking_uri)
        if self.run_id is not None:
            self._client.update_run(self.run_id, status="RUNNING")
            return self.run_id
        found = self._client.get_experiment_by_name(self.experiment)
        if found is None:
            experiment = self._client.create_experiment(self.experiment)
        else:
            experiment = found.experiment_id
        name = self.name or folder_name(state)
        # Kept before the parameters are written: if that fails, the run is closed by its id.
        self.run_id = str(self._client.create_run(experiment, run_name=name).info.run_id)
        entities = self.api.entities
        params = [
            entities.Param(_key(key), str(value)[:_LONGEST]) for key, value in parameters.items()
        ]
        for start in range(0, len(params), _MOST):
            self._client.log_batch(self.run_id, params=params[start : start + _MOST])
        return self.run_id

    def log(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)  # milliseconds
        metric = self.api.entities.Metric
        metrics = [metric(_key(name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics)

    def finish(self, outcome: Outcome) -> None:
        self._client.set_terminated(self.run_id, _STATUS[outcome])
        self._client = None


def _key(name: str) -> str:
    """Return a name with only the characters that MLflow takes."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)
