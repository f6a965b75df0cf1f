"""``Checkpointing``: saves the run so that it can be resumed at any step."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Literal

from flambeau.artefact.checkpoint import latest_checkpoint, save_checkpoint
from flambeau.errors import (
    ArgumentError,
    FlambeauError,
    FlambeauWarning,
    InputError,
    NonFiniteError,
    StorageError,
    nearest,
)
from flambeau.training.events import Callback
from flambeau.training.state import TrainState

_ON_ERROR = ("raise", "warn")


class Checkpointing(Callback):
    """Writes checkpoints into the run's folder: every so many seconds, at epoch ends, on Ctrl-C.

    Put it last: what callbacks after it learn from the same event is not in the checkpoint. A run
    without a folder saves nothing.

    Args:
        every_s: Seconds between two checkpoints at step borders; None saves none there.
        at_epoch_end: Whether every epoch ends with one.
        keep: How many of the newest to keep.
        on_error: What a checkpoint that cannot be written does (full disk, read-only place).
            "warn" is a FlambeauWarning and training goes on: it is worth more than one
            checkpoint. "raise" ends the run at this step border, for one that nobody watches.

    Raises:
        InputError: An argument is out of range; ArgumentError: on_error is neither.
        StorageError: While training with ``on_error="raise"``. The model keeps its weights and
            older checkpoints stay.
    """

    every_process = False

    def __init__(
        self,
        every_s: float | None = 120.0,
        at_epoch_end: bool = True,
        keep: int = 2,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        if every_s is not None and not every_s > 0:
            raise InputError(f"every_s is a time in seconds or None, not {every_s}.")
        if keep < 1:
            raise InputError(f"keep must be 1 or more checkpoints, not {keep}.")
        if on_error not in _ON_ERROR:
            raise ArgumentError(f"on_error is {on_error!r}. {nearest(str(on_error), _ON_ERROR)}")
        self.every_s = every_s
        self.at_epoch_end = at_epoch_end
        self.keep = keep
        self.on_error = on_error
        self._saved_at_s = 0.0
        self._saved_step = -1

    def on_fit_start(self, state: TrainState) -> None:
        self._saved_at_s = time.monotonic()
        self._saved_step = -1

    def on_step_end(self, state: TrainState) -> None:
        if self.every_s is not None and time.monotonic() - self._saved_at_s >= self.every_s:
            self._save_if_possible(state)

    def on_epoch_end(self, state: TrainState) -> None:
        if self.at_epoch_end:
            self._save_if_possible(state)

    def on_exception(self, state: TrainState) -> None:
        """Saves where that makes sense, and adds to the exception how to resume."""
        if state.folder is None or state.exception is None:
            return
        why_not = _why_not(state)
        if why_not is None:
            try:
                self._save(state)
            except (FlambeauError, OSError) as error:
                # The exception that ended the run matters more than this one.
                why_not = f"saving failed: {error}".rstrip(".")
        state.exception.add_note(self._how_to_resume(state, why_not))

    def _save_if_possible(self, state: TrainState) -> None:
        try:
            self._save(state)
        except StorageError as error:
            if self.on_error == "raise":
                raise
            self._saved_at_s = time.monotonic()
            warnings.warn(
                f"[checkpoint-not-saved] {error} Training goes on, and the next checkpoint is "
                "tried at its time.",
                FlambeauWarning,
                stacklevel=2,
            )

    def _save(self, state: TrainState) -> None:
        if state.folder is None:
            return
        save_checkpoint(state.folder, state.snapshot(), state.position.step, self.keep)
        self._saved_step = state.position.step
        self._saved_at_s = time.monotonic()

    def _how_to_resume(self, state: TrainState, why_not: str | None) -> str:
        folder = Path(str(state.folder))
        if why_not is None:
            what = f"A checkpoint of step {state.position.step} is in {folder}."
        elif latest_checkpoint(folder) is None:
            return f"There is no checkpoint to resume from: {why_not}."
        elif self._saved_step >= 0:
            what = f"The last checkpoint in {folder} is of step {self._saved_step} ({why_not})."
        else:
            what = f"The last checkpoint in {folder} is older than this run ({why_not})."
        return f"{what} Continue with learner.resume({str(folder)!r})."


def _why_not(state: TrainState) -> str | None:
    """Why a checkpoint of the present state would not be good, or None."""
    if isinstance(state.exception, NonFiniteError):
        return "a resume after this step would leave it out"
    if not state.at_step_border:
        return "the exception came inside a step, whose state cannot be resumed exactly"
    return None
