"""Call the fused kernels of optimizers directly, for one param group, and test these kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from flambeau.torch_internals import names
from flambeau.torch_internals.optimizers import build_optimizer, torch_step
from flambeau.torch_internals.tensor_lists import adder
from flambeau.wording import type_and_first_line

ParamGroup = dict[str, Any]


class FusedGroup:
    """A param group with the lists of tensors that are the arguments of its kernel.

    Args:
        settings: The dictionary from ``optimizer.param_groups`` itself, not a copy, because its
            learning rate changes.
        state: The optimizer's state by parameter.
    """

    numbers: ClassVar[tuple[str, ...]]
    """Settings that must be plain numbers."""

    def __init__(self, settings: ParamGroup, state: Mapping[Any, Any]) -> None:
        self.settings = settings
        self.listed: list[nn.Parameter] = settings["params"]
        self.learning = [p for p in self.listed if p.grad is not None]
        self.idle = [p for p in self.listed if p.grad is None]
        self.kernel: Callable[..., None] = names.lookup(self.kernel_name(settings))
        self.gather([state.get(p, {}) for p in self.learning])

    @staticmethod
    def kernel_name(settings: ParamGroup) -> str:
        """Return torch's private name of the kernel for these settings."""
        raise NotImplementedError("A group must define kernel_name.")

    @classmethod
    def can_keep(cls, settings: ParamGroup) -> bool:
        """Return whether these settings need none of the special cases in torch's ``step``."""
        tensors = [p for p in settings["params"] if p.grad is not None]
        return (
            bool(settings.get("fused"))
            and not settings.get("differentiable")
            and not settings.get("amsgrad")
            and all(isinstance(settings[name], int | float) for name in cls.numbers)
            # A kernel takes one device and dtype; subclasses such as DTensor are excluded.
            and len({(p.device, p.dtype) for p in tensors}) <= 1
            and all(type(p.data) is Tensor for p in tensors)
        )

    def is_of(self, settings: ParamGroup) -> bool:
        """Return whether this object was made from ``settings`` and is still valid for them."""
        return settings is self.settings and settings["params"] is self.listed

    def gradients(self) -> list[Tensor] | None:
        """Return the gradients of ``learning``; None if now other parameters have gradients."""
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
        """Store the lists for the kernel, from the state of each parameter in ``learning``."""
        raise NotImplementedError(f"{type(self).__name__} must define gather.")

    def step(self, gradients: list[Tensor], found_inf: Tensor | None) -> None:
        """Make one step of the group; inside ``torch.no_grad``."""
        raise NotImplementedError(f"{type(self).__name__} must define step.")


class AdamGroup(FusedGroup):
    """A param group of Adam or AdamW."""

    numbers = ("lr", "weight_decay", "eps")

    @staticmethod
    def kernel_name(settings: ParamGroup) -> str:
        return "torch._fused_adamw_" if settings["decoupled_weight_decay"] else "torch._fused_adam_"

    @classmethod
    def can_keep(cls, settings: ParamGroup) -> bool:
        return super().can_keep(settings) and all(isinstance(b, float) for b in settings["betas"])

    def is_of(self, settings: ParamGroup) -> bool:
        return super().is_of(settings) and settings["decoupled_weight_decay"] is self.is_decoupled

    def gather(self, states: list[Mapping[str, Tensor]]) -> None:
        self.is_decoupled = self.settings["decoupled_weight_decay"]
        self.add = adder()
        self.means = [state["exp_avg"] for state in states]
        self.squares = [state["exp_avg_sq"] for state in states]
        self.steps = [state["step"] for state in states]

    def step(self, gradients: list[Tensor], found_inf: Tensor | None) -> None:
        if not gradients:
            return
        settings, steps = self.settings, self.steps
        beta1, beta2 = settings["betas"]
        self.add(steps, 1)
        self.kernel(
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
        if found_inf is not None:  # a skipped step is not counted
            self.add(steps, [found_inf] * len(steps), alpha=-1)


class SGDGroup(FusedGroup):
    """A param group of SGD, with or without momentum."""

    numbers = ("lr", "weight_decay", "momentum", "dampening")

    @staticmethod
    def kernel_name(settings: ParamGroup) -> str:
        return "torch._fused_sgd_"

    def gather(self, states: list[Mapping[str, Tensor]]) -> None:
        self.has_momentum = self.settings["momentum"] != 0
        self.buffers = [state["momentum_buffer"] for state in states] if self.has_momentum else []

    def is_of(self, settings: ParamGroup) -> bool:
        return super().is_of(settings) and (settings["momentum"] != 0) is self.has_momentum

    def step(self, gradients: list[Tensor], found_inf: Tensor | None) -> None:
        if not gradients:
            return
        settings = self.settings
        self.kernel(
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


_GROUPS: Mapping[type[Optimizer], type[FusedGroup]] = {
    Adam: AdamGroup,
    AdamW: AdamGroup,
    SGD: SGDGroup,
}
"""Group class by optimizer class; subclasses are excluded, since they may override ``step``."""

_SHAPES = ((3,), (2, 2), (1,))

_TRIALS: Mapping[str, tuple[type[Optimizer], tuple[Mapping[str, Any], ...]]] = {
    "torch._fused_adam_": (Adam, ({"weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-3},)),
    "torch._fused_adamw_": (AdamW, ({"weight_decay": 0.1, "betas": (0.8, 0.9), "eps": 1e-3},)),
    "torch._fused_sgd_": (SGD, ({"weight_decay": 0.1}, {"momentum": 0.9, "dampening": 0.2})),
}
"""Optimizer class that calls a kernel, and the settings with which it is tested, by kernel."""


def fused_group_class(optimizer: Optimizer) -> type[FusedGroup] | None:
    """Return the group class for the exact class of the optimizer; None without a kernel."""
    return _GROUPS.get(type(optimizer))


def may_call_kernel(kind: type[FusedGroup], settings: ParamGroup) -> bool:
    """Return whether torch has the kernel for a param group and the kernel passes its test."""
    if not kind.can_keep(settings):
        return False
    name = kind.kernel_name(settings)
    if names.lookup(name) is None:
        return False
    kinds = {(p.device, p.dtype) for p in settings["params"] if p.grad is not None}
    return all(kernel_agrees(name, device, dtype) for device, dtype in kinds)


@cache
def kernel_agrees(name: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether a direct call of the kernel equals a step of the public optimizer.

    Both make steps on three small tensors, also with a ``found_inf`` of 1, which must change
    nothing. The test runs once per process, device and dtype. If arguments or results differ in a
    later version of torch, there is one ``FlambeauWarning``.

    Args:
        name: torch's private name of the kernel.
        device: The device of the parameters.
        dtype: The dtype of the parameters.
    """
    kind, trials = _TRIALS[name]
    try:
        agrees = all(_agrees(kind, settings, device, dtype) for settings in trials)
        why = "" if agrees else f"its step differs from that of {kind.__name__}"
    except (TypeError, ValueError, RuntimeError, LookupError) as error:
        why = type_and_first_line(error)
    if why:
        names.warn_of_change(name, why)
    return not why


def _agrees(
    kind: type[Optimizer], settings: Mapping[str, Any], device: torch.device, dtype: torch.dtype
) -> bool:
    ours, theirs = (_small_optimizer(kind, settings, device, dtype) for _ in range(2))
    one = torch.ones((), dtype=torch.float32, device=device)
    torch_step(ours)  # makes the state
    [group] = [_GROUPS[kind](settings, ours.state) for settings in ours.param_groups]
    for found_inf in (None, one):
        with torch.no_grad():
            group.step([p.grad for p in group.learning if p.grad is not None], found_inf)
    for found_inf in (None, None, one):
        torch_step(theirs, found_inf)
    return all(map(torch.equal, _tensors_of(ours), _tensors_of(theirs)))


_FUSED_KINDS: tuple[type[Optimizer], ...] = (SGD, Adagrad, AdamW, Adam)
"""Optimizers of torch that have a fused form, with their subclasses (AdamW is one of Adam)."""


def reads_found_inf(optimizer: Optimizer) -> bool:
    """Return whether every step of ``optimizer`` is fused, so that ``found_inf`` can mask it."""
    groups = optimizer.param_groups
    kind = next((kind for kind in _FUSED_KINDS if isinstance(optimizer, kind)), None)
    if kind is None or not all(group.get("fused") for group in groups):
        return False
    kinds = {(p.device, p.dtype) for group in groups for p in group["params"]}
    return all(_respects_found_inf(kind, device, dtype) for device, dtype in kinds)


@cache
def _respects_found_inf(kind: type[Optimizer], device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether a fused step of torch has no effect if ``found_inf`` is 1; tested once."""
    optimizer = _small_optimizer(kind, {}, device, dtype)
    torch_step(optimizer)
    before = [value.clone() for value in _tensors_of(optimizer)]
    torch_step(optimizer, torch.ones((), dtype=torch.float32, device=device))
    return all(map(torch.equal, before, _tensors_of(optimizer)))


def _small_optimizer(
    kind: type[Optimizer], settings: Mapping[str, Any], device: torch.device, dtype: torch.dtype
) -> Optimizer:
    parameters: list[nn.Parameter] = []
    for shape in _SHAPES:
        values = torch.linspace(0.5, 2.0, torch.Size(shape).numel(), dtype=torch.float64)
        parameter = nn.Parameter(values.reshape(shape).to(dtype).to(device))
        parameter.grad = parameter.detach().cos()
        parameters.append(parameter)
    return build_optimizer(kind, parameters, {"lr": 0.1, "fused": True, **settings})


def _tensors_of(optimizer: Optimizer) -> list[Tensor]:
    """Return the weights and all tensors of the state, ordered by name."""
    found: list[Tensor] = []
    for parameter in optimizer.param_groups[0]["params"]:
        state = optimizer.state[parameter]
        found.append(parameter.detach())
        found += [state[name] for name in sorted(state) if isinstance(state[name], Tensor)]
    return found
