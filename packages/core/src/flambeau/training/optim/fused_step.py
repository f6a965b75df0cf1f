"""``OptimizerStep``: an optimizer's step, straight to torch's fused kernel where it has one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.optimizer import (
    _global_optimizer_post_hooks,  # pyright: ignore[reportPrivateUsage] no public name tells of them
    _global_optimizer_pre_hooks,  # pyright: ignore[reportPrivateUsage]
)

from flambeau.training.bare import bare, is_torchs_own

# torch exports its fused kernels without types.
_torch = cast("Any", torch)

ParamGroup = dict[str, Any]


class OptimizerStep:
    """``optimizer.step()``, with the lists that a fused step needs kept from step to step.

    torch gathers parameters, gradients and moments into lists anew each step and wraps that into
    profiling and hooks: some 100 µs for four tensors beside the kernel's 20 (AdamW, 2-core Xeon).
    Here torch takes the first step and every one in which something is new: a param group, a
    state that was loaded, a parameter that gained or lost its gradient. The steps in between call
    the same kernel with the same tensors, so the weights are the same to the bit.

    torch takes all steps of an optimizer that is of another class, is not fused, has hooks, has
    tensors for settings, or whose ``step`` somebody has wrapped.

    Args:
        optimizer: Any of torch's, or one that is derived from them.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._kind = _KINDS.get(type(optimizer))
        self._groups: list[_FusedGroup] = []
        self._state: object = None

    def __call__(self, found_inf: Tensor | None = None) -> None:
        """One step.

        Args:
            found_inf: float32, 0-d, on the device: the step has no effect where it is not 0. Only
                for fused optimizers.
        """
        gradients = self._gradients() if self._groups else None
        if gradients is None:
            _torch_step(self.optimizer, found_inf)
            self._groups = self._kept()
            return
        with torch.no_grad():
            for group, present in zip(self._groups, gradients, strict=True):
                group.step(present, found_inf)

    def _gradients(self) -> list[list[Tensor]] | None:
        """Those of each kept group, or None where something is not as it was."""
        optimizer, groups = self.optimizer, self._groups
        now = optimizer.param_groups
        if optimizer.state is not self._state or len(now) != len(groups) or _is_hooked(optimizer):
            return None
        found: list[list[Tensor]] = []
        for group, settings in zip(groups, now, strict=True):
            gradients = group.gradients() if group.is_of(settings) else None
            if gradients is None:
                return None
            found.append(gradients)
        return found

    def _kept(self) -> list[_FusedGroup]:
        """What the next steps need, or nothing where torch must take them."""
        optimizer = self.optimizer
        if self._kind is None or _is_hooked(optimizer):
            return []
        self._state = optimizer.state
        if not all(self._kind.can_keep(settings) for settings in optimizer.param_groups):
            return []
        return [self._kind(settings, optimizer.state) for settings in optimizer.param_groups]


class _FusedGroup:
    """A param group, with the lists that its kernel takes."""

    numbers: ClassVar[tuple[str, ...]]
    """Settings that must be plain numbers."""

    def __init__(self, settings: ParamGroup, state: Mapping[Any, Any]) -> None:
        self.settings = settings  # the optimizer's own, so that a new lr is seen
        self.listed: list[nn.Parameter] = settings["params"]
        self.learning = [p for p in self.listed if p.grad is not None]
        self.idle = [p for p in self.listed if p.grad is None]
        self.gather([state.get(p, {}) for p in self.learning])

    @classmethod
    def can_keep(cls, settings: ParamGroup) -> bool:
        """Whether the kernel can be called without torch's own case distinctions."""
        tensors = [p for p in settings["params"] if p.grad is not None]
        return (
            bool(settings.get("fused"))
            and not settings.get("differentiable")
            and not settings.get("amsgrad")
            and all(isinstance(settings[name], int | float) for name in cls.numbers)
            # One kernel is of one device and dtype; a DTensor or the like has calls of its own.
            and len({(p.device, p.dtype) for p in tensors}) <= 1
            and all(type(p.data) is Tensor for p in tensors)
        )

    def is_of(self, settings: ParamGroup) -> bool:
        """Whether this is still the group of ``settings``."""
        return settings is self.settings and settings["params"] is self.listed

    def gradients(self) -> list[Tensor] | None:
        """Of ``learning``; None where other parameters have one than before."""
        found: list[Tensor] = []
        for parameter in self.learning:
            gradient = parameter.grad
            if gradient is None:
                return None
            found.append(gradient)
        for parameter in self.idle:
            if parameter.grad is not None:
                return None
        return found

    def gather(self, states: list[Mapping[str, Tensor]]) -> None:
        """Keeps the kernel's lists from the state of each parameter in ``learning``."""
        raise NotImplementedError(f"{type(self).__name__} must define gather.")

    def step(self, gradients: list[Tensor], found_inf: Tensor | None) -> None:
        """One step of the group; inside ``torch.no_grad``."""
        raise NotImplementedError(f"{type(self).__name__} must define step.")


class _AdamGroup(_FusedGroup):
    numbers = ("lr", "weight_decay", "eps")

    @classmethod
    def can_keep(cls, settings: ParamGroup) -> bool:
        return super().can_keep(settings) and all(isinstance(b, float) for b in settings["betas"])

    def gather(self, states: list[Mapping[str, Tensor]]) -> None:
        self.means = [state["exp_avg"] for state in states]
        self.squares = [state["exp_avg_sq"] for state in states]
        self.steps = [state["step"] for state in states]

    def step(self, gradients: list[Tensor], found_inf: Tensor | None) -> None:
        if not gradients:
            return
        settings, steps = self.settings, self.steps
        decoupled = settings["decoupled_weight_decay"]
        kernel = _torch._fused_adamw_ if decoupled else _torch._fused_adam_
        beta1, beta2 = settings["betas"]
        _torch._foreach_add_(steps, 1)
        kernel(
            self.learning,
            gradients,
            self.means,
            self.squares,
            [],
            steps,
            amsgrad=False,
            lr=settings["lr"],
            beta1=beta1,
            beta2=beta2,
            weight_decay=settings["weight_decay"],
            eps=settings["eps"],
            maximize=settings["maximize"],
            grad_scale=None,
            found_inf=found_inf,
        )
        if found_inf is not None:  # a step that was left out does not count
            _torch._foreach_sub_(steps, [found_inf] * len(steps))


class _SGDGroup(_FusedGroup):
    numbers = ("lr", "weight_decay", "momentum", "dampening")

    def gather(self, states: list[Mapping[str, Tensor]]) -> None:
        self.has_momentum = self.settings["momentum"] != 0
        self.buffers = [state["momentum_buffer"] for state in states] if self.has_momentum else []

    def is_of(self, settings: ParamGroup) -> bool:
        return super().is_of(settings) and (settings["momentum"] != 0) is self.has_momentum

    def step(self, gradients: list[Tensor], found_inf: Tensor | None) -> None:
        if not gradients:
            return
        settings = self.settings
        _torch._fused_sgd_(
            self.learning,
            gradients,
            self.buffers,
            weight_decay=settings["weight_decay"],
            momentum=settings["momentum"],
            lr=settings["lr"],
            dampening=settings["dampening"],
            nesterov=settings["nesterov"],
            maximize=settings["maximize"],
            is_first_step=False,
            grad_scale=None,
            found_inf=found_inf,
        )


# By the very class: one that is derived may compute something else.
_KINDS: Mapping[type[Optimizer], type[_FusedGroup]] = {
    Adam: _AdamGroup,
    AdamW: _AdamGroup,
    SGD: _SGDGroup,
}


def reads_found_inf(optimizer: Optimizer) -> bool:
    """Whether the optimizer's kernels look at ``found_inf``, as the fused ones do."""
    # The mark by which torch.amp.GradScaler tells them; it is set by ``fused=True``.
    return bool(getattr(optimizer, "_step_supports_amp_scaling", False))


def _torch_step(optimizer: Optimizer, found_inf: Tensor | None) -> None:
    if found_inf is None:
        _step(optimizer)
        return
    # Dynamic attributes are torch's own way (GradScaler.step); nothing stays behind.
    optimizer.found_inf = found_inf  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.grad_scale = None  # pyright: ignore[reportAttributeAccessIssue]
    try:
        _step(optimizer)
    finally:
        del optimizer.found_inf, optimizer.grad_scale  # pyright: ignore[reportAttributeAccessIssue]


def _step(optimizer: Optimizer) -> None:
    own = is_torchs_own(type(optimizer))  # others need not even have defaults
    if not own or _is_hooked(optimizer) or optimizer.defaults.get("differentiable"):
        optimizer.step()  # pyright: ignore[reportUnknownMemberType] torch's is untyped
        return
    with torch.no_grad():
        bare(optimizer, "step")()


def _is_hooked(optimizer: Optimizer) -> bool:
    """Whether more than the step itself hangs on ``step``: hooks, or a scheduler's wrapping."""
    own = optimizer.__dict__
    return bool(
        "step" in own
        or own.get("_optimizer_step_pre_hooks")
        or own.get("_optimizer_step_post_hooks")
        or _global_optimizer_pre_hooks
        or _global_optimizer_post_hooks
    )
