"""Look up private names of torch at their first use."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from typing import Any

import torch

from flambeau.errors import FlambeauWarning

FALLBACKS: Mapping[str, str] = {
    "torch._C.DisableTorchFunction": "the modes, which are slower",
    "torch._amp_foreach_non_finite_check_and_unscale_": "the norm of the tensors",
    "torch._dynamo.OptimizedModule._orig_mod": "the assumption that nothing is compiled yet",
    "torch._foreach_add_": "Tensor.add_ for each tensor",
    "torch._foreach_mul_": "Tensor.mul_ for each tensor",
    "torch._foreach_norm": "torch.nn.utils.get_total_norm",
    "torch._fused_adam_": "Adam.step",
    "torch._fused_adamw_": "AdamW.step",
    "torch._fused_sgd_": "SGD.step",
    "torch.autograd.graph._engine_run_backward": "Tensor.backward",
    "torch.nn.Module._compiled_call_impl": "Module.compile(disable=True)",
    "torch.optim.Optimizer._optimizer_step_post_hooks": "Optimizer.step",
    "torch.optim.Optimizer._optimizer_step_pre_hooks": "Optimizer.step",
    "torch.optim.Optimizer.step.__wrapped__": "Optimizer.step",
    "torch.optim.optimizer._global_optimizer_post_hooks": "Optimizer.step",
    "torch.optim.optimizer._global_optimizer_pre_hooks": "Optimizer.step",
    "torch.utils._python_dispatch.TorchDispatchMode": "torch.overrides.TorchFunctionMode",
    "torch.utils.data.DataLoader._shutdown_workers": "the end of the iterator's lifetime",
}
"""Every private name that flambeau uses, and its replacement if torch does not have it."""


@cache
def lookup(name: str) -> Any:
    """Return the object with a private name in a module of torch, or None if it is missing.

    Args:
        name: A key of ``FALLBACKS``; it is looked up once per process.
    """
    module, _, last = _known(name).rpartition(".")
    try:
        return getattr(import_module(module), last, None)
    except ImportError:
        return None


def attribute(owner: object, name: str) -> Any:
    """Return the value of a private attribute of a torch object, or None if it is missing.

    Args:
        owner: The object.
        name: A key of ``FALLBACKS``, whose last part is the name of the attribute.
    """
    return getattr(owner, _known(name).rpartition(".")[2], None)


def warn_of_change(name: str, why: str) -> None:
    """Warn that a private name exists but behaves differently than expected.

    Args:
        name: A key of ``FALLBACKS``.
        why: The error, or the difference found.
    """
    warnings.warn(
        f"{name} of torch {torch.__version__} does not work as expected: {why}. flambeau uses "
        f"{FALLBACKS[name]} instead, which gives the same results but is slower. Check for a "
        "version of flambeau that supports this version of torch.",
        FlambeauWarning,
        stacklevel=2,
    )


def _known(name: str) -> str:
    if name not in FALLBACKS:
        raise KeyError(
            f"{name} has no entry in FALLBACKS. Add one, and a test in which torch lacks this name."
        )
    return name
