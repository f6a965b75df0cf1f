"""All private names of torch that flambeau uses, and their public replacements.

A release of torch may remove or change a private name without notice. Therefore these names are
used only in this package, under three rules:

- Private names are read at their first use, not at import.
- Each name has a public replacement (``FALLBACKS``), which is used if the name is missing.
- Functions whose arguments or results might change are tried on small tensors before the first use.

Code that runs in every step looks up a function once and keeps it.
"""

from flambeau.torch_internals.backward import divided_backward
from flambeau.torch_internals.fused_groups import (
    FusedGroup,
    fused_group_class,
    may_call_kernel,
    reads_found_inf,
)
from flambeau.torch_internals.modules import (
    COMPILED_PREFIX,
    compiled_module,
    ddp_without_buffer_copies,
    dispatch_mode_class,
    is_compiled,
    is_dead_worker,
    remove_compilation,
    shut_down_workers,
    without_function_modes,
)
from flambeau.torch_internals.names import FALLBACKS
from flambeau.torch_internals.optimizers import (
    build_optimizer,
    is_from_torch,
    step_hooks,
    torch_step,
    unwrapped,
)
from flambeau.torch_internals.tensor_lists import (
    FlagNonFinite,
    adder,
    non_finite_flagger,
    scale_,
    total_norm,
)

__all__ = [
    "COMPILED_PREFIX",
    "FALLBACKS",
    "FlagNonFinite",
    "FusedGroup",
    "adder",
    "build_optimizer",
    "compiled_module",
    "ddp_without_buffer_copies",
    "dispatch_mode_class",
    "divided_backward",
    "fused_group_class",
    "is_compiled",
    "is_dead_worker",
    "is_from_torch",
    "may_call_kernel",
    "non_finite_flagger",
    "reads_found_inf",
    "remove_compilation",
    "scale_",
    "shut_down_workers",
    "step_hooks",
    "torch_step",
    "total_norm",
    "unwrapped",
    "without_function_modes",
]
