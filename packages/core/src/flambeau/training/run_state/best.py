"""``BestWeights``: a copy of the weights with the best score, restored at the end of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol, cast

from torch import nn

from flambeau.errors import ArgumentError, did_you_mean
from flambeau.task.metrics import Mode
from flambeau.training.optim.averaging import TriggeredAverage
from flambeau.training.optim.controller import ReduceOnPlateau, mode_of
from flambeau.training.run_state.module_state import copied_state, load_state

if TYPE_CHECKING:
    from flambeau.training.options import TrainingOptions
    from flambeau.training.planner import Planner


class RestoresBest(Protocol):
    """A callback that restores the best epoch at the end (early stopping)."""

    monitor: str
    mode: Mode | None
    restore_best: bool


def best_monitor(
    keep_best: str | None, callbacks: Iterable[object], modes: Mapping[str, Mode]
) -> tuple[str, Mode] | None:
    """Return the column by which the user selects the best epoch, and "min" or "max".

    Args:
        keep_best: The training option ``keep_best``.
        callbacks: The callbacks; those with ``restore_best`` select by their ``monitor``.
        modes: The known directions of columns (``History.modes``).

    Returns:
        None if neither the option nor a callback selects the best epoch.

    Raises:
        ArgumentError: Option and callbacks select by different columns or directions, or it is not
            known whether smaller or larger values are better.
    """
    found: dict[str, tuple[str, Mode]] = {}
    if keep_best is not None:
        found[f"keep_best={keep_best!r}"] = (keep_best, mode_of(keep_best, modes))
    for callback in callbacks:
        if getattr(callback, "restore_best", False):
            restoring = cast("RestoresBest", callback)
            monitor, mode = restoring.monitor, restoring.mode
            chosen = mode_of(monitor, modes, mode)
            given = f"{monitor!r}" if mode is None else f"{monitor!r}, mode={mode!r}"
            found[f"{type(callback).__name__}({given})"] = (monitor, chosen)
    if len(set(found.values())) > 1:
        one = next(iter(found))
        other = next(name for name, chosen in found.items() if chosen != found[one])
        raise ArgumentError(
            f"{one} and {other} both select the epoch whose weights the model ends with. Only "
            "one of them may: give restore_best=False to the early stopping that should only end "
            "the run, or omit keep_best."
        )
    return next(iter(found.values()), None)


def run_monitor(
    options: TrainingOptions,
    callbacks: Iterable[object],
    planner: Planner | None,
    modes: Mapping[str, Mode],
) -> tuple[str | None, Mode]:
    """Return the column of the history that selects the best epoch of a run, and "min" or "max".

    The user's choice takes precedence over the planner's.

    Raises:
        ArgumentError: The user's choices contradict each other, or it is not known whether smaller
            or larger values of the column are better.
    """
    for controller in options.controllers:
        if isinstance(controller, ReduceOnPlateau):
            mode_of(controller.monitor, modes, controller.mode)
    if isinstance(options.average, TriggeredAverage):
        mode_of(options.average.monitor, modes, options.average.mode)
    chosen = best_monitor(options.keep_best, callbacks, modes)
    if chosen is not None or planner is None:
        return chosen or (None, "min")
    return planner.monitor, planner.mode


class BestWeights:
    """The weights of the epoch with the best value of a column of the history.

    Args:
        monitor: The column ("valid_loss"), or None to keep no weights.
        mode: "min" or "max".

    Attributes:
        epoch: The epoch of the kept weights, as numbered in the history; None if unknown.
        step: The optimizer step of the kept weights; None if unknown.
    """

    def __init__(self, monitor: str | None, mode: Mode = "min") -> None:
        self.monitor, self.mode = monitor, mode
        self.epoch: int | None = None
        self.step: int | None = None
        self._score = math.inf
        self._weights: dict[str, dict[str, Any]] = {}

    @property
    def found(self) -> bool:
        """Whether there are weights to restore."""
        return bool(self._weights)

    def update(
        self, model: nn.Module, scores: Mapping[str, float], tolerance: float | None = None
    ) -> None:
        """Copy the weights if the score is the best so far; NaN is never the best.

        Args:
            model: The model that was evaluated.
            scores: Scores by column, and "epoch" and "step" if known.
            tolerance: By how much a later epoch may score worse than the best one and still be
                kept; None keeps the first of epochs with equal scores.
        """
        if self.monitor is None:
            return
        if self.monitor not in scores:
            raise ArgumentError(
                f"The best epoch is selected by {self.monitor!r}, but the history has no such "
                f"column. {did_you_mean(self.monitor, scores)}"
            )
        score = scores[self.monitor] * (1 if self.mode == "min" else -1)
        if score < self._score or (tolerance is not None and score <= self._score + tolerance):
            self._score = min(score, self._score)
            self.epoch = int(scores["epoch"]) if "epoch" in scores else None
            self.step = int(scores["step"]) if "step" in scores else None
            self._weights = copied_state(model)

    def restore(self, model: nn.Module) -> None:
        """Write the best weights into the model."""
        load_state(model, self._weights)
        self._weights = {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint."""
        return {
            "score": self._score,
            "weights": self._weights,
            "epoch": self.epoch,
            "step": self.step,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned."""
        self._score, self._weights = state["score"], dict(state["weights"])
        self.epoch = state.get("epoch")  # earlier releases did not write these two
        self.step = state.get("step")
