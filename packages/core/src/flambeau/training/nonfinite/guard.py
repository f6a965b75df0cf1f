"""The non-finite guard: a non-finite step changes no weights, without waiting for the device.

    guard.record(position, micro_batches)     before the forward pass
    …forward, backward…
    flag = guard.check(loss, gradients)       on the device
    guard.step(OptimizerStep(optimizer))      does nothing if the flag is set
    bad = guard.read()                        at a bounded rate; None while all steps are finite

With the policy "raise" the flag stays set: after the first bad step nothing is updated until the
loop reads the flag. The weights are then those with which the bad step was computed, so that
``locate.find_nonfinite_source`` can compute it again. With "skip" the bad step is skipped and
counted, and training continues.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from flambeau.data.batch import Batch
from flambeau.errors import ArgumentError, did_you_mean
from flambeau.torch_internals import non_finite_flagger
from flambeau.training.freeze import has_running_statistics
from flambeau.training.optim.clip import gradients_of
from flambeau.training.optim.fused_step import OptimizerStep
from flambeau.training.state import Position

Policy = Literal["raise", "skip"]
POLICIES = ("raise", "skip")

READ_INTERVAL = 50
"""Steps between two reads of the flag on an accelerator, so that its queue is never empty."""

MAX_OVERFLOWS = 40
"""fp16: largest number of consecutive steps with non-finite gradients that is not an error. After
40 halvings of the loss scale (initially 2^16) the cause cannot be an overflow."""


@dataclass(slots=True)
class StepRecord:
    """The values needed to compute a step again.

    Attributes:
        step: Optimizer steps finished before this step.
        epoch: Epochs finished before this step.
        epoch_step: Steps finished before this step in its epoch.
        indices: Sample indices of each micro-batch, None for batches without them.
        cpu_generator: State of torch's CPU generator before the forward pass.
        device_generator: State of the generator of the model's CUDA device, or None.
    """

    step: int
    epoch: int
    epoch_step: int
    indices: tuple[Tensor | None, ...]
    cpu_generator: Tensor
    device_generator: Tensor | None


class NonFiniteGuard:
    """A guard that flags steps with a non-finite loss or gradient and masks their updates.

    On the CPU the flag is read from memory in each step, which takes 0.1 µs and no call of torch.
    On an accelerator fused optimizers read it in their kernel. For other optimizers the gradients
    of a bad step are set to zero, so that zeros enter the moments, and the weights are restored
    after the step.

    Norm layers update their statistics in the forward pass, so the statistics of a bad step are
    restored too: immediately with "skip", by ``restore_statistics`` with "raise". With "skip" all
    other buffers are restored, too: a forward pass may update averages or queues of its own.

    Args:
        model: The model with the norm layers.
        device: The device of the model.
        policy: "raise" or "skip".
        tolerate_overflow: For fp16: skip a step whose gradients overflow (the loss scale is then
            reduced); only more than ``MAX_OVERFLOWS`` such steps in a row are an error.
        read_interval: Steps between two reads of the flag; None is 1 on the CPU, else
            ``READ_INTERVAL``.

    Attributes:
        skips_steps: Whether training continues after a step that was skipped.
        checked: Number of updates that were checked with the policy "skip".

    Raises:
        ArgumentError: The policy is unknown.
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        *,
        policy: Policy = "raise",
        tolerate_overflow: bool = False,
        read_interval: int | None = None,
    ) -> None:
        if policy not in POLICIES:
            raise ArgumentError(
                f"Unknown policy {policy!r} for non-finite steps. {did_you_mean(policy, POLICIES)}"
            )
        self.policy: Policy = policy
        self.tolerate_overflow = tolerate_overflow
        self.read_interval = read_interval or (1 if device.type == "cpu" else READ_INTERVAL)
        self.skips_steps = policy == "skip" or tolerate_overflow
        self._device = device
        # Sticky flag, records made since it was set, consecutive overflows: one tensor, so that a
        # single copy transfers them to the host.
        self._state = torch.zeros(3, dtype=torch.float32, device=device)
        self._bad, self._since_bad, self._overflows = self._state.unbind()
        self._now = torch.zeros((), dtype=torch.float32, device=device)
        self._one = torch.ones((), dtype=torch.float32, device=device)
        self.checked = 0
        self._skipped = torch.zeros((), dtype=torch.float32, device=device)
        self._sticky_only = policy == "raise" and not tolerate_overflow
        self._flag = self._bad if self._sticky_only else self._now
        self._on_cuda = device.type == "cuda"
        self._flag_non_finite = non_finite_flagger(device)
        # The fields of a StepRecord; few runs need to create one.
        self._records: deque[tuple[Any, ...]] = deque(maxlen=2 * self.read_interval + 2)
        self._recorded = 0
        # On the CPU: NumPy views of the same memory.
        on_cpu = device.type == "cpu"
        self._host_state = self._state.numpy() if on_cpu else None
        self._host_flag = self._flag.numpy() if on_cpu else None
        self._reader = _Reader(self._state)
        self._statistics = [
            buffer
            for module in model.modules()
            if policy == "skip" or has_running_statistics(module)
            for buffer in module.buffers(recurse=False)
            if buffer.layout == torch.strided
        ]
        self._good_statistics = [buffer.clone() for buffer in self._statistics]

    @property
    def flag(self) -> Tensor:
        """1 if the last checked step must not change anything: float32, 0-d, on the device."""
        return self._flag

    def last_flag(self) -> Tensor | bool:
        """Return whether the last step was skipped; on an accelerator ``flag``, without a read."""
        return self.flag if self._host_flag is None else bool(self._host_flag[()])

    def record(self, position: Position, micro_batches: Sequence[Batch]) -> None:
        """Record what is needed to compute the next step again; call before its forward pass."""
        if self.policy == "skip":
            return
        if self.read_interval > 1:
            self._since_bad.add_(self._bad)
        self._records.append(
            (
                position.step,
                position.epoch,
                position.epoch_step,
                tuple([batch.indices for batch in micro_batches]),
                torch.default_generator.get_state(),
                torch.cuda.get_rng_state(self._device) if self._on_cuda else None,
            )
        )
        self._recorded += 1

    def check(self, loss: Tensor | None, gradients: Sequence[Tensor]) -> Tensor:
        """Set the flag if the loss or one of ``gradients`` is not finite.

        Args:
            loss: The loss of the step, 0-d, or None.
            gradients: ``gradients_of(parameters)``, or only their norm if it is known. Scaled
                gradients (fp16) must be unscaled first.

        Returns:
            The flag: 1 if the update must be skipped; float32, 0-d, on the device.
        """
        if gradients and gradients[0].requires_grad:  # of a backward pass with create_graph
            gradients = [gradient.detach() for gradient in gradients]
        losses = [] if loss is None else [self._copied(loss)]
        if self._sticky_only:
            self._flag_non_finite([*losses, *gradients], self._bad, self._one)
        else:
            self._check_this_step(losses, gradients)
        if self._statistics:
            self._protect_statistics()
        return self._flag

    def _copied(self, loss: Tensor) -> Tensor:
        """Return a copy of the loss, because the kernel writes into its arguments."""
        loss = loss.detach()
        if self._host_state is not None and loss.is_floating_point():
            # The CPU kernel accepts every floating dtype; a cast takes 2 µs more than a clone.
            return loss.clone()
        return loss.to(torch.float32, copy=True)

    def _check_this_step(self, losses: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """Set ``_now``, the flag of this step alone, for policies that skip single steps."""
        self._now.zero_()
        self._flag_non_finite(gradients, self._now, self._one)
        if self.policy == "skip":
            self._flag_non_finite(losses, self._now, self._one)
            self._skipped.add_(self._now)
            self.checked += 1
        else:
            self._flag_non_finite(losses, self._bad, self._one)
            self._overflows.add_(self._now).mul_(self._now)
            self._bad.copy_(torch.maximum(self._bad, self._overflows > MAX_OVERFLOWS))
            self._now.copy_(torch.maximum(self._now, self._bad))

    def step(self, step: OptimizerStep) -> None:
        """Call ``step()`` without effect if the flag is set."""
        if self._host_flag is not None:
            if not self._host_flag[()]:
                step()
        else:
            masked_step(step, self.flag)

    def read(self, *, now: bool = False) -> StepRecord | None:
        """Return the first non-finite step, or None if the flag was not read or is not set.

        The flag is read every ``read_interval`` steps, on CUDA from a copy that was started at the
        previous read. The policy "skip" always returns None.

        Args:
            now: Wait for the device (at the end of an epoch).
        """
        if self._host_state is not None and not self._host_state[0]:
            return None
        if self.policy == "skip" or self._recorded == 0:
            return None
        if not now and self._recorded % self.read_interval:
            return None
        values = self._reader.read(self._recorded, now=now or self.read_interval == 1)
        if values is None or values.state[0] == 0:
            return None
        first = values.recorded - 1 - int(values.state[1])
        return StepRecord(*self._records[first - self._recorded])

    def restore_statistics(self) -> None:
        """Restore the last good statistics of the norm layers (policy "raise")."""
        for current, good in zip(self._statistics, self._good_statistics, strict=True):
            current.copy_(good)

    def save_statistics(self) -> None:
        """Save the current statistics as the good ones; call after loading or computing them."""
        for current, good in zip(self._statistics, self._good_statistics, strict=True):
            good.copy_(current)

    def skipped(self) -> int:
        """Return the number of updates skipped with the policy "skip"; waits for the device."""
        return int(self._skipped)

    def _protect_statistics(self) -> None:
        """Save the statistics after a finite step; with "skip", restore them after a bad step."""
        if self.policy == "raise" and self._recorded % max(self.read_interval, READ_INTERVAL):
            return
        bad = self.flag > 0
        for current, good in zip(self._statistics, self._good_statistics, strict=True):
            if self.policy == "skip":
                current.copy_(torch.where(bad, good, current))
            good.copy_(torch.where(bad, good, current))


@dataclass(frozen=True, slots=True)
class _Reading:
    recorded: int
    state: list[float]


class _Reader:
    """Reads the state of the guard from the device; on CUDA through an asynchronous copy."""

    def __init__(self, state: Tensor) -> None:
        self._state = state
        self._on_cuda = state.device.type == "cuda"
        self._pending: tuple[int, Tensor, torch.cuda.Event] | None = None

    def read(self, recorded: int, *, now: bool) -> _Reading | None:
        """Return the state after step ``recorded``; on CUDA without ``now``, an earlier state."""
        if now or not self._on_cuda:
            self._pending = None
            return _Reading(recorded, _numbers(self._state))
        reading = None
        if self._pending is not None:
            when, copied, event = self._pending
            event.synchronize()
            reading = _Reading(when, _numbers(copied))
        host = torch.empty(self._state.shape, dtype=torch.float32, pin_memory=True)
        host.copy_(self._state, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending = (recorded, host, event)
        return reading


def _numbers(tensor: Tensor) -> list[float]:
    return tensor.tolist()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


def masked_step(step: OptimizerStep, flag: Tensor) -> None:
    """Call ``step()``, without effect if ``flag`` (float32, 0-d, on the device) is 1."""
    if step.reads_found_inf():
        step(found_inf=flag)
    else:
        _step_and_restore(step, flag)


@torch.no_grad()
def _step_and_restore(step: OptimizerStep, flag: Tensor) -> None:
    """Mask a step of an optimizer that is not fused: copy the weights, and read no flag."""
    from flambeau.training.optim.sparse_gradients import entries

    parameters: list[nn.Parameter] = [
        parameter
        for group in step.optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    bad = flag > 0
    for gradient in map(entries, gradients_of(parameters)):
        gradient.copy_(torch.where(bad, torch.zeros_like(gradient), gradient))
    before = [parameter.detach().clone() for parameter in parameters]
    step()
    # Momentum and weight decay change the weights even if the gradient is zero.
    for parameter, old in zip(parameters, before, strict=True):
        parameter.copy_(torch.where(bad, old, parameter))
