"""Check in the first epoch of a run that a custom ``train_step`` updates the weights."""

from __future__ import annotations

import warnings
from typing import Any, cast

import torch
from torch import Tensor, nn

from flambeau.errors import FlambeauWarning, TrainingError
from flambeau.task.numerics import as_real
from flambeau.training.gradient_watch import GradientWatch
from flambeau.training.step import Step
from flambeau.training.update import Update


class UpdateCheck:
    """Checks that ``step.update`` was called, or else that the parameters have changed.

    Args:
        trained: The model, together with the parameters of the task.
        update: The operation behind ``step.update()``, which counts its calls.
        step: Its gradients are watched in the first epoch if there are several optimizers.
    """

    def __init__(self, trained: nn.Module, update: Update, step: Step) -> None:
        self._step = step
        self._trained = trained
        self._update = update
        self._is_done = False
        self._before: Tensor | None = None

    def start_epoch(self) -> None:
        """Remember the parameters before the first step."""
        if not self._is_done:
            self._before = self._sums()
            if len(self._step.optimizers) > 1:
                self._step.watch = GradientWatch(self._step.optimizers)

    def end_epoch(self, steps: int) -> None:
        """Check the updates of the first epoch.

        Args:
            steps: Steps that the epoch made.

        Raises:
            TrainingError: No step called ``step.update``, and no parameter changed.

        Warns:
            FlambeauWarning: An optimizer was never used, or weights changed without ``step.update``
                although there are settings that it applies.
        """
        if self._step.watch is not None:
            self._step.watch.close()
            self._step.watch = None
        if self._is_done or not steps or self._before is None:
            return
        self._is_done = True
        changed: list[bool] = cast("Any", self._before != self._sums()).tolist()
        parameters = self._trained.parameters()
        moved = {id(each) for each, is_new in zip(parameters, changed, strict=True) if is_new}
        not_called = self._update.not_updated()
        unused = self._update.names_without(moved, not_called)
        if not self._update.was_called() and not moved:
            raise TrainingError(
                f"The train_step made {steps} steps without calling step.update, so no weight "
                "changed. Call step.backward(loss), then step.update(loss), before it returns."
            )
        if unused:
            _warn(
                f"[unused-optimizer] The train_step never updated {', '.join(map(repr, unused))} "
                f"in the first {steps} steps. Call step.update(loss, {unused[0]!r}), or remove the "
                "optimizer."
            )
        direct = [name for name in not_called if name not in unused]
        if direct and (settings := self._update.settings_without_effect()):
            _warn(
                f"[direct-update] The train_step updates {', '.join(map(repr, direct))} without "
                f"step.update, so {' and '.join(settings)} have no effect on it, and its "
                f"gradients are not cleared. Call step.update(loss, {direct[0]!r}) in place of "
                "optimizer.step(), or call optimizer.zero_grad() and turn them off: "
                'TrainingOptions(nonfinite="off", clip_norm=None).'
            )

    def _sums(self) -> Tensor:
        sums = [as_real(each.detach().abs().sum()) for each in self._trained.parameters()]
        return torch.stack(sums) if sums else torch.zeros(0)


def _warn(message: str) -> None:
    warnings.warn(message, FlambeauWarning, stacklevel=4)
