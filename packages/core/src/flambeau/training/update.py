"""``Update``: unscale, clip and check gradients, update the weights, clear the gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, TrainingError, did_you_mean
from flambeau.training.nonfinite.guard import NonFiniteGuard, StepRecord, masked_step
from flambeau.training.optim.clip import clip_gradients, gradients_of, optimized_parameters
from flambeau.training.optim.fused_step import OptimizerStep, has_two_steps
from flambeau.training.optim.precision import Precision
from flambeau.training.state import Position


class Update:
    """The operation behind ``step.update()``; it reads nothing from an accelerator.

    Args:
        model: The model, together with the parameters of the task if it has any; the guard restores
            the statistics of its norm layers after a bad step.
        optimizers: Optimizers by name.
        precision: Scales the loss and unscales the gradients for fp16.
        clip_norm: Largest norm of all gradients together; None does not clip.
        nonfinite: As in ``TrainingOptions``.

    Attributes:
        guarded: Whether there is a non-finite guard; if not, ``record`` and ``first_bad_step`` do
            nothing.
        record: ``NonFiniteGuard.record``, to be called before the forward pass.
        skips_steps: Whether training continues after a step that is not finite ("skip").
        first_bad_step: ``NonFiniteGuard.read``: the first non-finite step, once the host has read
            it; the model keeps the weights before that step.
        needs_closure: Whether an optimizer needs a function that computes the loss (LBFGS, SAM);
            call ``with_closure`` for it.
        first_backward: The loss of the first backward pass, divided as its gradients are.
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
        self._all = tuple(self._steps.values())
        self.needs_closure = any(step.needs_closure for step in self._all)
        self._model = model
        self._checks_loss = True
        self.first_backward: Tensor | None = None
        self._mask: Tensor | None = None  # of the next update
        self._skipped: Tensor | bool = False  # the last one, unless the guard skipped it
        self._earlier = 0, 0  # added to the counts of the guard
        self._updated: set[str | None] = set()
        optimized = {id(parameter) for parameter in optimized_parameters(optimizers.values())}
        self._outside = tuple(p for p in model.parameters() if id(p) not in optimized)
        self._sparse: list[Tensor] = [  # parameters that may have sparse gradients
            parameter
            for module in model.modules()
            if getattr(module, "sparse", False) is True
            for parameter in module.parameters(recurse=False)
        ]
        self._unexamined = set(self._all)
        self._clip_norm = clip_norm
        self._precision = precision
        self._guard: NonFiniteGuard | None = None
        if nonfinite != "off" or precision.scales_loss:
            self._guard = NonFiniteGuard(
                model,
                precision.device,
                # fp16 skips steps that overflow by design, also with nonfinite="off".
                policy="raise" if nonfinite == "raise" else "skip",
                tolerate_overflow=precision.scales_loss,
            )
        # Bound methods of the guard save a call, twice per step.
        self.guarded = self._guard is not None
        self.skips_steps = self.guarded and nonfinite == "skip"
        self.record = self._guard.record if self._guard else _no_record
        self.first_bad_step = self._guard.read if self._guard else _no_bad_step

    def unscale(self, name: str | None = None) -> None:
        """Divide the gradients by the loss scale of fp16; call before the update."""
        if self._precision.scales_loss:
            chosen = self._all if name is None else self._named(name)
            self._precision.unscale([step.optimizer for step in chosen])

    def __call__(self, loss: Tensor | None = None, name: str | None = None) -> None:
        """Step the optimizer ``name``, or all optimizers, then clear their gradients.

        If all optimizers are stepped, gradients of parameters that no optimizer has are cleared
        too.

        Raises:
            ArgumentError: An optimizer is unknown, or needs ``with_closure``.
        """
        chosen = self._all if name is None else self._named(name)
        if self.needs_closure:
            _check_without_closure(chosen)
        self._updated.add(name)
        mask, self._mask = self._mask, None
        checked = self.clip(chosen)
        if self._guard is not None:
            self._guard.check(loss, checked)
            mask = mask if mask is None else torch.maximum(mask, self._guard.flag)
        for step in chosen:
            if mask is not None:
                masked_step(step, mask)
            elif self._guard is None:
                step()
            else:
                self._guard.step(step)
        self._skipped = False if mask is None else mask
        # After all steps, because two optimizers may have the same parameter.
        for step in chosen:
            # Like optimizer.zero_grad() without torch's profiling: 0.3 µs instead of 8.
            for group in step.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        if name is None:
            for parameter in self._outside:
                parameter.grad = None
        if self._precision.scales_loss:
            others = [] if name is None else [each.optimizer for each in self._all]
            self._precision.update(gradients_of(optimized_parameters(others)))

    def clip(self, chosen: Sequence[OptimizerStep]) -> list[Tensor]:
        """Clip the gradients, and return tensors that are finite if and only if the gradients are.

        Without clipping and guard the result is not used, and is empty.
        """
        if self._unexamined:
            self._find_sparse(chosen)
        if self._sparse:
            from flambeau.training.optim.sparse_gradients import convert_sparse

            convert_sparse(self._sparse, [step.optimizer for step in chosen])
        if self._clip_norm is None and self._guard is None:
            return []
        gradients = _gradients(chosen)
        if not gradients:
            _refuse_missing_gradients(chosen)
        if self._sparse:
            from flambeau.training.optim.sparse_gradients import entries

            gradients = [entries(gradient) for gradient in gradients]
        if self._clip_norm is None:
            return gradients
        return [clip_gradients(gradients, self._clip_norm)]

    def _find_sparse(self, chosen: Sequence[OptimizerStep]) -> None:
        """Find other parameters with sparse gradients, at the first update of each optimizer."""
        new = self._unexamined.intersection(chosen)
        self._unexamined -= new
        parameters = optimized_parameters(step.optimizer for step in new)
        known = {id(parameter) for parameter in self._sparse}
        for each in parameters:
            if each.grad is not None and each.grad.is_sparse and id(each) not in known:
                self._sparse.append(each)

    def with_closure(
        self, closure: Callable[[], Tensor], name: str | None, ready: Callable[[], None]
    ) -> Tensor:
        """Step an optimizer that computes the loss itself, as often as it needs.

        After an error the weights are those before the step; with the guard also after a non-finite
        step. The loss at the trial points of a line search may be non-finite.

        Args:
            closure: Computes the loss and its gradients, which are cleared before each call and
                clipped after it.
            name: Name of the optimizer; None if there is only one.
            ready: Called with the gradients of each evaluation, before they are clipped.

        Returns:
            The loss of the first evaluation, detached.
        """
        chosen = self._one(name)
        optimizer = chosen[0].optimizer
        self._updated.add(name)
        parameters = optimized_parameters([optimizer])
        before = [parameter.detach().clone() for parameter in parameters]
        losses: list[Tensor] = []

        def evaluate() -> Tensor:
            self.clear()
            with torch.enable_grad():
                loss = closure().detach()
            ready()
            checked = self.clip(chosen)
            if self._guard is not None and not losses:
                self._guard.check(loss, checked)
            losses.append(loss)
            return loss

        try:
            _step_with(optimizer, evaluate)
            if not losses:
                raise ArgumentError(
                    f"The step of {type(optimizer).__name__} did not call the closure it was given."
                )
        except BaseException:
            _copy(before, parameters)
            raise
        mask, self._mask = self._mask, None
        is_masked = mask is not None
        weights = [parameter.detach() for parameter in parameters]
        if self._guard is not None:
            flag = self._guard.check(None, weights)
            mask = flag if mask is None else torch.maximum(mask, flag)
        if mask is not None:
            pairs = zip(before, weights, strict=True)
            _copy([torch.where(mask > 0, old, new) for old, new in pairs], parameters)
        self._skipped = mask if is_masked and mask is not None else False
        self.clear()
        return losses[0]

    def _one(self, name: str | None) -> Sequence[OptimizerStep]:
        """Return the step of the only optimizer, or of the optimizer ``name``, for a closure."""
        chosen = self._all if name is None else self._named(name)
        if len(chosen) > 1:
            raise ArgumentError(
                f"A closure steps one optimizer, but there are {len(chosen)}: "
                f"{', '.join(map(repr, self._steps))}. Write a train_step that calls "
                f"step.update_with(closure, {next(iter(self._steps))!r}) for each."
            )
        return chosen

    def was_called(self) -> bool:
        """Return whether any optimizer was updated, or a step was skipped."""
        return bool(self._updated)

    def not_updated(self) -> list[str]:
        """Return the names of the optimizers that were never updated."""
        return [] if None in self._updated else [n for n in self._steps if n not in self._updated]

    def settings_without_effect(self) -> list[str]:
        """Return the settings that apply to ``step.update`` only, if the step does not call it."""
        found = {"clip_norm": self._clip_norm is not None, "nonfinite": self.guarded}
        return [name for name, is_set in found.items() if is_set]

    def names_without(self, changed: Collection[int], names: Collection[str]) -> list[str]:
        """Return the optimizers among ``names`` that have changed no parameter.

        Args:
            changed: The ``id`` of each parameter that changed.
            names: Names of optimizers. The changes of a parameter that another one shares are
                those of the other.
        """
        others = [step.optimizer for name, step in self._steps.items() if name not in names]
        unexplained = set(changed) - set(map(id, optimized_parameters(others)))
        return [
            name
            for name in names
            if unexplained.isdisjoint(map(id, optimized_parameters([self._steps[name].optimizer])))
        ]

    def check_loss(self, loss: Tensor, divisor: float) -> None:
        """Check once that the optimizers have all parameters outside the model that the loss uses.

        Raises:
            InputError: The loss depends on a parameter that no optimizer has.
        """
        if self._checks_loss:
            from flambeau.training.optim.task_parameters import check_loss_parameters

            self._checks_loss = False
            self.first_backward = loss.detach() / divisor
            check_loss_parameters(loss, [step.optimizer for step in self._all], self._model)

    def skip(self) -> None:
        """End a step whose samples have no target: clear the gradients and change no weights."""
        self._updated.add(None)
        self._skipped = True
        self.clear()

    def mask(self, empty: Tensor) -> None:
        """Let the next update have no effect if ``empty`` (0-d, on the device) is True."""
        self._mask = empty.to(torch.float32)

    def start_phase(self) -> None:
        """Clear all gradients; other parameters may have gradients from now on."""
        self.clear()
        self._unexamined = set(self._all)

    def clear(self) -> None:
        """Clear all gradients of the model and the optimizers."""
        for step in self._all:
            for group in step.optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad = None
        for parameter in self._outside:
            parameter.grad = None

    def _named(self, name: str) -> tuple[OptimizerStep, ...]:
        if name not in self._steps:
            raise ArgumentError(f"Unknown optimizer {name!r}. {did_you_mean(name, self._steps)}")
        return (self._steps[name],)

    def restore_statistics(self) -> None:
        """Restore the statistics that norm layers had before the bad step."""
        if self._guard is not None:
            self._guard.restore_statistics()

    def save_statistics(self) -> None:
        """Save the current statistics of norm layers, to be restored after a bad step."""
        if self._guard is not None:
            self._guard.save_statistics()

    def was_skipped(self) -> Tensor | bool:
        """Return whether the last step changed no weights; on an accelerator a tensor, not read."""
        guard = self._guard
        if self._skipped is not False:
            return self._skipped
        return False if guard is None or not guard.skips_steps else guard.last_flag()

    def skipped(self) -> tuple[int, int]:
        """Return the numbers of skipped and of all updates since ``end_epoch``.

        They are counted with ``nonfinite="skip"``, else 0. Waits for the device.
        """
        if self._guard is None or not self.skips_steps:
            return 0, 0
        skipped, checked = self._earlier
        return skipped + self._guard.skipped(), checked + self._guard.checked

    def load_skipped(self, counts: Sequence[int]) -> None:
        """Continue the counts that ``skipped`` returned in an interrupted epoch."""
        skipped, checked = counts
        self._earlier = skipped, checked

    def end_epoch(self) -> None:
        """Start new counts of skipped updates."""
        skipped, checked = self.skipped()
        self._earlier = self._earlier[0] - skipped, self._earlier[1] - checked


def _refuse_missing_gradients(steps: Sequence[OptimizerStep]) -> None:
    optimizers = [step.optimizer for step in steps]
    if any(parameter.requires_grad for parameter in optimized_parameters(optimizers)):
        raise TrainingError(
            "step.update was called, but no parameter of its optimizer has a gradient, so no "
            "weight would change. Call step.backward(loss) before step.update(loss)."
        )


def _check_without_closure(chosen: Sequence[OptimizerStep]) -> None:
    for step in chosen:
        if step.needs_closure:
            kind = type(step.optimizer).__name__
            raise ArgumentError(
                f"A step of {kind} computes the loss several times, so step.update cannot make it. "
                "Call step.update_with(closure) with a function that computes the loss, calls "
                "step.backward(loss) and returns the loss."
            )


def _step_with(optimizer: Optimizer, evaluate: Callable[[], Tensor]) -> None:
    """Make a step of an optimizer that calls ``evaluate``, or of the two-step form of SAM."""
    stepped = cast("Any", optimizer)
    if has_two_steps(optimizer):
        for step in (stepped.first_step, stepped.second_step):
            evaluate()
            step()
    else:
        stepped.step(evaluate)


@torch.no_grad()
def _copy(sources: Sequence[Tensor], targets: Sequence[Tensor]) -> None:
    for source, target in zip(sources, targets, strict=True):
        target.copy_(source)


def _gradients(steps: Sequence[OptimizerStep]) -> list[Tensor]:
    """Return the gradients of the optimizers' parameters; a shared parameter occurs once."""
    if len(steps) > 1:
        return gradients_of(optimized_parameters(step.optimizer for step in steps))
    [step] = steps  # the usual case, in half the time
    return [
        p.grad
        for group in step.optimizer.param_groups
        for p in group["params"]
        if p.grad is not None
    ]


def _no_record(position: Position, micro_batches: Sequence[Batch]) -> None:
    """No-op used when the non-finite guard is disabled."""


def _no_bad_step(*, now: bool = False) -> StepRecord | None:
    """No-op used when the non-finite guard is disabled."""
    return None
