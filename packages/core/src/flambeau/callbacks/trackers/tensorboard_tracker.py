"""``TensorBoardTracker``: writes event files for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flambeau.callbacks.trackers.tracker import Outcome, Tracker
from flambeau.training.state import TrainState


class TensorBoardTracker(Tracker):
    """Writes each row of the history to an event file; ``tensorboard --logdir runs`` shows it.

    The plan is in the tabs Text and HParams. A resumed run hides what the interrupted one logged
    after its checkpoint.

    Args:
        folder: Folder of the event files; None uses "tensorboard" in the folder of the run.

    Raises:
        MissingDependencyError: TensorBoard is not installed.

    Example:
        >>> from flambeau.callbacks.trackers import TensorBoardTracker
        >>> Learner(data, folder="runs/a", callbacks=[TensorBoardTracker()])  # doctest: +SKIP
    """

    module = "torch.utils.tensorboard"
    package = "tensorboard"

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        super().__init__()
        self.folder = None if folder is None else Path(folder)
        self._writer: Any = None

    def start(self, state: TrainState, parameters: Mapping[str, Any]) -> str:
        # The saved folder comes last: the run may have been moved, or continue elsewhere.
        of_run = None if state.folder is None else state.folder / "tensorboard"
        folder = str(self.folder or of_run or self.run_id or Path("runs", "tensorboard"))
        step = state.position.step
        self._writer = self.api.SummaryWriter(folder, purge_step=step + 1 if step else None)
        lines = [f"| {name} | {value} |" for name, value in parameters.items()]
        text = "\n".join(["| key | value |", "| --- | --- |", *lines])
        self._writer.add_text("plan", text, step)
        self._write_hparams(parameters)
        self._writer.flush()
        return folder

    def log(self, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._writer.add_scalar(_tag(name), value, step)
        self._writer.flush()

    def finish(self, outcome: Outcome) -> None:
        self._writer.close()
        self._writer = None

    def _write_hparams(self, parameters: Mapping[str, Any]) -> None:
        """Write the plan for the tab HParams into the same file, not into a further run."""
        from torch.utils.tensorboard.summary import hparams  # pyright: ignore[reportUnknownVariableType]

        known = {k: "none" if v is None else v for k, v in parameters.items()}
        for summary in hparams(known, {"valid/loss": 0.0}):  # pyright: ignore[reportUnknownVariableType]
            self._writer.file_writer.add_summary(summary)


def _tag(name: str) -> str:
    """Return the column as a tag: "valid_loss" as "valid/loss", which groups the plots."""
    for part in ("train", "valid"):
        if name.startswith(f"{part}_"):
            return f"{part}/{name.removeprefix(f'{part}_')}"
    return name
