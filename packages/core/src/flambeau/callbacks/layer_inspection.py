"""``LayerInspection``: watches the layers of a model in single steps of a fit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flambeau.callbacks.progress_bar import ProgressBar
from flambeau.distributed import processes
from flambeau.errors import FlambeauWarning, StorageError
from flambeau.inspect.watch.inspection import Inspection
from flambeau.inspect.watch.layer_record import FILE_NAME
from flambeau.inspect.watch.layer_watch import LayerWatch
from flambeau.task.task_module import trained_module
from flambeau.training.events import Callback
from flambeau.training.state import TrainState


class LayerInspection(Callback):
    """Records statistics of all layers in the watched steps; ``learner.inspect`` creates it.

    Nothing is read from the device within an epoch. At its end the steps are appended to
    ``inspect.jsonl`` in the run's folder, and new verdicts are printed. The record is saved in
    checkpoints.

    Args:
        every: As for ``Inspection``.
        quiet: Whether to print no verdicts.

    Attributes:
        inspection: The record of the watched steps.
        writes: Whether to write the file: if the user named a folder, or continues a run in one.
    """

    every_process = False

    def __init__(self, every: int | None = None, *, quiet: bool = False) -> None:
        self.inspection = Inspection(every)
        self._quiet = quiet
        self._printed: set[tuple[str, str]] = set()
        self.writes = True
        self._watch: LayerWatch | None = None
        self._stale = True

    def on_fit_start(self, state: TrainState) -> None:
        group = processes.current()
        n_ranks = 1 if group is None else group.world_size
        self._watch = LayerWatch(state.model, trained_module(state.model, state.task), n_ranks)
        self.inspection.use(self._watch)
        self._stale = True

    def on_phase_start(self, state: TrainState) -> None:
        self.inspection.record.deliberately_frozen = state.phase.trainable is not None

    def on_step_start(self, state: TrainState) -> None:
        if self._watch is not None and self.inspection.watches(state.position.step):
            self._watch.start_step(state.position.step)

    def on_gradients_ready(self, state: TrainState) -> None:
        if self._watch is not None:
            self._watch.gradients_ready(state.gradient_factor)

    def on_step_end(self, state: TrainState) -> None:
        if self._watch is not None and self._watch.is_watching:
            self._watch.end_step(state.optimizers.values(), state.values)
            self.inspection.thin_out_unread()

    def on_epoch_end(self, state: TrainState) -> None:
        self._read()
        self._write(state)
        self._print()

    def on_fit_end(self, state: TrainState) -> None:
        self._release()
        self._write(state)

    def on_exception(self, state: TrainState) -> None:
        if self._watch is not None:
            self._watch.cancel()
        self._release()
        self._write(state)
        self._print()

    def state_dict(self) -> dict[str, Any]:
        self._read()
        return self.inspection.state_dict()

    def load_state_dict(self, values: Mapping[str, Any]) -> None:
        self.inspection.load_state_dict(values)

    def _read(self) -> None:
        self.inspection.read()
        self._stale |= self.inspection.thin_out()

    def _print(self) -> None:
        """Print the verdicts that were not printed before."""
        for verdict in () if self._quiet else self.inspection.verdicts():
            key = verdict.kind, verdict.layer
            if key not in self._printed:
                self._printed.add(key)
                ProgressBar.write_line(f"inspect: {verdict}")

    def _release(self) -> None:
        self._read()
        self.inspection.release()
        self._watch = None

    def _write(self, state: TrainState) -> None:
        if not self.writes or state.folder is None:
            return
        record, path = self.inspection.record, Path(state.folder) / FILE_NAME
        new = self.inspection.take_unwritten()
        try:
            if self._stale or not path.exists():
                record.save(path)
            elif new:
                record.append(path, new)
            self._stale = False
        except StorageError as error:
            self._stale = True  # the next epoch writes all steps
            warnings.warn(
                f"[inspect-not-written] {error} Training continues.", FlambeauWarning, stacklevel=2
            )
