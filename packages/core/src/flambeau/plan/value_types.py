"""What values a key of the plan takes, so that an invalid one is refused where it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from flambeau.wording import first_line


@dataclass(frozen=True)
class ValueType:
    """The values that a key takes, whatever the data are.

    Attributes:
        description: What a value must be, as it follows "it must be" in a message.
        accepts: Whether a value is one of them.
    """

    description: str
    accepts: Callable[[Any], bool]

    def fault(self, value: Any) -> str | None:
        """Return what the value must be; None where it is valid."""
        return None if self.accepts(value) else self.description


class DeviceType(ValueType):
    """Devices of this machine that compute."""

    def __init__(self) -> None:
        super().__init__("a device of this machine.", lambda value: self.fault(value) is None)

    def fault(self, value: Any) -> str | None:
        try:
            device = torch.device(value)
            if device.type == "meta":
                return "a device that computes; meta tensors hold no numbers."
            # Only creating a tensor shows whether this machine has it.
            torch.empty(1, device=device)
        except (TypeError, RuntimeError, AssertionError, NotImplementedError) as error:
            return f'a device of this machine ("cpu" always is): {first_line(error)}'
        return None


def whole(least: int, unit: str) -> ValueType:
    """Whole numbers from ``least`` on."""
    # bool is an int to Python, but nobody means True samples.
    return ValueType(
        f"a whole number of {unit}, at least {least}.",
        lambda value: type(value) is int and value >= least,
    )


def positive(description: str) -> ValueType:
    """Finite numbers above 0."""
    return ValueType(description, lambda value: _is_finite(value) and value > 0)


def not_negative(description: str) -> ValueType:
    """Finite numbers from 0 on."""
    return ValueType(description, lambda value: _is_finite(value) and value >= 0)


def one_of(names: Collection[str]) -> ValueType:
    """One of these names."""
    return ValueType(
        f"one of {', '.join(sorted(names))}.",
        lambda value: isinstance(value, str) and value in names,
    )


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _is_float_dtype(value: Any) -> bool:
    dtype: object = getattr(torch, value, None) if isinstance(value, str) else None
    return value is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point)


def _is_groups(value: Any) -> bool:
    names = cast("list[Any]", value) if isinstance(value, list | tuple) else []
    is_list = bool(names) and all(isinstance(name, str) for name in names)
    return is_list or value in ("all", "head")


def _is_outcome(value: Any) -> bool:
    is_recorded = isinstance(value, Mapping) and {"segments", "steps", "recipe"} <= value.keys()
    return value is None or is_recorded


TRUE_OR_FALSE = ValueType("True or False.", lambda value: isinstance(value, bool))

FLOAT_DTYPE = ValueType(
    'None (the dtype of the data) or a floating-point dtype of torch by name ("float32").',
    _is_float_dtype,
)

PARAMETER_GROUPS = ValueType(
    '"all", "head", or a list of parameter groups, from stem to head.', _is_groups
)

AUTO_OUTCOME = ValueType("None, or what fit_auto recorded in a plan.", _is_outcome)
