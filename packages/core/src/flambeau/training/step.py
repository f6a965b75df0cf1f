"""The default ``train_step``, and the ``Step`` object whose operations a custom one calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError
from flambeau.nested import detach
from flambeau.task.numerics import is_known_zero, real_scalar
from flambeau.task.task import StepContext, Task
from flambeau.torch_internals import scale_
from flambeau.training.events import Dispatch
from flambeau.training.optim.clip import gradients_of, optimized_parameters
from flambeau.training.optim.precision import Precision
from flambeau.training.state import StepResult, TrainState
from flambeau.training.update import Update

if TYPE_CHECKING:
    from flambeau.training.gradient_watch import GradientWatch


class Step:
    """The operations of a ``train_step``; the run creates one object and passes it to each step.

    Args:
        state: Passed to the listeners of ``on_gradients_ready``.
        update: Clips the gradients, checks them, updates the weights and clears the gradients.
        precision: Precision of the forward and backward pass.
        dispatch: The listeners of each event.

    Attributes:
        n_ranks: Number of processes that compute the step together.
        device: Device of the model.
        context: The context argument of ``task.forward``: seed, epoch, step, scheduled values and
            carried state.
        optimizers: Optimizers by name, for operations besides ``update`` (``zero_grad`` of another
            network).
        micro_batches: The micro-batches of the current step.
        watch: Reports mixed gradients of several optimizers; None after the first epoch.
    """

    n_ranks = 1

    def __init__(
        self, state: TrainState, update: Update, precision: Precision, dispatch: Dispatch
    ) -> None:
        self.context: StepContext = state.context
        self.optimizers: Mapping[str, Optimizer] = state.optimizers
        self._state = state
        self._update = update
        self._has_leftovers = False
        self._has_backward = False
        self.watch: GradientWatch | None = None
        self.micro_batches: Sequence[Batch] = ()
        self._precision = precision
        self.device = precision.device
        self._listeners = dispatch.on_gradients_ready

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context manager for a forward pass and its loss in the run's precision."""
        return self._precision.autocast()

    def forward(self, model: nn.Module, batch: Batch, task: Task) -> Any:
        """Return the outputs of a micro-batch; call it inside ``autocast``."""
        return task.forward(model, batch, self.context)

    def start(self) -> None:
        """Clear gradients that remained after an ``update`` of only one of several optimizers."""
        self._state.gradient_factor = 1.0
        if self._has_leftovers:
            self._update.clear()
            self._has_leftovers = False
            if self.watch is not None:
                self.watch.cleared()

    def backward(self, loss: Tensor, divisor: float = 1.0, *, retain_graph: bool = False) -> None:
        """Add the gradients of ``loss / divisor`` to the parameters' gradients.

        Gradients add up until ``update``. The first backward pass after an update clears the
        gradients of all optimizers. So gradients that the loss of a generator computes for the
        discriminator never enter the next update of the discriminator.

        Args:
            loss: 0-d. With fp16 it is scaled, and ``update`` unscales the gradients.
            divisor: If ``loss`` is a sum, usually the weight of the whole step.
            retain_graph: Keep the graph for another backward pass through it.

        Raises:
            ArgumentError: The loss has more than one value, or does not require a gradient.
        """
        if loss.numel() != 1:
            raise ArgumentError(
                f"step.backward needs one number, but the loss has the shape {tuple(loss.shape)}: "
                "one value for each sample? Pass its sum or mean."
            )
        if not loss.requires_grad:
            raise ArgumentError(
                "The loss has no gradient, so the step would train nothing: it was computed from "
                "detached outputs (detach(), item(), numpy(), or under torch.no_grad()), or all "
                "parameters are frozen. Compute it from the model's outputs."
            )
        if self._has_leftovers:
            self.start()
        self._has_backward = True
        self._update.check_loss(loss, divisor)
        self._precision.backward(loss, divisor, retain_graph=retain_graph)
        if self.context.carry is not None:
            self.context.carry = detach(self.context.carry)

    def scale_gradients(self, factor: Tensor) -> None:
        """Multiply the gradients of all optimizers, for example by the inverse of a weight."""
        scale_(gradients_of(optimized_parameters(self.optimizers.values())), factor)
        self._state.gradient_factor = factor

    def update(self, loss: Tensor | None = None, name: str | None = None) -> None:
        """Clip the gradients, step the optimizer unless a value is non-finite, clear the gradients.

        Args:
            loss: Loss of the step; the non-finite guard checks it in addition to the gradients.
            name: Name of the optimizer to step; None for all optimizers.

        Raises:
            ArgumentError: No optimizer has this name; or the gradients are not from ``backward``,
                although the precision scales the loss (fp16).

        Warns:
            FlambeauWarning: [raw-backward] ``loss.backward()`` has added gradients to those that
                an update of another optimizer has left.
        """
        if not self._has_backward:
            self._check_scale()
        if self.watch is not None:
            self.watch.check(name)
        self._update.unscale(name)
        if self._precision.scales_loss:
            self._state.gradient_factor = self._state.gradient_factor / self._precision.scale()
        for listener in self._listeners:
            listener(self._state)
        self._update(loss, name)
        self._has_leftovers = name is not None
        if self.watch is not None:
            self.watch.updated(name)

    def _check_scale(self) -> None:
        """Refuse gradients of ``loss.backward()`` in a precision that scales the loss."""
        if self._precision.scales_loss:
            raise ArgumentError(
                "step.update was called without step.backward. In fp16 the loss is multiplied by a "
                "scale, and step.update divides the gradients by it, so gradients of "
                "loss.backward() would be too small. Call step.backward(loss)."
            )

    @property
    def needs_closure(self) -> bool:
        """Whether an optimizer computes the loss itself (LBFGS, SAM), see ``update_with``."""
        return self._update.needs_closure

    def update_with(self, closure: Callable[[], Tensor], name: str | None = None) -> Tensor:
        """Step an optimizer that computes the loss itself: LBFGS, SAM.

        Call it instead of ``update``. Gradients are cleared before each call of ``closure`` and
        clipped after it. For SAM (any optimizer with ``first_step`` and ``second_step``) the
        closure is called before each of the two steps; other optimizers call the closure
        themselves.

        Args:
            closure: Computes the loss, calls ``step.backward(loss)`` and returns the loss, 0-d.
            name: Name of the optimizer; None if there is only one.

        Returns:
            The loss of the first call, detached.

        Raises:
            ArgumentError: No optimizer has this name, there are several optimizers but no name, or
                the optimizer does not call the closure.
        """

        def ready() -> None:
            for listener in self._listeners:
                listener(self._state)

        carry = self.context.carry

        def evaluate() -> Tensor:
            self.context.carry = carry  # each evaluation starts from the same carried state
            return closure()

        loss = self._update.with_closure(evaluate, name, ready)
        self._has_leftovers = False
        return loss

    def skip(self) -> StepResult:
        """End a step whose samples have no target: clear the gradients and change no weights.

        The step counts as a step of the schedules, and the history counts it as skipped.

        Returns:
            A loss of nan with the weight 0.
        """
        self._update.skip()
        self._has_leftovers = False
        return StepResult(torch.full((), torch.nan, device=self.device), 0.0)

    def divisor(self, total: Tensor) -> Tensor:
        """Return ``total``, the weight of a step as a tensor, but replace the value 0 by 1.

        If it is 0, the next ``update`` has no effect. Nothing is read from the device.
        """
        empty = total == 0
        self._update.mask(empty)
        return torch.where(empty, 1.0, total)

    def log(
        self, weight: Batch | float | Tensor | None = None, /, **values: Tensor | float
    ) -> None:
        """Report values of the step; their means over the epoch become columns of the history.

        ``step.log(discriminator=loss.detach())`` gives the column "train_discriminator". Nothing
        is read from the device before the end of the epoch. See also ``Task.log``.

        Args:
            weight: How much the values count in the mean: a number, a 0-d tensor, or a micro-batch,
                whose weight is then used. None selects the micro-batch of the step if it has only
                one.
            values: Means over the samples by name, numbers or 0-d tensors on any device.

        Raises:
            ArgumentError: A value is not one number, or its name is that of the loss or a metric;
                or the weight is missing in a step of several micro-batches.
        """
        if weight is None:
            if len(self.micro_batches) != 1:
                raise ArgumentError(
                    f"The step has {len(self.micro_batches)} micro-batches, so step.log needs the "
                    "weight of the values. Pass the micro-batch or a number as the first argument: "
                    "step.log(batch, name=value)."
                )
            weight = self.micro_batches[0]
        self._state.task.log(weight, **values)

    def total_weight(self, weight: float | None) -> float | None:
        """Return the number by which to divide the summed loss of this process, None if unknown.

        With one process it is ``weight``. With several processes it is the sum of the weights of
        all ranks divided by the number of ranks, since ``update`` averages the gradients over the
        ranks.

        Args:
            weight: Weight of the samples of this process; None if only ``task.loss`` can compute
                it.
        """
        return weight

    def total_weight_on_device(self, weight: Tensor) -> Tensor:
        """Return the result of ``total_weight`` for a weight that is a 0-d tensor."""
        return weight


class TrainStep(Protocol):
    """A function that computes gradients and calls ``step.update``."""

    def __call__(
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
    ) -> StepResult | Tensor:
        """Make one step: forward, ``step.backward(loss)``, ``step.update()``.

        Returns:
            The mean loss, 0-d, which then gets the weight of the batches; or a ``StepResult`` with
            another weight.
        """
        ...


def train_step(
    model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
) -> StepResult:
    """Make one optimizer step on the mean loss over all micro-batches.

    The loss of a micro-batch is a sum and a weight. Therefore the step does not depend on how the
    samples are grouped into batches (smaller last batches, accumulation, several processes), also
    for losses per token.

    A step of weight 0 (no sample has a target) changes no weights, see ``Step.skip``.

    Raises:
        InputError: The batches have no samples.
    """
    if step.needs_closure:
        return _step_with_closure(model, micro_batches, task, step)
    found = _backward(model, micro_batches, task, step)
    if found is None:
        return step.skip()
    result, loss = found
    step.update(loss)
    return result


class _NoTargetError(Exception):
    """Raised in a closure if no sample of the step has a target."""


def _step_with_closure(
    model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
) -> StepResult:
    """Make a step of an optimizer that calls a closure; return the result of its first call."""
    results: list[StepResult] = []

    def closure() -> Tensor:
        found = _backward(model, micro_batches, task, step)
        if found is None:
            raise _NoTargetError
        result, loss = found
        results.append(result)
        return loss

    try:
        step.update_with(closure)
    except _NoTargetError:
        return step.skip()
    return results[0]


_Backward = tuple[StepResult, Tensor]
"""Loss of a step, its weight, and the loss for the non-finite check (finite if the weight is 0)."""


def _backward(
    model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
) -> _Backward | None:
    """Compute the gradients of the mean loss over all micro-batches; None without targets."""
    if task.loss_factors:
        from flambeau.training.several_losses_step import backward_of_losses

        return backward_of_losses(model, micro_batches, task, step)
    total = step.total_weight(known_weight(micro_batches, task))
    if not total and micro_batches and step.n_ranks == 1 and not any(map(len, micro_batches)):
        from flambeau.training.no_target import step_without_samples

        raise step_without_samples(step.context.step)
    if total is None:
        return _backward_of_unknown_weight(model, micro_batches, task, step)
    if not total and micro_batches:
        return None
    loss: Tensor | None = None
    for batch in micro_batches:
        with step.autocast():
            outputs = step.forward(model, batch, task)
            loss_sum, _ = task.loss(outputs, batch)
        step.backward(loss_sum, total)
        part = loss_sum.detach() / total
        loss = part if loss is None else loss + part
    if loss is None:
        raise ValueError("train_step was called without a batch. Pass at least one micro-batch.")
    return StepResult(loss, total), loss


def checked_result(result: object, batches: Sequence[Batch]) -> StepResult:
    """Return the result of a ``train_step``, with its loss detached.

    Args:
        result: A ``StepResult``, or only the mean loss, which then gets the weight of the batches.
        batches: The micro-batches of the step.

    Raises:
        ArgumentError: The loss of the result is not a 0-d tensor.
    """
    if type(result) is not StepResult and isinstance(result, Tensor):
        weights = [len(batch) if batch.weight is None else batch.weight for batch in batches]
        result = StepResult(result, sum(weights))
    if type(result) is StepResult:
        loss = cast("object", result.loss)
        if isinstance(loss, Tensor) and loss.ndim == 0:
            if loss.requires_grad:  # else the graphs of all steps of an epoch would be kept
                result.loss = loss.detach()
            return result
        shape = f" of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else ""
        found = f"a loss that is a {type(loss).__name__}{shape}"
    else:
        found = f"a {type(result).__name__}"
    raise ArgumentError(
        f"The train_step returned {found}. It must return the mean loss of the step as a 0-d "
        "tensor, or StepResult(loss, weight) if its weight in the mean of the epoch is not that of "
        "the batches."
    )


def known_weight(batches: Sequence[Batch], task: Task) -> float | None:
    """Return the total weight of the batches; None if only ``task.loss`` can compute it."""
    total = 0.0
    for batch in batches:
        weight = task.host_weight(batch)
        if weight is None:
            return None
        total += weight
    return total


def _backward_of_unknown_weight(
    model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
) -> _Backward | None:
    """Sum the losses, and divide the gradients once the total weight is known."""
    if len(micro_batches) == 1 and step.n_ranks == 1:
        return _backward_of_one_batch(model, micro_batches[0], task, step)
    sums: list[Tensor] = []
    weights: list[Tensor] = []
    for batch in micro_batches:
        with step.autocast():
            outputs = step.forward(model, batch, task)
            loss_sum, weight = task.loss(outputs, batch)
        step.backward(loss_sum)
        sums.append(loss_sum.detach())
        weights.append(real_scalar(weight, loss_sum.device))
    total = step.total_weight_on_device(torch.stack(weights).sum())
    if is_known_zero(total):
        return None
    divisor = total if total.device.type == "cpu" else step.divisor(total)
    step.scale_gradients(1.0 / divisor)
    loss_sum = torch.stack(sums).sum()
    return StepResult(loss_sum / total, total), loss_sum / divisor


def _backward_of_one_batch(
    model: nn.Module, batch: Batch, task: Task, step: Step
) -> _Backward | None:
    """Compute the gradients of a step with one batch, whose loss gives the total weight first."""
    with step.autocast():
        outputs = step.forward(model, batch, task)
        loss_sum, weight = task.loss(outputs, batch)
    if isinstance(weight, Tensor):
        weight = real_scalar(weight, loss_sum.device)
    if is_known_zero(weight):
        return None
    divisor = weight
    if isinstance(weight, Tensor):
        divisor = weight if weight.device.type == "cpu" else step.divisor(weight)
        step.backward(loss_sum / divisor.to(loss_sum.dtype))
    else:
        step.backward(loss_sum, weight)
    loss_sum = loss_sum.detach()
    return StepResult(loss_sum / weight, weight), loss_sum / divisor
