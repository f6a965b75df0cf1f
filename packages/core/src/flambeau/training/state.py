"""``TrainState``: the state of a run that callbacks may read, with position and step results."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.data.loader import StepCounts
from flambeau.phases.phase import Phase
from flambeau.task.task import StepContext, Task
from flambeau.training.history import History

if TYPE_CHECKING:
    from flambeau.training.options import TrainingOptions
    from flambeau.training.step_intervals import Intervals


class Meaning(Protocol):
    """What inputs and outputs of a model mean: vocabulary, classes, units."""

    def settings(self) -> dict[str, Any]:
        """Return JSON values and tensors."""
        ...

    def check_settings(self, saved: Mapping[str, Any], path: object) -> None:
        """Raise an error if saved settings differ from these."""
        ...


@dataclass(slots=True)
class StepResult:
    """The return value of a ``train_step``.

    Attributes:
        loss: Mean loss of the step, a detached 0-d tensor on the device.
        weight: Weight of the step in the mean of the epoch: a number, or a 0-d tensor on the device
            if the value is not known without reading it.
    """

    loss: Tensor
    weight: float | Tensor


@dataclass(slots=True)
class Position:
    """The position of a run: the number of finished epochs and steps.

    In a run with ``evaluate_every`` the interval between two evaluations counts as an epoch.

    Attributes:
        phase: Index of the phase.
        phase_epoch: Epochs finished in this phase.
        epoch_step: Optimizer steps finished in this epoch.
        epoch: Epochs finished since the run began, over all phases; shuffling depends on it.
        step: Optimizer steps finished since the run began.
    """

    phase: int = 0
    phase_epoch: int = 0
    epoch_step: int = 0
    epoch: int = 0
    step: int = 0


@dataclass(slots=True)
class TrainState:
    """The state of a run. Callbacks read it and may set ``stop_reason``.

    Attributes:
        model: The model that is trained.
        task: Loss, metrics, decoding.
        phases: The list of phases of this fit.
        optimizers: Optimizers by name; "main" unless an optimizer factory uses other names.
        device: The device of the model.
        seed: Seed of every random draw outside the model.
        step_counts: Number of optimizer steps of an epoch, by epoch.
        position: The number of finished phases, epochs and steps.
        history: Rows and step losses so far.
        values: Named values of the current step: "lr", "weight_decay", "momentum" and
            the values of the task.
        context: The context argument of ``task.forward`` in training.
        gradient_factor: By what the gradients of this step were multiplied between the backward
            passes and ``on_gradients_ready``: the inverse of the loss scale of fp16, or of a weight
            that is known only after the backward passes.
        last: Result of the last step, on the device.
        scores: Result of the last evaluation.
        stop_reason: Set it to a string to end the run after the current step.
        exception: The exception that ended the run, for ``on_exception``.
        snapshot: Returns the complete state of the run as a tree of JSON values and tensors, which
            checkpointing saves.
        at_step_boundary: False while a step is computed. Weights, generators and position are
            consistent only between steps.
        folder: The folder of the run for checkpoints and logs; None if nothing is written.
        not_resumable_reason: Why a checkpoint of the run cannot be resumed; empty if it can.
        intervals: The intervals between evaluations if they are counted in steps, else None.
        plan: Returns the plan of the run as JSON values (``Plan.to_json``); empty without a plan.
        data: Values that identify the data (``Data.fingerprint``).
        options: The training options.
    """

    model: nn.Module
    task: Task
    phases: Sequence[Phase]
    optimizers: Mapping[str, Optimizer]
    device: torch.device
    seed: int
    step_counts: StepCounts
    history: History
    snapshot: Callable[[], dict[str, Any]]
    position: Position = field(default_factory=Position)
    values: dict[str, float] = field(default_factory=dict[str, float])
    context: StepContext = field(default_factory=StepContext)
    gradient_factor: float | Tensor = 1.0
    last: StepResult | None = None
    scores: Mapping[str, float] = field(default_factory=dict[str, float])
    stop_reason: str | None = None
    exception: BaseException | None = None
    at_step_boundary: bool = True
    folder: Path | None = None
    not_resumable_reason: str = ""
    intervals: Intervals | None = None
    plan: Callable[[], Mapping[str, Any]] = dict
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    options: TrainingOptions | None = None

    @property
    def phase(self) -> Phase:
        """The current phase."""
        return self.phases[min(self.position.phase, len(self.phases) - 1)]

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in the current epoch."""
        return self.step_counts.of(self.position.epoch)

    @property
    def phase_epochs(self) -> int:
        """Epochs of the current phase, each of which ends with an evaluation."""
        return self._epochs_of(min(self.position.phase, len(self.phases) - 1))

    @property
    def evaluates_by_steps(self) -> bool:
        """Whether evaluations follow after a number of steps instead of after each epoch."""
        return self.intervals is not None

    @property
    def phase_step(self) -> int:
        """Optimizer steps finished in this phase."""
        position = self.position
        first = position.epoch - position.phase_epoch
        return self.step_counts.between(first, position.epoch) + position.epoch_step

    @property
    def same_modes_since(self) -> int:
        """Index of the first phase since which the same layers have been trained in the same modes.

        A run with a time budget has a phase for each evaluation.
        """
        index = min(self.position.phase, len(self.phases) - 1)
        while index > 0 and _have_same_modes(self.phases[index - 1], self.phases[index]):
            index -= 1
        return index

    @property
    def modes_end(self) -> bool:
        """Whether no later phase trains the same layers in the same modes after this one."""
        index = min(self.position.phase, len(self.phases) - 1)
        after = self.phases[index + 1 : index + 2]
        return not after or not _have_same_modes(self.phases[index], after[0])

    @property
    def steps_in_same_modes(self) -> int:
        """Optimizer steps finished since the phase ``same_modes_since`` began."""
        position = self.position
        earlier = sum(map(self._epochs_of, range(self.same_modes_since, position.phase)))
        first = position.epoch - position.phase_epoch - earlier
        return self.step_counts.between(first, position.epoch) + position.epoch_step

    @property
    def phase_steps(self) -> int:
        """Optimizer steps of this phase, over all its epochs."""
        first = self.position.epoch - self.position.phase_epoch
        return self.step_counts.between(first, first + self.phase_epochs)

    @property
    def fit_step(self) -> int:
        """Optimizer steps finished since this fit began, out of ``total_steps``."""
        first, position = self.first_epoch, self.position
        return self.step_counts.between(first, position.epoch) + position.epoch_step

    @property
    def total_steps(self) -> int:
        """Optimizer steps of this fit, over all its phases."""
        first = self.first_epoch
        epochs = sum(map(self._epochs_of, range(len(self.phases))))
        return self.step_counts.between(first, first + epochs)

    @property
    def first_epoch(self) -> int:
        """The first epoch of this fit."""
        position = self.position
        earlier = sum(map(self._epochs_of, range(position.phase)))
        return position.epoch - position.phase_epoch - earlier

    def _epochs_of(self, index: int) -> int:
        if self.intervals is not None:
            return self.intervals.counts[index]
        return self.phases[index].epochs or 0


def _have_same_modes(one: Phase, other: Phase) -> bool:
    return one.trainable == other.trainable and one.bn == other.bn
