"""torch's optimizers below the marks that its compiler needs.

torch wraps the methods of its optimizers so that its compiler leaves them out, and imports the
compiler for that when the first is called: 1 to 2.5 s of a program's first fit, 7 s where Python
may not keep bytecode (2-core Xeon), in programs that compile nothing. Below the wraps is the same
code, so whoever does compile loses nothing: the marks stay where they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MethodType
from typing import Any

from torch.optim import Optimizer

_MARKS = ("torch._compile", "torch.optim.optimizer")
"""Modules whose wraps are taken off; those of anybody else (a profiler, a test) are kept."""


def bare(optimizer: Optimizer, name: str) -> Callable[..., Any]:
    """The method ``name`` of one of torch's own optimizers, without what torch wraps around it.

    The wrap around ``step`` also switches gradients off and calls the step's hooks; without it
    that is up to the caller. Optimizers of other classes, and methods that were set on the object
    itself, come as they are.
    """
    method = getattr(type(optimizer), name)
    if name in vars(optimizer) or not is_torchs_own(type(optimizer)):
        return getattr(optimizer, name)
    while hasattr(method, "__wrapped__") and method.__globals__["__name__"] in _MARKS:
        method = method.__wrapped__
    return MethodType(method, optimizer)


def built(
    kind: type[Optimizer], parameters: Iterable[Any], settings: Mapping[str, Any]
) -> Optimizer:
    """``kind(parameters, **settings)``, the param groups added by the bare ``add_param_group``."""
    optimizer = kind.__new__(kind)
    add = bare(optimizer, "add_param_group")
    # On the object itself, while it is being made: there ``__init__`` looks first.
    vars(optimizer)["add_param_group"] = add
    try:
        kind.__init__(optimizer, parameters, **settings)
    finally:
        del vars(optimizer)["add_param_group"]
    return optimizer


def is_torchs_own(kind: type[Optimizer]) -> bool:
    """Whether the class is one of torch's, not derived from one."""
    return kind.__module__.startswith("torch.optim.")
