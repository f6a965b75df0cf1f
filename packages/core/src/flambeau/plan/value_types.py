"""Types of the plan's values; an invalid value is refused when it is set."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch

from flambeau.errors import FlambeauError, did_you_mean
from flambeau.phases.schedule import SHAPES, TORCH_SCHEDULE, Schedule, is_torch_scheduler
from flambeau.wording import first_line


@dataclass(frozen=True)
class ValueType:
    """The valid values of a key, independent of the data.

    Attributes:
        description: Phrase that follows "it must be" in a message.
        accepts: Returns whether a value is valid.
    """

    description: str
    accepts: Callable[[Any], bool]

    def fault(self, value: Any) -> str | None:
        """Return a description of valid values if ``value`` is invalid, else None."""
        return None if self.accepts(value) else self.description


class DeviceType(ValueType):
    """The value type of the plan key "device": a device that this machine has."""

    def __init__(self) -> None:
        super().__init__("a device of this machine.", lambda value: self.fault(value) is None)

    def fault(self, value: Any) -> str | None:
        try:
            device = torch.device(value)
            if device.type == "meta":
                return "a real device; tensors on the meta device have no data."
            # Creating a tensor is the only reliable check that the device exists.
            torch.empty(1, device=device)
        except (TypeError, RuntimeError, AssertionError, NotImplementedError) as error:
            if value == "gpu":
                return 'a device of this machine. Did you mean "cuda"?'
            cause = first_line(error)
            if "Expected one of" in cause:
                cause = did_you_mean(str(value), ("cpu", "cuda", "cuda:0", "mps", "xpu"))
            return f'a device of this machine, such as "cpu": {cause}'
        return None


@dataclass(frozen=True)
class NameType(ValueType):
    """The strings ``names``."""

    names: Collection[str] = ()

    def fault(self, value: Any) -> str | None:
        fault = super().fault(value)
        hint = did_you_mean(value, self.names) if isinstance(value, str) else ""
        return f"{fault} {hint}" if fault and hint.startswith("Did") else fault


def whole(least: int, unit: str) -> ValueType:
    """Return the type of whole numbers that are at least ``least``."""
    # bool is a subclass of int, but is not a valid number here.
    return ValueType(
        f"a whole number of {unit}, at least {least}.",
        lambda value: type(value) is int and value >= least,
    )


def positive(description: str) -> ValueType:
    """Return the type of finite numbers above 0."""
    return ValueType(description, lambda value: is_number(value) and value > 0)


def not_negative(description: str) -> ValueType:
    """Return the type of finite numbers that are at least 0."""
    return ValueType(description, lambda value: is_number(value) and value >= 0)


def one_of(names: Collection[str]) -> ValueType:
    """Return the type of strings in ``names``."""
    return NameType(
        f"one of {', '.join(sorted(names))}.",
        lambda value: isinstance(value, str) and value in names,
        names,
    )


class ScheduleName(NameType):
    """The type of the names of schedules."""

    def __init__(self) -> None:
        names = one_of(SHAPES)
        super().__init__(names.description, names.accepts, SHAPES)

    def fault(self, value: Any) -> str | None:
        fault = super().fault(value)
        return f"{fault} {TORCH_SCHEDULE}" if fault and is_torch_scheduler(value) else fault


class SchedulesType(ValueType):
    """The type of schedules by the name of the scheduled value, as JSON."""

    _ENTRIES = frozenset({"shape", "peak", "options"})

    def __init__(self) -> None:
        super().__init__(
            "schedules by the name of the value, as a mapping with a shape, and with options and a "
            'peak if needed: {"weight_decay": {"shape": "flat_cos", "options": {"pct_start": 0.5}}}'
            ". The plan's own value is the default peak.",
            lambda value: self.fault(value) is None,
        )

    def fault(self, value: Any) -> str | None:
        if not isinstance(value, Mapping):
            return self.description
        for name, entry in cast("Mapping[Any, Any]", value).items():
            if name == "lr":
                return 'schedules of values other than "lr", whose shape is the plan\'s "schedule".'
            known = isinstance(entry, Mapping) and "shape" in entry and {*entry} <= self._ENTRIES
            if not known or not isinstance(name, str):
                return self.description
            fields = cast("Mapping[str, Any]", entry)
            try:
                Schedule(fields["shape"], fields.get("peak", 1.0), fields.get("options", {}))
            except (FlambeauError, TypeError, AttributeError) as error:
                return f"valid schedules, but that of {name!r} is not: {first_line(error)}"
        return None


def is_number(value: Any) -> bool:
    """Return whether the value is a finite int or float of Python."""
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
