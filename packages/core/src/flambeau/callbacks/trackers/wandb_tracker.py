"""``WandbTracker``: logs to Weights & Biases."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from flambeau.callbacks.trackers.tracker import Outcome, Tracker, folder_name
from flambeau.training.state import TrainState


class WandbTracker(Tracker):
    """Logs each row of the history to a run of Weights & Biases; the plan is its config.

    A run that you have started yourself (``wandb.init``) is used and stays open. Its steps may be
    ahead of those of the training, so the number of optimizer steps is logged there as the value
    "step", which is the x axis of the logged columns. A resumed run continues the one with the same
    id; offline it makes a second folder with this id, which ``wandb sync`` joins.

    Args:
        project: Name of the project.
        name: Name of the run; None takes the name of the run's folder.
        mode: "online", "offline" (files in ``folder``, to be sent with ``wandb sync``) or
            "disabled"; None takes WANDB_MODE, or "online".
        folder: Where the folder "wandb" is created; None is the current folder.

    Raises:
        MissingDependencyError: wandb is not installed.

    Example:
        >>> from flambeau.callbacks.trackers import WandbTracker
        >>> tracker = WandbTracker("pets", mode="offline")  # doctest: +SKIP
    """

    module = "wandb"
    package = "wandb"

    def __init__(
        self,
        project: str,
        *,
        name: str | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self.project, self.name, self.mode, self.folder = project, name, mode, folder
        self._run: Any = None
        self._is_own = True
        self._defined: set[str] = set()  # columns with the x axis "step"

    def start(self, state: TrainState, parameters: Mapping[str, Any]) -> str:
        given = self.api.run
        self._is_own = given is None
        self._defined = set()
        self._run = given if given is not None else self._init(state)
        self._run.config.update(dict(parameters), allow_val_change=True)
        return str(self._run.id)

    def log(self, values: Mapping[str, float], step: int) -> None:
        if self._is_own:
            self._run.log(dict(values), step=step)
            return
        # wandb drops a row with a step below the last one of the run, such as the first rows of a
        # second learner.
        for name in values.keys() - self._defined:
            self._run.define_metric(name, step_metric="step")
        self._defined |= values.keys()
        self._run.log({**values, "step": step})

    def finish(self, outcome: Outcome) -> None:
        run, self._run = self._run, None
        if self._is_own and run is not None:
            run.finish(exit_code=0 if outcome == "finished" else 1)

    def _init(self, state: TrainState) -> Any:
        if self.folder is not None:
            os.makedirs(self.folder, exist_ok=True)  # else wandb writes to a temporary folder
        mode = self.mode or os.environ.get("WANDB_MODE")
        # Offline the server cannot be asked for the earlier part; wandb would warn of the argument.
        resume = "allow" if self.run_id is not None and mode in (None, "online") else None
        return self.api.init(
            project=self.project,
            name=self.name or folder_name(state),
            id=self.run_id,
            resume=resume,
            mode=self.mode,
            dir=None if self.folder is None else str(self.folder),
        )
