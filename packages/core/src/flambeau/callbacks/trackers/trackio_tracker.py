"""``TrackioTracker``: logs to trackio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flambeau.callbacks.trackers.tracker import Outcome, Tracker, folder_name
from flambeau.training.state import TrainState


class TrackioTracker(Tracker):
    """Logs each row of the history to a run of trackio; the plan is its config.

    trackio stores runs on this machine (``TRACKIO_DIR``); ``trackio show`` opens its dashboard. An
    active run of trackio is ended by the start of another one.

    Args:
        project: Name of the project.
        name: Name of the run; None takes the name of the run's folder.
        space_id: A Hugging Face Space that receives the log; None keeps it on this machine.

    Raises:
        MissingDependencyError: trackio is not installed.

    Example:
        >>> from flambeau.callbacks.trackers import TrackioTracker
        >>> tracker = TrackioTracker("pets")  # doctest: +SKIP
    """

    module = "trackio"
    package = "trackio"

    def __init__(
        self, project: str, *, name: str | None = None, space_id: str | None = None
    ) -> None:
        super().__init__()
        self.project, self.name, self.space_id = project, name, space_id
        self._run: Any = None

    def start(self, state: TrainState, parameters: Mapping[str, Any]) -> str:
        name = self.run_id or self.name or folder_name(state)
        self._run = self.api.init(
            project=self.project,
            name=name,
            space_id=self.space_id,
            config=dict(parameters),
            resume="never" if self.run_id is None else "allow",
            embed=False,
        )
        return str(self._run.name)

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._run.log(dict(values), step=step)

    def finish(self, outcome: Outcome) -> None:
        self._run.finish()
        self._run = None
