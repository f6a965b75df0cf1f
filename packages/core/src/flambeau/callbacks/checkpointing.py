"""``Checkpointing``: saves a run so that it can be resumed at any step."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Literal

from flambeau.artefact.checkpoint_files import latest_checkpoint, save_checkpoint
from flambeau.artefact.serialization import check_packable
from flambeau.checked_arguments import checked_count, checked_flag, checked_number
from flambeau.errors import (
    ArgumentError,
    ArtefactError,
    FlambeauError,
    FlambeauWarning,
    NonFiniteError,
    StorageError,
    did_you_mean,
)
from flambeau.training.events import Callback
from flambeau.training.state import TrainState

_ON_ERROR = ("raise", "warn")


class Checkpointing(Callback):
    """Writes checkpoints to the run's folder: at time intervals, at epoch ends, on Ctrl-C.

    Put it last in the list: state that later callbacks change on the same event is not in the
    checkpoint. A run without a folder saves nothing.

    Args:
        every_s: Seconds between two checkpoints, written between steps; None disables them.
        at_epoch_end: Whether a checkpoint is written at the end of every epoch.
        keep: Number of newest checkpoints to keep.
        on_error: What to do if a checkpoint cannot be written (full disk, read-only folder).
            "warn" gives a FlambeauWarning and training continues; the next checkpoint is written
            at its usual time. "raise" ends the run between two steps.

    Raises:
        InputError: An argument is out of range.
        ArgumentError: ``on_error`` is unknown.
        ArtefactError: At the start of a fit, with ``at_epoch_end``: a part of the run's state has a
            type that a checkpoint cannot contain, such as an object from ``get_extra_state``.
        StorageError: During training with ``on_error="raise"``. The model keeps its weights, and
            older checkpoints remain.
    """

    every_process = False

    def __init__(
        self,
        every_s: float | None = 120.0,
        at_epoch_end: bool = True,
        keep: int = 2,
        on_error: Literal["warn", "raise"] = "warn",
    ) -> None:
        if every_s is not None:
            every_s = checked_number(every_s, "every_s (seconds)", above=0)
        keep = checked_count(keep, "keep", unit="checkpoints")
        if on_error not in _ON_ERROR:
            raise ArgumentError(
                f"Unknown on_error={on_error!r}. {did_you_mean(str(on_error), _ON_ERROR)}"
            )
        self.every_s = every_s
        self.at_epoch_end = checked_flag(at_epoch_end, "at_epoch_end")
        self.keep = keep
        self.on_error = on_error
        self._saved_at_s = 0.0
        self._saved_step = -1

    def on_fit_start(self, state: TrainState) -> None:
        self._saved_at_s = time.monotonic()
        self._saved_step = -1
        if state.folder is not None and self.at_epoch_end:
            check_packable(state.snapshot())  # refused now, not after the first epoch
        if state.folder is not None and state.not_resumable_reason and self._saves_regularly:
            warnings.warn(
                "[not-resumable] This run cannot be resumed if it is interrupted: "
                f"{state.not_resumable_reason} Its checkpoints contain the weights, which "
                "learner.load(folder) loads.",
                FlambeauWarning,
                stacklevel=2,
            )

    @property
    def _saves_regularly(self) -> bool:
        return self.at_epoch_end or self.every_s is not None

    def on_step_end(self, state: TrainState) -> None:
        if self.every_s is not None and time.monotonic() - self._saved_at_s >= self.every_s:
            self._save_if_possible(state)

    def on_epoch_end(self, state: TrainState) -> None:
        if self.at_epoch_end:
            self._save_if_possible(state)

    def on_exception(self, state: TrainState) -> None:
        """Save the run if its state is consistent, and add advice on resuming to the exception."""
        if state.folder is None or state.exception is None:
            return
        obstacle = _obstacle(state)
        if obstacle is None:
            try:
                self._save(state)
            except (FlambeauError, OSError) as error:
                # The exception that ended the run matters more than this one.
                obstacle = f"saving failed: {error}".rstrip(".")
        state.exception.add_note(self._how_to_resume(state, obstacle))

    def _save_if_possible(self, state: TrainState) -> None:
        try:
            self._save(state)
        except (StorageError, ArtefactError) as error:
            if self.on_error == "raise":
                raise
            self._saved_at_s = time.monotonic()
            warnings.warn(
                f"[checkpoint-not-saved] {error} Training continues and will try to write the next "
                "checkpoint at its usual time.",
                FlambeauWarning,
                stacklevel=2,
            )

    def _save(self, state: TrainState) -> None:
        if state.folder is None:
            return
        save_checkpoint(state.folder, state.snapshot(), state.position.step, self.keep)
        self._saved_step = state.position.step
        self._saved_at_s = time.monotonic()

    def _how_to_resume(self, state: TrainState, obstacle: str | None) -> str:
        folder = Path(str(state.folder))
        if obstacle is None:
            found = f"A checkpoint of step {state.position.step} is in {folder}."
        elif latest_checkpoint(folder) is None:
            return f"No checkpoint to resume from: the state was not saved, because {obstacle}."
        else:
            saved = f"of step {self._saved_step}" if self._saved_step >= 0 else "of an earlier run"
            found = (
                f"The last checkpoint in {folder} is {saved}; the state at the end was not saved, "
                f"because {obstacle}."
            )
        if state.not_resumable_reason:
            return (
                f"{found} The run cannot be resumed: {state.not_resumable_reason} Load the weights "
                f"of the checkpoint with learner.load({str(folder)!r})."
            )
        return f"{found} Continue with learner.resume({str(folder)!r})."


def _obstacle(state: TrainState) -> str | None:
    """Return why the current state cannot be saved in a checkpoint, or None."""
    if isinstance(state.exception, NonFiniteError):
        return "a resumed run would skip the failed step"
    if not state.at_step_boundary:
        return "the exception was raised inside a step, which cannot be resumed exactly"
    return None
