"""``Inspection``: what the layers of a model did in the watched steps of a training."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from flambeau.checked_arguments import checked_count
from flambeau.errors import explains_arguments
from flambeau.inspect.watch.layer_record import MOST_STEPS, LayerRecord
from flambeau.inspect.watch.layer_watch import LayerWatch
from flambeau.inspect.watch.thresholds import LEAST_STEPS
from flambeau.wording import count_of, format_number

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from flambeau.inspect.watch.verdicts import Verdict


@explains_arguments()
class Inspection:
    """Watches layers in every ``every``-th step; ``learner.inspect`` and ``inspect`` return it.

    Args:
        every: Watch every ``every``-th step; None watches the first ten steps, every tenth step up
            to 100, and every hundredth step after that.

    Raises:
        ArgumentError: ``every`` is not a number.
        InputError: ``every`` is less than 1.
    """

    def __init__(self, every: int | None = None) -> None:
        self.every = every
        self._record = LayerRecord()
        self._watch: LayerWatch | None = None
        self._embeddings: dict[str, Tensor] = {}
        self._unwritten: list[int] = []
        self._verdicts: tuple[object, list[Verdict]] | None = None

    @property
    def every(self) -> int | None:
        """The distance of the watched steps; see the class."""
        return self._every

    @every.setter
    def every(self, every: int | None) -> None:
        self._every = None if every is None else checked_count(every, "every", unit="steps")
        self._stride = 1  # grows in a long run, see LayerRecord.thin_out

    @property
    def record(self) -> LayerRecord:
        """The statistics so far, read from the device."""
        self.read()
        return self._record

    def watches(self, step: int) -> bool:
        """Return whether a step (from 0) is watched."""
        if self._every is not None:
            return step % (self._every * self._stride) == 0
        return step < 10 or (step < 100 and step % 10 == 0) or step % (100 * self._stride) == 0

    def read(self) -> None:
        """Read the watched steps since the last call from the device."""
        watch, record = self._watch, self._record
        if watch is None:
            return
        readings = watch.read()
        record.add(readings)
        record.layers = dict(watch.layers)
        # A parameter that was renamed since has rows under its old name.
        record.weights = {**record.weights, **watch.weights}
        record.notes = list(watch.notes)
        record.last_active = {name: each.cpu() for name, each in watch.last_active.items()}
        self._embeddings = dict(watch.initial_embeddings)
        self._unwritten += [each.step for each in readings]

    def take_unwritten(self) -> list[int]:
        """Return the steps that were read since the last call, whoever read them."""
        found, self._unwritten = self._unwritten, []
        return found

    def thin_out(self) -> bool:
        """Keep fewer steps of a long run, and watch fewer from now on; return whether it did."""
        found = self._record.thin_out()
        if found:
            self._stride *= 2
        return found

    def thin_out_unread(self) -> bool:
        """Do the same with the steps of a long epoch that are still on the device, unread."""
        found = self._watch is not None and self._watch.thin_out(MOST_STEPS)
        if found:
            self._stride *= 2
        return found

    def verdicts(self) -> list[Verdict]:
        """Return what is wrong with which layer, the most important faults first.

        A fault must last for three watched steps, outputs that are not finite for one; the
        thresholds are in ``flambeau.inspect.watch.thresholds``. On a healthy network the list is
        empty.
        """
        from flambeau.inspect.watch.verdicts import find_verdicts

        record = self.record
        state = len(record.steps), max(record.steps, default=0), record.deliberately_frozen
        if self._verdicts is None or self._verdicts[0] != state:
            self._verdicts = state, find_verdicts(record)
        return list(self._verdicts[1])

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Plot histograms of the outputs and gradients of the layers over the steps.

        Args:
            path: File to write (.png, .pdf, .svg); None writes no file.

        Raises:
            InputError: Fewer than two steps were watched.
            MissingDependencyError: matplotlib is not installed.
        """
        from flambeau.inspect.watch.layer_figure import plot_layers

        return plot_layers(self.record, path, first={each.layer for each in self.verdicts()})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write all statistics as JSON Lines; see docs/look_inside.md for the format.

        Raises:
            StorageError: The file cannot be written.
        """
        return self.record.save(path)

    def state_dict(self) -> dict[str, Any]:
        """Return the record and what is needed to continue it: JSON values and tensors."""
        return {
            "record": self.record.state_dict(),
            "stride": self._stride,
            "embeddings": dict(self._embeddings),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what ``state_dict`` returned."""
        self._record = LayerRecord()
        self._record.load_state_dict(state["record"])
        self._stride = int(state["stride"])
        self._verdicts = None
        self._embeddings = dict(state["embeddings"])
        self._watch = None

    def use(self, watch: LayerWatch) -> None:
        """Watch with ``watch`` from now on, and continue the record."""
        self.read()
        watch.continue_from(self._record.layers, self._record.last_active, self._embeddings)
        self._watch = watch

    def release(self) -> None:
        """Read the last steps, and free the model, the optimizers and the copies of weights."""
        self.read()
        self._watch = None

    def __str__(self) -> str:
        return "\n".join([*map(str, self.verdicts()), *self.summary_lines()])

    def summary_lines(self) -> list[str]:
        """Return what was watched, whether no fault was found, and what could not be seen."""
        record = self.record
        called = sum(layer.number > 0 for layer in record.layers.values())
        watched = f"{count_of(called, 'layer')} watched in {count_of(len(record.values), 'step')}"
        enough = len(record.values) >= LEAST_STEPS
        if not enough:
            watched += f": too few for a verdict, which needs {LEAST_STEPS}"
        elif not self.verdicts():
            watched += ": no fault found"
        lines = [f"{watched}."]
        scale = record.noise_scale()
        if scale is not None:
            lines.append(
                f"Gradient noise scale: {format_number(scale)} micro-batches; a larger batch than "
                "that hardly improves a step."
            )
        return [*lines, *record.notes]
