"""``Update``: from gradients to new weights: unscale, clip, guard, step, clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, did_you_mean
from flambeau.training.nonfinite.guard import NonFiniteGuard, StepRecord
from flambeau.training.optim.clip import clip_gradients
from flambeau.training.optim.fused_step import OptimizerStep
from flambeau.training.optim.precision import Precision
from flambeau.training.state import Position


class Update:
    """What ``step.update()`` does. Reads nothing from an accelerator.

    Args:
        model: Whose norm statistics the guard protects.
        optimizers: By name.
        precision: Scales and unscales for fp16.
        clip_norm: Largest norm of all gradients together; None does not clip.
        nonfinite: As in ``TrainingOptions``.

    Attributes:
        guarded: Whether there is a guard; else the next two do nothing.
        record: ``NonFiniteGuard.record``, to be called before the forward pass.
        first_bad_step: ``NonFiniteGuard.read``: the step that ended the run's good ones, once the
            host knows; its weights are kept.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizers: Mapping[str, Optimizer],
        precision: Precision,
        *,
        clip_norm: float | None = None,
        nonfinite: Literal["raise", "skip", "off"] = "raise",
    ) -> None:
        self._steps = {name: OptimizerStep(each) for name, each in optimizers.items()}
        self._every = tuple(self._steps.values())
        self._clip_norm = clip_norm
        self._precision = precision
        self._guard: NonFiniteGuard | None = None
        if nonfinite != "off" or precision.scales_loss:
            self._guard = NonFiniteGuard(
                model,
                precision.device,
                # fp16 leaves out steps that overflow by design, even where nobody looks.
                policy="raise" if nonfinite == "raise" else "skip",
                tolerate_overflow=precision.scales_loss,
            )
        # Straight to the guard: one call less, twice a step.
        self.guarded = self._guard is not None
        self.record = self._guard.record if self._guard else _record_nothing
        self.first_bad_step = self._guard.read if self._guard else _know_of_none

    def __call__(self, loss: Tensor | None = None, name: str | None = None) -> None:
        """One update of the optimizer ``name``, or of all; then their gradients are cleared."""
        chosen = self._every if name is None else self._named(name)
        scaled = self._precision.scales_loss
        if scaled:
            self._precision.unscale([step.optimizer for step in chosen])
        if self._clip_norm is not None or self._guard is not None:
            checked = [
                parameter.grad
                for step in chosen
                for group in step.optimizer.param_groups
                for parameter in group["params"]
                if parameter.grad is not None
            ]
            if self._clip_norm is not None:
                # The norm is finite exactly where all gradients are: one tensor to look at.
                checked = [clip_gradients(checked, self._clip_norm)]
            if self._guard is not None:
                self._guard.check(loss, checked)
        for step in chosen:
            if self._guard is None:
                step()
            else:
                self._guard.step(step)
            # optimizer.zero_grad() without torch's profiling around it: 0.3 µs instead of 8.
            for group in step.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        if scaled:
            self._precision.update()

    def _named(self, name: str) -> tuple[OptimizerStep, ...]:
        if name not in self._steps:
            raise ArgumentError(
                f"There is no optimizer {name!r} to update. {did_you_mean(name, self._steps)}"
            )
        return (self._steps[name],)

    def restore_statistics(self) -> None:
        """Puts norm statistics that the bad step has ruined back."""
        if self._guard is not None:
            self._guard.restore()

    def keep_statistics(self) -> None:
        """Takes the norm statistics as they are now for good; after they came from elsewhere."""
        if self._guard is not None:
            self._guard.keep()

    def skipped(self) -> int:
        """Steps left out so far. Waits for the device."""
        return 0 if self._guard is None else self._guard.skipped()


def _record_nothing(position: Position, micro_batches: Sequence[Batch]) -> None:
    """Stands in for a guard that is off."""


def _know_of_none(*, now: bool = False) -> StepRecord | None:
    """Stands in for a guard that is off."""
    return None
