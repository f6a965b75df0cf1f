"""``TrainState``: everything that a callback may read, and where a run stands."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.phases.phase import Phase
from flambeau.task.task import StepContext, Task
from flambeau.training.history import History


@dataclass(slots=True)
class StepResult:
    """What a ``train_step`` returns.

    Attributes:
        loss: Mean loss of the step, a detached 0-d tensor on the device.
        weight: How much the step counts in the epoch's mean: a number, or a 0-d tensor where
            only the device knows it.
    """

    loss: Tensor
    weight: float | Tensor


@dataclass(slots=True)
class Position:
    """Where a run stands: what the loop has consumed, so a resume continues with the next step.

    Attributes:
        phase: Index of the phase.
        phase_epoch: Epochs finished in this phase.
        epoch_step: Optimizer steps finished in this epoch.
        epoch: Epochs finished since the run began, over all phases; keys shuffling.
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
        model: The model as it is trained.
        task: Loss, metrics, decoding.
        phases: The list of phases of this fit.
        optimizers: By name; "main" unless the optimizer factory says otherwise.
        device: Where the model is.
        seed: Key of every random draw outside the model.
        steps_per_epoch: Optimizer steps in an epoch.
        position: Where the run stands.
        history: Rows and step losses so far.
        values: Named values of the current step: "lr", "weight_decay", "momentum", the task's.
        context: What the task's forward gets while training.
        last: Result of the last step, on the device.
        scores: Result of the last evaluation.
        stop_reason: Set it to end the run at the next step border.
        exception: What was raised, for ``on_exception``.
        snapshot: Gives a complete picture of the run as a tree of JSON values and tensors;
            checkpointing saves it.
        at_step_border: False while a step is being computed: weights, generators and position
            belong together only at a border.
        folder: The run's folder for checkpoints and logs, or None when nothing is written.
    """

    model: nn.Module
    task: Task
    phases: Sequence[Phase]
    optimizers: Mapping[str, Optimizer]
    device: torch.device
    seed: int
    steps_per_epoch: int
    history: History
    snapshot: Callable[[], dict[str, Any]]
    position: Position = field(default_factory=Position)
    values: dict[str, float] = field(default_factory=dict[str, float])
    context: StepContext = field(default_factory=StepContext)
    last: StepResult | None = None
    scores: Mapping[str, float] = field(default_factory=dict[str, float])
    stop_reason: str | None = None
    exception: BaseException | None = None
    at_step_border: bool = True
    folder: Path | None = None

    @property
    def phase(self) -> Phase:
        """The phase the run is in."""
        return self.phases[min(self.position.phase, len(self.phases) - 1)]

    @property
    def fit_step(self) -> int:
        """Optimizer steps finished of those that ``total_steps`` counts: since this fit began."""
        position = self.position
        earlier = sum(phase.epochs for phase in self.phases[: position.phase])
        return self.steps_per_epoch * (earlier + position.phase_epoch) + position.epoch_step

    @property
    def total_steps(self) -> int:
        """Optimizer steps of this fit, over all its phases."""
        return self.steps_per_epoch * sum(phase.epochs for phase in self.phases)
