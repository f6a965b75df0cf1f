"""Call methods of torch's optimizers without the wrappers that torch adds.

The wrappers exclude the methods from compilation, and import torch's compiler when one of them is
first called. This import takes 2 to 3 s of the first fit (7 s if Python cannot store bytecode;
2-core Xeon), also in programs that compile nothing. The wrappers are not removed from torch, so
programs can still compile the step of an optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from types import FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from flambeau.torch_internals import names

_WRAPPER_MODULES = ("torch._compile", "torch.optim.optimizer")
"""Only wrappers from these modules are removed; wrappers of a profiler or a test are kept."""

_WRAPPED = "torch.optim.Optimizer.step.__wrapped__"


def unwrapped(optimizer: Optimizer, name: str) -> Callable[..., Any]:
    """Return the method ``name`` of one of torch's own optimizers without torch's wrappers.

    The wrappers of ``step`` also disable gradients, call the step's hooks and label the step for
    torch's profiler; without them the caller must disable gradients and call the hooks. For
    optimizers that are not torch's, and for methods set on the object, the method itself is
    returned.
    """
    method = getattr(type(optimizer), name)
    if name in vars(optimizer) or not is_from_torch(type(optimizer)):
        return getattr(optimizer, name)
    while (inner := _inside_wrapper(method)) is not None:
        method = inner
    return MethodType(method, optimizer)


def _inside_wrapper(method: Any) -> Any:
    # The exact type, because proxies of tracers have the globals of the wrapped function.
    if type(method) is FunctionType and method.__globals__["__name__"] in _WRAPPER_MODULES:
        return names.attribute(method, _WRAPPED)
    return None


def build_optimizer(
    kind: type[Optimizer], parameters: Iterable[Any], settings: Mapping[str, Any]
) -> Optimizer:
    """Return ``kind(parameters, **settings)``, built with the unwrapped ``add_param_group``."""
    optimizer = kind.__new__(kind)
    add = unwrapped(optimizer, "add_param_group")
    # Set on the object, because ``__init__`` looks there first.
    vars(optimizer)["add_param_group"] = add
    kind.__init__(optimizer, parameters, **settings)
    del vars(optimizer)["add_param_group"]
    return optimizer


def is_from_torch(kind: type[Optimizer]) -> bool:
    """Return whether the class itself, not only a base class, is defined in ``torch.optim``."""
    return kind.__module__.startswith("torch.optim.")


def step_hooks(optimizer: Optimizer) -> tuple[Sized, ...] | None:
    """Return the tables of hooks that ``optimizer.step()`` calls; None if one is missing."""
    found = (
        names.lookup("torch.optim.optimizer._global_optimizer_pre_hooks"),
        names.lookup("torch.optim.optimizer._global_optimizer_post_hooks"),
        names.attribute(optimizer, "torch.optim.Optimizer._optimizer_step_pre_hooks"),
        names.attribute(optimizer, "torch.optim.Optimizer._optimizer_step_post_hooks"),
    )
    return None if any(table is None for table in found) else found


def torch_step(
    optimizer: Optimizer, found_inf: Tensor | None = None, *, wrapped: bool = False
) -> None:
    """Make one step with ``optimizer.step``.

    Args:
        optimizer: Any torch optimizer, or one derived from them.
        found_inf: float32, 0-d, on the device: a fused step has no effect if it is not 0.
        wrapped: Call ``step`` with torch's wrappers, which also call its hooks.
    """
    # Optimizers of other classes may have no defaults.
    own = is_from_torch(type(optimizer))
    wrapped = wrapped or not own or bool(optimizer.defaults.get("differentiable"))
    if found_inf is None:
        _step(optimizer, wrapped=wrapped)
        return
    # Temporary attributes, as torch.amp.GradScaler.step sets them.
    optimizer.found_inf = found_inf  # pyright: ignore[reportAttributeAccessIssue]
    optimizer.grad_scale = None  # pyright: ignore[reportAttributeAccessIssue]
    try:
        _step(optimizer, wrapped=wrapped)
    finally:
        del optimizer.found_inf, optimizer.grad_scale  # pyright: ignore[reportAttributeAccessIssue]


def _step(optimizer: Optimizer, *, wrapped: bool) -> None:
    if wrapped:
        optimizer.step()  # pyright: ignore[reportUnknownMemberType] torch's is untyped
        return
    with torch.no_grad():
        unwrapped(optimizer, "step")()
