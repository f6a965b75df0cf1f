"""``Planner``: decides during a run which phases follow."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from flambeau.phases.phase import Phase
from flambeau.task.metrics import Mode
from flambeau.training.history import History
from flambeau.training.state import TrainState


class Planner(Protocol):
    """An object that decides during a run which phases follow (``Learner.fit_auto``)."""

    @property
    def monitor(self) -> str | None:
        """Column of the history that selects the best epoch; None keeps the last epoch."""
        ...

    @property
    def mode(self) -> Mode:
        """Whether smaller ("min") or larger ("max") values of ``monitor`` are better."""
        ...

    def next_phases(self, state: TrainState) -> Sequence[Phase]:
        """Return all phases of the run, finished ones first; called when a phase has ended.

        If the phase that has just ended is the last one of the list, the run ends.
        """
        ...

    def tolerance(self, history: History) -> float:
        """Return by how much a later epoch may score worse than the best one and still be kept."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the planner's state for a checkpoint, as plain values."""
        ...
