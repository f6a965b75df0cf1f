"""``Intervals``: the steps between two evaluations, where they are counted in steps.

The loop runs an interval like an epoch: it ends with an evaluation and a row of the history. The
batches are those of the ordinary epochs, in the same order and groups.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, StepCounts, has_length
from flambeau.errors import InputError
from flambeau.phases.phase import Phase
from flambeau.training.accumulation import grouped_batches

if TYPE_CHECKING:
    from flambeau.task.task import StepContext
    from flambeau.training.state import Position


class Intervals:
    """Divides the steps of a run's phases into intervals, and reads their batches.

    The iterator over the train batches stays open from one interval to the next, so a loader that
    cannot start inside an epoch works too, and an interval costs what an epoch's evaluation costs.
    A step never uses batches of two epochs, and the carried state of a model is reset where an
    epoch of the train set starts.

    Args:
        train: The train loader.
        accumulate: Batches in a step.
        phases: The phases of the run.
        first_epoch: Epoch of the train set, and of the loop, with which the run starts.

    Attributes:
        counts: Number of intervals of each phase.

    Raises:
        InputError: The loader has no length, and a phase is measured in epochs.
    """

    def __init__(
        self, train: Loader, accumulate: int, phases: Sequence[Phase], first_epoch: int
    ) -> None:
        self.first_epoch = first_epoch
        self._train, self._accumulate = train, accumulate
        self._epochs = StepCounts.of_loader(train, accumulate) if has_length(train) else None
        self._skipped = 0 if self._epochs is None else self._epochs.between(0, first_epoch)
        self._starts = [0]  # of the intervals, in steps of the run
        self.counts: list[int] = []
        for phase in phases:
            self._divide(phase)
        self._current, self._current_start = first_epoch, 0
        self._stream: Generator[list[Batch]] | None = None
        self._read = -1  # steps of the run whose batches were read

    def _divide(self, phase: Phase) -> None:
        start = self._starts[-1]
        steps, every = phase.steps, phase.evaluate_every
        if steps is None or every is None:
            if self._epochs is None:
                raise _no_length(phase)
            first, _ = self._epochs.find(self._skipped + start)
            if steps is None:
                steps = self._epochs.between(first, first + (phase.epochs or 0))
            every = every or max(1, self._epochs.of(first))
        ends = [*range(start + every, start + steps, every), start + steps]
        self._starts.extend(ends)
        self.counts.append(len(ends))

    def steps_in(self, epoch: int) -> int:
        """Return the steps of an interval; 0 outside the run."""
        index = epoch - self.first_epoch
        if not 0 <= index < len(self._starts) - 1:
            return 0
        return self._starts[index + 1] - self._starts[index]

    def data_epoch(self, position: Position) -> int:
        """Return the epoch of the train set at a position: that of the interval's last step."""
        if self._epochs is None:
            return self._current
        done = self._done(position)
        return self._epochs.find(self._skipped + done - (position.epoch_step > 0))[0]

    def spans_epoch(self, position: Position) -> bool:
        """Return whether an interval is at least as long as an epoch of the train set."""
        if self._epochs is None:
            return False
        return self.steps_in(position.epoch) >= self._epochs.of(self.data_epoch(position))

    def epochs_done(self, position: Position) -> float | int:
        """Return the finished epochs of the train set, with the fraction of the current one."""
        if self._epochs is None:
            return self._current
        epoch, step = self._epochs.find(self._skipped + self._done(position))
        return epoch + step / self._epochs.of(epoch) if step else epoch

    def next_epoch(self, position: Position) -> int:
        """Return the first epoch of the train set of which no batch was used."""
        if self._epochs is None:
            return self._current + (self._read > 0)
        done = self._done(position)
        epoch, step = self._epochs.find(self._skipped + done)
        return epoch + (step > 0)

    def grouped(self, position: Position, context: StepContext) -> Iterator[list[Batch]]:
        """Yield the micro-batches of the remaining steps of an interval.

        Args:
            position: The position of the run; it is read once.
            context: Its epoch and carried state follow the epochs of the train set.
        """
        done = self._done(position)
        left = self.steps_in(position.epoch) - position.epoch_step
        context.epoch = self.data_epoch(position)
        if self._stream is None or self._read != done:
            self.close()
            self._stream = self._groups(*self._place(done), context)
            self._read = done
        for _ in range(left):
            group = next(self._stream)
            self._read += 1
            yield group

    def place_of(self, epoch: int, epoch_step: int) -> tuple[int, int]:
        """Return the epoch of the train set, and the step in it, of a step of an interval."""
        return self._place(self._starts[epoch - self.first_epoch] + epoch_step)

    def close(self) -> None:
        """End the iteration over the train batches."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _done(self, position: Position) -> int:
        index = min(position.epoch - self.first_epoch, len(self._starts) - 1)
        return self._starts[index] + position.epoch_step

    def _place(self, step: int) -> tuple[int, int]:
        """Return the epoch of the train set and the step in it of a step of the run."""
        if self._epochs is None:  # of the current epoch, as an earlier one cannot be read again
            return self._current, max(0, step - self._current_start)
        return self._epochs.find(self._skipped + step)

    def _groups(self, epoch: int, step: int, context: StepContext) -> Generator[list[Batch]]:
        while True:
            self._current = context.epoch = epoch
            self._current_start = max(0, self._read)
            if not step:
                context.carry = None
            n = 0
            for group in grouped_batches(self._train, self._accumulate, epoch, step):
                n += 1
                yield group
            self._check(epoch, step + n)
            epoch, step = epoch + 1, 0

    def _check(self, epoch: int, found: int) -> None:
        """Check the steps of an epoch that has ended: the places of all later steps depend on it.

        Raises:
            InputError: The loader ended too early.
        """
        promised = self._epochs.of(epoch) if self._epochs is not None else max(1, found)
        if found != promised:
            raise InputError(
                f"The train loader has batches for {found} steps in epoch {epoch}, but promised "
                f"{promised}. len(), steps_per_epoch or steps_in(epoch) must be the number of "
                "batches."
            )


def count_steps_of(
    phases: Sequence[Phase], train: Loader, accumulate: int = 1, first_epoch: int = 0
) -> int:
    """Return the optimizer steps of phases that start with an epoch.

    Epochs of unknown length count 0.
    """
    steps = sum(phase.steps or 0 for phase in phases)
    epochs = sum(phase.epochs or 0 for phase in phases)
    if not epochs or not has_length(train):
        return steps
    counts = StepCounts.of_loader(train, accumulate)
    return steps + counts.between(first_epoch, first_epoch + epochs)


def _no_length(phase: Phase) -> InputError:
    what = f"epochs={phase.epochs}" if phase.steps is None else "no evaluate_every"
    return InputError(
        f"The phase {phase.name!r} has {what}, but the train loader has no len(), so the steps of "
        "an epoch are not known. Train by steps: learner.fit(steps=10_000, evaluate_every=500), or "
        "Phase(steps=…) for each phase; or define __len__ (batches in an epoch)."
    )
