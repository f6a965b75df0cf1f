"""``FunctionWatch``: reports activation and attention functions that are not modules.

Many models call ``F.relu`` or ``F.scaled_dot_product_attention`` in ``forward``, where hooks of
modules see nothing. Inside the block, calls by Python code of the functions below are reported;
results are those of the function itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

Report = Callable[[str, Sequence[Any], Mapping[str, Any], Any], None]
"""Called with the name of the function, its arguments, those by name, and its result."""

_T = Tensor
FUNCTIONS: Mapping[Any, str] = {
    **dict.fromkeys((F.relu, torch.relu, torch.relu_, _T.relu, _T.relu_), "relu"),
    **dict.fromkeys((torch.clamp, torch.clamp_min, _T.clamp, _T.clamp_min, _T.clamp_), "clamp"),
    **dict.fromkeys((F.relu6,), "relu6"),
    **dict.fromkeys((F.leaky_relu,), "leaky_relu"),
    **dict.fromkeys((F.elu,), "elu"),
    **dict.fromkeys((F.gelu,), "gelu"),
    **dict.fromkeys((F.silu,), "silu"),
    **dict.fromkeys((F.mish,), "mish"),
    **dict.fromkeys((F.softplus,), "softplus"),
    **dict.fromkeys((F.hardswish,), "hardswish"),
    **dict.fromkeys((F.sigmoid, torch.sigmoid, torch.sigmoid_, _T.sigmoid, _T.sigmoid_), "sigmoid"),
    **dict.fromkeys((F.tanh, torch.tanh, torch.tanh_, _T.tanh, _T.tanh_), "tanh"),
    **dict.fromkeys((F.softmax, torch.softmax, _T.softmax), "softmax"),
    F.scaled_dot_product_attention: "attention",
    F.multi_head_attention_forward: "multi_head_attention",
}
"""Names by function."""


class FunctionWatch(TorchFunctionMode):
    """A context manager that reports calls of ``FUNCTIONS`` after they have returned.

    Args:
        report: Receives the calls.

    Attributes:
        is_active: Whether the block is entered.
    """

    def __init__(self, report: Report) -> None:
        super().__init__()
        self._report = report
        self.is_active = False

    def __enter__(self) -> Self:
        self.is_active = True
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self.is_active = False
        cast("Any", super()).__exit__(*error)

    def __torch_function__(
        self,
        func: Any,
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        named = kwargs or {}
        found = func(*args, **named)
        name = FUNCTIONS.get(func)
        if name is not None and not torch.compiler.is_compiling():
            self._report(name, args, named, found)
        return found
