"""``OperatorCounter``: counts the operators of a block, and the values that the host reads."""

from __future__ import annotations

import inspect
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import FrameType
from typing import Any, cast

import torch
from torch import Tensor

from flambeau.inspect.code_times import is_library
from flambeau.torch_internals import dispatch_mode_class

_READS = ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal")
"""Operators whose result depends on values, so that the host waits for the device."""

_COPIES = ("aten::_to_copy", "aten::copy_")


class OperatorCounter:
    """Counts what happens inside ``counting()``.

    Args:
        device: Values on this device count as read.

    Attributes:
        operators: Number of operators that were called.
        reads: Number of reads by place in the code, "function (file:line)". The place is the
            user-defined function nearest to the read, else the one of flambeau.
        wait_s: Seconds that the host spent in these reads.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.operators = 0
        self.reads: Counter[str] = Counter()
        self.wait_s = 0.0

    def counting(self) -> AbstractContextManager[object]:
        """Return a context manager that counts; it does nothing if this torch cannot count."""
        mode = dispatch_mode_class()
        if mode is None:
            return nullcontext()
        counter = self

        class Counting(mode):
            def __torch_dispatch__(
                self,
                operator: Any,
                types: Any,
                arguments: tuple[Any, ...] = (),
                named: Mapping[str, Any] | None = None,
            ) -> Any:
                return counter.call(operator, arguments, named or {})

        return cast("AbstractContextManager[object]", Counting())

    def call(
        self, operator: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]
    ) -> Any:
        """Call an operator and count it."""
        self.operators += 1
        if not self._is_read(operator, arguments, named):
            return operator(*arguments, **named)
        self.reads[place_of(inspect.currentframe())] += 1
        started = time.perf_counter()
        result = operator(*arguments, **named)
        self.wait_s += time.perf_counter() - started
        return result

    def _is_read(
        self, operator: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any]
    ) -> bool:
        name = str(cast("Any", operator).name()).partition(".")[0]
        tensors = [value for value in arguments if isinstance(value, Tensor)]
        if name in _READS:
            return any(value.device.type == self._device.type for value in tensors)
        if name not in _COPIES or self._device.type == "cpu" or named.get("non_blocking"):
            return False
        source = tensors[-1] if tensors else None
        target = tensors[0].device if name == "aten::copy_" and tensors else named.get("device")
        if source is None or target is None:
            return False
        return source.device.type == self._device.type and torch.device(target).type == "cpu"


def place_of(frame: FrameType | None) -> str:
    """Return where a value is read: in the nearest user-defined function, else in flambeau.

    Args:
        frame: The innermost frame.
    """
    inside = ""
    while frame is not None:
        code, module = frame.f_code, str(frame.f_globals.get("__name__", ""))
        place = f"{code.co_name} ({Path(code.co_filename).name}:{frame.f_lineno})"
        if not is_library(code.co_filename):
            return place
        if not inside and module.startswith("flambeau") and module != __name__:
            inside = f"flambeau: {place}"
        if module == "flambeau.training.loop":
            break  # what called the loop does not read
        frame = frame.f_back
    return inside
