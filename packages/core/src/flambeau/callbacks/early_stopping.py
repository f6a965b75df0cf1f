"""``EarlyStopping``: ends a run when its score no longer improves."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from flambeau.checked_arguments import checked_count, checked_flag, checked_number
from flambeau.task.metrics import Mode
from flambeau.training.events import Callback
from flambeau.training.optim.controller import checked_column, checked_mode, last_score, mode_of
from flambeau.training.state import TrainState


class EarlyStopping(Callback):
    """Sets ``state.stop_reason`` after ``patience`` consecutive evaluations without improvement.

    The model is evaluated after each epoch or, with ``evaluate_every``, after that many steps. The
    training loop reads ``monitor``, ``mode`` and ``restore_best`` and restores the best weights at
    the end. The best score so far is saved in checkpoints.

    Args:
        monitor: Column of the history whose values are the scores.
        patience: Number of consecutive evaluations without improvement after which the run ends.
        min_delta: Smallest change that counts as an improvement, in the unit of the score.
        restore_best: Whether the model ends with the weights of the best evaluation.
        mode: "min" if lower scores are better, "max" if higher ones are; None asks the metric of
            ``monitor`` (``higher_is_better``).

    Raises:
        InputError: An argument is out of range, or, during the run, ``monitor`` is not a column.
        ArgumentError: An argument has a wrong type; or, at the start of a run, it is not known
            whether higher values of ``monitor`` are better.
    """

    def __init__(
        self,
        monitor: str = "valid_loss",
        patience: int = 3,
        min_delta: float = 0.0,
        restore_best: bool = True,
        mode: Mode | None = None,
    ) -> None:
        self.monitor = checked_column(monitor)
        self.patience = checked_count(patience, "patience", unit="evaluations")
        self.min_delta = checked_number(min_delta, "min_delta", at_least=0)
        self.restore_best = checked_flag(restore_best, "restore_best")
        self.mode: Mode | None = checked_mode(mode)
        self.best: float | None = None
        self.best_epoch = 0
        self.bad_epochs = 0

    def on_fit_start(self, state: TrainState) -> None:
        mode_of(self.monitor, state.history.modes, self.mode)  # raises if it is unknown
        position = state.position
        # A resumed run starts inside a phase with its saved state; a new fit starts from scratch.
        if position.phase == position.phase_epoch == position.epoch_step == 0:
            self.best, self.best_epoch, self.bad_epochs = None, 0, 0
        elif self.bad_epochs >= self.patience:
            # It had ended the run, which was then killed before it finished.
            self._stop(state)

    def on_epoch_end(self, state: TrainState) -> None:
        score = last_score(state.history, self.monitor)
        if self._improves(score, mode_of(self.monitor, state.history.modes, self.mode)):
            at = state.position.step if state.evaluates_by_steps else state.position.epoch
            self.best, self.best_epoch, self.bad_epochs = score, at, 0
            return
        self.bad_epochs += 1
        if self.bad_epochs >= self.patience:
            self._stop(state)

    def _stop(self, state: TrainState) -> None:
        if state.stop_reason is None:
            best = "every score is NaN" if self.best is None else f"best {self.best:.4g}"
            unit, at = "epochs", f" in epoch {self.best_epoch}"
            if state.evaluates_by_steps:
                unit, at = "evaluations", f" at step {self.best_epoch}"
            where = at if self.best is not None else ""
            state.stop_reason = (
                f"{self.monitor} has not improved for {self.bad_epochs} {unit} ({best}{where})"
            )

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "best_epoch": self.best_epoch, "bad_epochs": self.bad_epochs}

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        self.best = values["best"]
        self.best_epoch = values["best_epoch"]
        self.bad_epochs = values["bad_epochs"]

    def _improves(self, score: float, mode: Mode) -> bool:
        # Comparisons with NaN are false, so NaN is never an improvement.
        if self.best is None:
            return not math.isnan(score)
        if mode == "min":
            return score < self.best - self.min_delta
        return score > self.best + self.min_delta
