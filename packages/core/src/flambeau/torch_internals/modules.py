"""Private attributes of torch's modules, loaders and wrappers."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from inspect import signature
from typing import Any, cast

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from flambeau.torch_internals import names

_COMPILED_CALL = "torch.nn.Module._compiled_call_impl"
_ORIGINAL = "torch._dynamo.OptimizedModule._orig_mod"

COMPILED_PREFIX = "_orig_mod."
"""Prefix that ``torch.compile(model)`` adds to the names in ``state_dict()`` and thus in files."""


def is_compiled(module: nn.Module) -> bool:
    """Return whether ``module`` itself was compiled by ``torch.compile`` or ``Module.compile``."""
    return any(names.attribute(module, name) is not None for name in (_ORIGINAL, _COMPILED_CALL))


def compiled_module(module: nn.Module) -> nn.Module | None:
    """Return the module inside the wrapper of ``torch.compile``; None for any other module."""
    # Of the registered modules alone: other wrappers forward attributes to the inner module.
    if names.attribute(module, _ORIGINAL) is None:
        return None
    return dict(module.named_children()).get(COMPILED_PREFIX.rstrip("."))


def remove_compilation(module: nn.Module) -> None:
    """Remove the compilation of a module that ``Module.compile`` compiled."""
    if names.attribute(module, _COMPILED_CALL) is None:
        cast("Any", module).compile(disable=True)  # no effect except one more call
    else:
        # ``Module.compile`` sets this attribute and ``Module.__call__`` reads it.
        vars(module)["_compiled_call_impl"] = None


def shut_down_workers(batches: object, error: BaseException) -> None:
    """Stop the worker processes of a ``DataLoader`` after one worker has died.

    Otherwise DataLoader's signal handler may raise the same error again, anywhere in the caller's
    code. If torch's function is missing, the workers stop when the last reference to the iterator
    is deleted; delete your own reference after the call.

    Args:
        batches: The loader's iterator. Nothing is done for iterators without workers.
        error: The exception that the iterator raised. If torch's function is missing, the local
            variables of the frames in its traceback are cleared, because they refer to the
            iterator.
    """
    shut_down = names.attribute(batches, "torch.utils.data.DataLoader._shutdown_workers")
    if shut_down is not None:
        with suppress(RuntimeError):
            shut_down()
    elif type(batches).__module__.startswith("torch.utils.data."):
        traceback.clear_frames(error.__traceback__)


def is_dead_worker(error: BaseException) -> bool:
    """Return whether an error is that of a ``DataLoader`` whose worker process died.

    The handler of its signal raises it wherever the main process is, also in the middle of a step.
    """
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


@cache
def ddp_without_buffer_copies() -> Mapping[str, Any]:
    """Return the argument with which ``DistributedDataParallel`` does not copy buffers.

    torch 2.15 renamed this argument and deprecated the old name.
    """
    new = "forward_sync_buffers"
    known = signature(DistributedDataParallel).parameters
    return {new if new in known else "broadcast_buffers": False}


def dispatch_mode_class() -> type[Any] | None:
    """Return ``TorchDispatchMode``, which intercepts every operation, also those called by C++.

    None if this class is missing; ``torch.overrides.TorchFunctionMode`` can replace it, but
    intercepts only operations called by Python.
    """
    return names.lookup("torch.utils._python_dispatch.TorchDispatchMode")


def without_function_modes() -> AbstractContextManager[object]:
    """Return a context in which no ``TorchFunctionMode`` sees the calls; nothing without the name.

    A mode makes each call of a torch function almost twice as long.
    """
    found = names.lookup("torch._C.DisableTorchFunction")
    return nullcontext() if found is None else found()
