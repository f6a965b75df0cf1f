"""``Planner``: decides while a run is under way which phases it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from flambeau.phases.phase import Phase
from flambeau.training.history import History
from flambeau.training.state import TrainState


class Planner(Protocol):
    """Decides while a run is under way which phases it has (``Learner.fit_auto``)."""

    @property
    def monitor(self) -> str | None:
        """Column of the history by which the best epoch is kept; None keeps the last."""
        ...

    @property
    def mode(self) -> str:
        """Whether ``monitor`` is to be small ("min") or large ("max")."""
        ...

    def next_phases(self, state: TrainState) -> Sequence[Phase]:
        """Asked when a phase is over: all phases of the run, those that are done first.

        A list that ends with the phase that is over ends the run.
        """
        ...

    def tolerance(self, history: History) -> float:
        """How much worse than the best an epoch may score and be kept instead, being later."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: plain values."""
        ...
