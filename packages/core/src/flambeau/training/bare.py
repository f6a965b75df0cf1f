"""torch below what it does for its compiler alone.

torch wraps the methods of its optimizers so that its compiler leaves them out, and imports the
compiler for that when the first is called; before a backward pass from a given gradient it compares
two shapes as symbols, and imports a computer algebra system. That is 2 to 3 s of a program's first
fit, 7 s where Python may not keep bytecode (2-core Xeon), in programs that compile nothing. Below
is the same code. The wraps stay where they are for whoever compiles an optimizer's step of his own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import FunctionType, MethodType
from typing import Any

from torch import Tensor
from torch.autograd import graph
from torch.optim import Optimizer
from torch.overrides import (
    has_torch_function_unary,  # pyright: ignore[reportUnknownVariableType] torch has no types for it
)

_MARKS = ("torch._compile", "torch.optim.optimizer")
"""Modules whose wraps are taken off; those of anybody else (a profiler, a test) are kept."""

# Not public; where a release of torch has none, all goes the long way.
_run_engine: Callable[..., Any] | None = getattr(graph, "_engine_run_backward", None)


def bare(optimizer: Optimizer, name: str) -> Callable[..., Any]:
    """The method ``name`` of one of torch's own optimizers, without what torch wraps around it.

    The wraps around ``step`` also switch gradients off, call the step's hooks and name the step
    for torch's profiler; without them the first two are up to the caller. Optimizers of other
    classes, and methods that were set on the object itself, come as they are.
    """
    method = getattr(type(optimizer), name)
    if name in vars(optimizer) or not is_torchs_own(type(optimizer)):
        return getattr(optimizer, name)
    while _is_mark(method):
        method = method.__wrapped__
    return MethodType(method, optimizer)


def _is_mark(method: Any) -> bool:
    # By the very type: a proxy, as tracers make them, passes the globals of what it wraps.
    wraps = type(method) is FunctionType and hasattr(method, "__wrapped__")
    return wraps and method.__globals__["__name__"] in _MARKS


def built(
    kind: type[Optimizer], parameters: Iterable[Any], settings: Mapping[str, Any]
) -> Optimizer:
    """``kind(parameters, **settings)``, the param groups added by the bare ``add_param_group``."""
    optimizer = kind.__new__(kind)
    add = bare(optimizer, "add_param_group")
    # On the object itself, while it is being made: there ``__init__`` looks first.
    vars(optimizer)["add_param_group"] = add
    kind.__init__(optimizer, parameters, **settings)
    del vars(optimizer)["add_param_group"]
    return optimizer


def is_torchs_own(kind: type[Optimizer]) -> bool:
    """Whether the class is one of ``torch.optim``, not derived from one."""
    return kind.__module__.startswith("torch.optim.")


def backward(loss: Tensor, seed: Tensor) -> None:
    """``loss.backward(seed)`` of a 0-d loss; 11 µs less for each (2-core Xeon).

    Args:
        loss: 0-d.
        seed: 0-d, of the loss's dtype and on its device.
    """
    if _run_engine is None or loss.ndim or has_torch_function_unary(loss):
        loss.backward(seed)  # pyright: ignore[reportUnknownMemberType] torch's is untyped
        return
    # As torch.autograd.backward calls it in the end.
    _run_engine((loss,), (seed,), False, False, (), allow_unreachable=True, accumulate_grad=True)
