"""Private attributes of modules, loaders and wrappers of torch."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from inspect import signature
from typing import Any, cast

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from flambeau.torch_internals import names

_COMPILED_CALL = "torch.nn.Module._compiled_call_impl"
_ORIGINAL = "torch._dynamo.OptimizedModule._orig_mod"

COMPILED_PREFIX = "_orig_mod."
"""What ``torch.compile(model)`` puts before the names in ``state_dict()``, and so into files."""


def is_compiled(module: nn.Module) -> bool:
    """Return whether ``module`` itself was compiled by ``torch.compile`` or ``Module.compile``."""
    return any(names.attribute(module, name) is not None for name in (_ORIGINAL, _COMPILED_CALL))


def remove_compilation(module: nn.Module) -> None:
    """Make a module that ``Module.compile`` compiled run as it is written."""
    if names.attribute(module, _COMPILED_CALL) is None:
        cast("Any", module).compile(disable=True)  # without effect, but for one more call
    else:
        # What ``Module.compile`` sets, and what ``Module.__call__`` reads.
        vars(module)["_compiled_call_impl"] = None


def shut_down_workers(batches: object, error: BaseException) -> None:
    """Stop the worker processes of a ``DataLoader`` one of which has died.

    Otherwise DataLoader's signal handler may raise the same error again, anywhere in the caller's
    code. Where torch's function is missing, the workers stop with the last reference to the
    iterator; delete yours after the call.

    Args:
        batches: The loader's iterator. Nothing is done for iterators without workers.
        error: What it raised. Where torch's function is missing, the local variables of the frames
            in its traceback are cleared, because they refer to the iterator.
    """
    shut_down = names.attribute(batches, "torch.utils.data.DataLoader._shutdown_workers")
    if shut_down is not None:
        with suppress(RuntimeError):
            shut_down()
    elif type(batches).__module__.startswith("torch.utils.data."):
        traceback.clear_frames(error.__traceback__)


@cache
def ddp_without_buffer_copies() -> Mapping[str, Any]:
    """Return the argument by which ``DistributedDataParallel`` leaves buffers alone.

    torch 2.15 renamed it and warns of the old name.
    """
    new = "forward_sync_buffers"
    known = signature(DistributedDataParallel).parameters
    return {new if new in known else "broadcast_buffers": False}


def dispatch_mode_class() -> type[Any] | None:
    """Return torch's class of contexts that see every operation, also those that C++ code calls.

    Where it is missing, ``torch.overrides.TorchFunctionMode`` sees those that Python code calls.
    """
    return names.lookup("torch.utils._python_dispatch.TorchDispatchMode")
