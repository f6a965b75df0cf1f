"""``OptimizerStep``: an optimizer step by a direct call of torch's fused kernel."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import cast

import torch
from torch import Tensor
from torch.optim import Optimizer

from flambeau.torch_internals import (
    FusedGroup,
    fused_group_class,
    may_call_kernel,
    reads_found_inf,
    step_hooks,
    torch_step,
)


def inner_optimizers(optimizer: Optimizer) -> dict[str, Optimizer]:
    """Return the optimizers that a wrapper (SAM, Lookahead) keeps as attributes, by name.

    An optimizer in a list or a dictionary has a name such as "parts.0". Torch's own wrap none.
    """
    if type(optimizer).__module__.startswith("torch.optim."):
        return {}
    found: dict[str, Optimizer] = {}
    for name, value in vars(optimizer).items():
        if isinstance(value, Optimizer):
            found[name] = value
        elif name not in ("param_groups", "state") and isinstance(value, list | tuple | dict):
            entries = (
                cast("Mapping[object, object]", value).items()
                if isinstance(value, dict)
                else enumerate(cast("list[object]", value))
            )
            found |= {f"{name}.{key}": e for key, e in entries if isinstance(e, Optimizer)}
    return found


def with_inner(optimizer: Optimizer) -> list[Optimizer]:
    """Return the optimizer, and then all optimizers that it wraps, at any depth, each once."""
    found = {id(optimizer): optimizer}
    pending = [optimizer]
    while pending:
        for inner in inner_optimizers(pending.pop(0)).values():
            if id(inner) not in found:
                found[id(inner)] = inner
                pending.append(inner)
    return list(found.values())


def needs_closure(optimizer: Optimizer) -> bool:
    """Return whether a step of the optimizer calls a function that computes the loss.

    This is true for optimizers whose ``step`` requires a closure (LBFGS), for wrappers of such
    optimizers, and for optimizers with ``first_step`` and ``second_step`` (SAM).
    """
    return has_two_steps(optimizer) or any(requires_closure(type(o)) for o in with_inner(optimizer))


def has_two_steps(optimizer: Optimizer) -> bool:
    """Return whether the optimizer is stepped by ``first_step`` and ``second_step``, as SAM is."""
    return all(callable(getattr(optimizer, name, None)) for name in ("first_step", "second_step"))


@cache
def requires_closure(kind: type[Optimizer]) -> bool:
    """Return whether the method ``step`` of an optimizer class requires a closure (LBFGS)."""
    step = kind.step  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    closure = inspect.signature(step).parameters.get("closure")  # pyright: ignore[reportUnknownArgumentType]
    return closure is not None and closure.default is inspect.Parameter.empty


class OptimizerStep:
    """``optimizer.step()`` that keeps the tensor lists of a fused step between steps.

    ``optimizer.step`` builds the lists of parameters, gradients and moments again in each step and
    calls a profiler and hooks. That takes about 100 µs for four tensors, in addition to 20 µs of
    the kernel (AdamW, 2-core Xeon). Here ``optimizer.step`` is called for the first step, and again
    whenever a param group, the loaded state or the set of parameters with a gradient has changed.
    All other steps call the same kernel with the same tensors, so the weights are bitwise the same.
    The kernel is checked against torch's step before its first use, see
    ``torch_internals.fused_groups``.

    ``optimizer.step`` is called for every step if the optimizer has no such kernel, is not fused,
    has hooks, has tensors as settings, or has a wrapped ``step``.

    Args:
        optimizer: Any torch optimizer, or one derived from them.

    Attributes:
        needs_closure: Whether the optimizer computes the loss itself, see ``needs_closure``.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.optimizer = optimizer
        self._kind = fused_group_class(optimizer)
        self.needs_closure = self._kind is None and needs_closure(optimizer)
        self._hooks = step_hooks(optimizer)
        self._groups: list[FusedGroup] = []
        self._state: object = None

    def __call__(self, found_inf: Tensor | None = None) -> None:
        """Make one step.

        Args:
            found_inf: float32, 0-d, on the device: the step has no effect if it is not 0. Pass
                it only if ``reads_found_inf()``.
        """
        gradients = self._gradients() if self._groups else None
        if gradients is None:
            torch_step(self.optimizer, found_inf, wrapped=self._is_hooked())
            self._groups = self._kept()
            return
        with torch.no_grad():
            for group, present in zip(self._groups, gradients, strict=True):
                group.step(present, found_inf)

    def reads_found_inf(self) -> bool:
        """Return whether the step may be called with ``found_inf``, which requires a fused step."""
        return bool(self._groups) or reads_found_inf(self.optimizer)

    def _gradients(self) -> list[list[Tensor]] | None:
        """Return the gradients of each kept group, or None if a group or the state changed."""
        optimizer, groups = self.optimizer, self._groups
        now = optimizer.param_groups
        if optimizer.state is not self._state or len(now) != len(groups) or self._is_hooked():
            return None
        found: list[list[Tensor]] = []
        for group, settings in zip(groups, now, strict=True):
            gradients = group.gradients() if group.is_of(settings) else None
            if gradients is None:
                return None
            found.append(gradients)
        return found

    def _kept(self) -> list[FusedGroup]:
        """Return the groups for the next steps; empty if these must call ``optimizer.step``."""
        optimizer, kind = self.optimizer, self._kind
        if kind is None or self._is_hooked():
            return []
        self._state = optimizer.state
        if not all(may_call_kernel(kind, settings) for settings in optimizer.param_groups):
            return []
        return [kind(settings, optimizer.state) for settings in optimizer.param_groups]

    def _is_hooked(self) -> bool:
        """Return whether ``step`` has hooks or the wrapper of a scheduler."""
        hooks = self._hooks
        return hooks is None or any(hooks) or "step" in vars(self.optimizer)
