"""The non-finite guard: a bad step changes no weight, and nothing waits for the device.

    guard.record(position, micro_batches)     before the forward pass
    …forward, backward…
    flag = guard.check(loss, gradients)       on the device
    guard.step(OptimizerStep(optimizer))      does nothing where the flag is set
    bad = guard.read()                        at a bounded rate; None as long as all is well

With the policy "raise" the flag is sticky: after the first bad step nothing is updated until the
loop reads the flag, so the weights are those with which the bad step was computed, and
``culprit.find_culprit`` can replay it. With "skip" the step is left out and counted.
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
from flambeau.training.norm.freeze import keeps_statistics
from flambeau.training.optim.clip import gradients_of
from flambeau.training.optim.fused_step import OptimizerStep
from flambeau.training.state import Position

Policy = Literal["raise", "skip"]
POLICIES = ("raise", "skip")

EVERY = 50
"""Steps between two looks at an accelerator's flag, so that its queue never runs dry."""

MAX_OVERFLOWS = 40
"""fp16: steps in a row without finite gradients. 40 halvings of the loss scale (2^16 at the start)
leave nothing of it, so by then it is no overflow but an error."""


@dataclass(slots=True)
class StepRecord:
    """What is needed to compute a step once more.

    Attributes:
        step: Optimizer steps finished before it.
        epoch: Epochs finished before it.
        epoch_step: Steps finished before it in the epoch.
        indices: Sample numbers of each micro-batch, where the batch knows them.
        cpu_generator: State of torch's CPU generator before the forward pass.
        device_generator: The same for the model's CUDA device, or None.
    """

    step: int
    epoch: int
    epoch_step: int
    indices: tuple[Tensor | None, ...]
    cpu_generator: Tensor
    device_generator: Tensor | None


class NonFiniteGuard:
    """Flags steps whose loss or gradients are not finite, and masks their updates.

    On the CPU, whose memory the host shares, the flag is looked at in place each step (0.1 µs; no
    call of torch, and no queue to drain). On an accelerator fused optimizers read it in their
    kernel; for the others the gradients become zeros and the weights are put back afterwards, while
    their moments see a gradient of zero.

    Norm layers update their statistics in the forward pass, so those of a bad step are put back
    too: at once with "skip", by ``restore`` with "raise".

    Args:
        model: Where the statistics are.
        device: Where the model is.
        policy: "raise" or "skip".
        tolerate_overflow: fp16: gradients that overflow are a step to leave out (the loss scale
            goes down), not an error, unless it is ``MAX_OVERFLOWS`` in a row.
        every: Steps between two looks at the flag; None is 1 on the CPU, else ``EVERY``.

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
        every: int | None = None,
    ) -> None:
        if policy not in POLICIES:
            raise ArgumentError(
                f"There is no policy {policy!r} for steps that are not finite. "
                f"{did_you_mean(policy, POLICIES)}"
            )
        self.policy: Policy = policy
        self.tolerate_overflow = tolerate_overflow
        self.every = every or (1 if device.type == "cpu" else EVERY)
        self._device = device
        # Sticky flag, records made since it was set, overflows in a row: one tensor, so that one
        # copy brings all of it to the host.
        self._state = torch.zeros(3, device=device)
        self._bad, self._since_bad, self._overflows = self._state.unbind()
        self._now = torch.zeros((), device=device)
        self._one = torch.ones((), device=device)
        self._skipped = torch.zeros((), device=device)
        self._sticky_only = policy == "raise" and not tolerate_overflow
        self._flag = self._bad if self._sticky_only else self._now
        self._on_cuda = device.type == "cuda"
        self._flag_non_finite = non_finite_flagger(device)
        # The fields of a StepRecord, which few runs ever need.
        self._records: deque[tuple[Any, ...]] = deque(maxlen=2 * self.every + 2)
        self._recorded = 0
        # On the CPU the same memory as the host sees it.
        on_cpu = device.type == "cpu"
        self._host_state = self._state.numpy() if on_cpu else None
        self._host_flag = self._flag.numpy() if on_cpu else None
        self._reader = _Reader(self._state)
        self._statistics = [
            buffer
            for module in model.modules()
            if keeps_statistics(module)
            for buffer in module.buffers(recurse=False)
        ]
        self._good_statistics = [buffer.clone() for buffer in self._statistics]

    @property
    def flag(self) -> Tensor:
        """1 where the last checked step must change nothing: float32, 0-d, on the device."""
        return self._flag

    def record(self, position: Position, micro_batches: Sequence[Batch]) -> None:
        """Notes how to compute the coming step once more; before its forward pass."""
        if self.policy == "skip":
            return
        if self.every > 1:
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
        """Flags the step where the loss or one of ``gradients`` is not finite.

        Args:
            loss: Of the step, 0-d; None where there is none.
            gradients: ``gradients_of(parameters)``, or just their norm where it is known. Scaled
                gradients (fp16) unscaled first.

        Returns:
            The flag: 1 where the update must be left out. float32, 0-d, on the device.
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
        """A copy: the kernel writes into what it looks at, and the caller's loss may be needed."""
        loss = loss.detach()
        if self._host_state is not None and loss.is_floating_point():
            # The CPU's kernel takes every floating dtype; a cast costs 2 µs more than a clone.
            return loss.clone()
        return loss.to(torch.float32, copy=True)

    def _check_this_step(self, losses: Sequence[Tensor], gradients: Sequence[Tensor]) -> None:
        """For policies that leave single steps out: ``_now`` is of this step alone."""
        self._now.zero_()
        self._flag_non_finite(gradients, self._now, self._one)
        if self.policy == "skip":
            self._flag_non_finite(losses, self._now, self._one)
            self._skipped.add_(self._now)
        else:
            self._flag_non_finite(losses, self._bad, self._one)
            self._overflows.add_(self._now).mul_(self._now)
            self._bad.copy_(torch.maximum(self._bad, self._overflows > MAX_OVERFLOWS))
            self._now.copy_(torch.maximum(self._now, self._bad))

    def step(self, step: OptimizerStep) -> None:
        """``step()``, without effect where the flag is set."""
        if self._host_flag is not None:
            if not self._host_flag[()]:
                step()
        elif step.reads_found_inf():
            step(found_inf=self.flag)
        else:
            _step_and_put_back(step, self.flag)

    def read(self, *, now: bool = False) -> StepRecord | None:
        """The first bad step, once the host knows of one; None as long as it does not.

        Cheap: looks at the flag every ``every`` steps, on CUDA at a copy that was started as many
        steps ago. With the policy "skip" always None.

        Args:
            now: Wait for the device; for the end of an epoch.
        """
        if self._host_state is not None and not self._host_state[0]:
            return None
        if self.policy == "skip" or self._recorded == 0:
            return None
        if not now and self._recorded % self.every:
            return None
        values = self._reader.read(self._recorded, now=now or self.every == 1)
        if values is None or values.state[0] == 0:
            return None
        first = values.recorded - 1 - int(values.state[1])
        return StepRecord(*self._records[first - self._recorded])

    def restore(self) -> None:
        """Puts the norm layers' statistics back to the last good ones; with policy "raise"."""
        for current, good in zip(self._statistics, self._good_statistics, strict=True):
            current.copy_(good)

    def keep(self) -> None:
        """Takes the statistics as they are for good ones: a checkpoint or the data gave them."""
        for current, good in zip(self._statistics, self._good_statistics, strict=True):
            good.copy_(current)

    def skipped(self) -> int:
        """Steps left out so far with the policy "skip". Waits for the device."""
        return int(self._skipped)

    def _protect_statistics(self) -> None:
        """Keeps a good copy of the norm layers' statistics; with "skip" puts it back at once."""
        if self.policy == "raise" and self._recorded % max(self.every, EVERY):
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
    """Brings the guard's state to the host; on CUDA by a copy that the next look finds done."""

    def __init__(self, state: Tensor) -> None:
        self._state = state
        self._on_cuda = state.device.type == "cuda"
        self._pending: tuple[int, Tensor, torch.cuda.Event] | None = None

    def read(self, recorded: int, *, now: bool) -> _Reading | None:
        """The state after ``recorded`` records, or with ``now=False`` that of the last look."""
        if now or not self._on_cuda:
            self._pending = None
            return _Reading(recorded, _numbers(self._state))
        reading = None
        if self._pending is not None:
            when, copied, event = self._pending
            event.synchronize()
            reading = _Reading(when, _numbers(copied))
        host = torch.empty(self._state.shape, pin_memory=True)
        host.copy_(self._state, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._pending = (recorded, host, event)
        return reading


def _numbers(tensor: Tensor) -> list[float]:
    return tensor.tolist()  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]


@torch.no_grad()
def _step_and_put_back(step: OptimizerStep, flag: Tensor) -> None:
    """For optimizers without a fused form: no host read, at the price of a copy of the weights."""
    parameters: list[nn.Parameter] = [
        parameter
        for group in step.optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    bad = flag > 0
    for gradient in gradients_of(parameters):
        gradient.copy_(torch.where(bad, torch.zeros_like(gradient), gradient))
    before = [parameter.detach().clone() for parameter in parameters]
    step()
    # Momentum and weight decay move the weights even where the gradient is zero.
    for parameter, old in zip(parameters, before, strict=True):
        parameter.copy_(torch.where(bad, old, parameter))
