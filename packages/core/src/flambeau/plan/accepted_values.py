"""Which values core's keys take, so that a wrong one is refused where it is given."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, cast

import torch

from flambeau.errors import PlanError
from flambeau.phases.bn_policy import BATCH_NORM_POLICIES
from flambeau.phases.schedule import SHAPES
from flambeau.phases.setting_names import (
    COMPILE_MODES,
    MEMORY_FORMATS,
    OPTIMIZER_NAMES,
    PRECISIONS,
)
from flambeau.plan.rules_machine import PROBE


def check_values(values: Mapping[str, Any], *, leave: Collection[str] = ()) -> None:
    """Refuses values that nothing could be made from.

    Args:
        values: By key; keys that are not core's are not looked at.
        leave: Keys that somebody else reads (``"optimizer"`` with a factory of the user's own).

    Raises:
        PlanError: Naming the key, the value and what it may be.
    """
    for key, value in values.items():
        check = _CHECKS.get(key)
        fault = check(value) if check is not None and key not in leave else None
        if fault is not None:
            raise PlanError(f"{key} is {value!r}, but it must be {fault}")


def _whole(least: int, unit: str) -> Callable[[Any], str | None]:
    wanted = f"a whole number of {unit}, at least {least}."

    def check(value: Any) -> str | None:
        # bool is an int to Python, but nobody means True samples.
        return None if type(value) is int and value >= least else wanted

    return check


def _number(wanted: str, *, zero: bool) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        is_number = type(value) in (int, float) and math.isfinite(value)
        return None if is_number and (value > 0 or (zero and value == 0)) else wanted

    return check


def _one_of(names: Collection[str]) -> Callable[[Any], str | None]:
    def check(value: Any) -> str | None:
        known = isinstance(value, str) and value in names
        return None if known else f"one of {', '.join(sorted(names))}."

    return check


def _device(value: Any) -> str | None:
    try:
        device = torch.device(value)
        if device.type == "meta":
            return "a device that computes; meta tensors hold no numbers."
        # Only making a tensor shows whether this machine has it.
        torch.empty(1, device=device)
    except (TypeError, RuntimeError, AssertionError, NotImplementedError) as error:
        return f'a device of this machine ("cpu" always is): {str(error).splitlines()[0]}'
    return None


def _float_dtype(value: Any) -> str | None:
    dtype: object = getattr(torch, value, None) if isinstance(value, str) else None
    if value is None or (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        return None
    return 'None (as it comes) or a floating-point dtype of torch by name ("float32").'


def _groups(value: Any) -> str | None:
    names = cast("list[Any]", value) if isinstance(value, list | tuple) else []
    if value in ("all", "head") or (names and all(isinstance(name, str) for name in names)):
        return None
    return '"all", "head", or a list of parameter groups, from stem to head.'


def _yes_or_no(value: Any) -> str | None:
    return None if isinstance(value, bool) else "True or False."


def _outcome(value: Any) -> str | None:
    is_one = isinstance(value, Mapping) and {"segments", "steps", "recipe"} <= value.keys()
    return None if value is None or is_one else "None, or what fit_auto recorded in a plan."


_CHECKS: Mapping[str, Callable[[Any], str | None]] = {
    "accumulate": _whole(1, "batches in a step"),
    "auto": _outcome,
    "batch_size": _whole(1, "samples"),
    "bn": _one_of(BATCH_NORM_POLICIES),
    "compile": _one_of(COMPILE_MODES),
    "device": _device,
    "epochs": _whole(1, "passes over the train set"),
    "input_dtype": _float_dtype,
    "lr": _number("a finite number above 0: the peak learning rate.", zero=False),
    "memory_format": _one_of(MEMORY_FORMATS),
    "num_threads": _whole(1, "threads"),
    "num_workers": _whole(0, "processes"),
    "optimizer": _one_of(OPTIMIZER_NAMES),
    "precision": _one_of(PRECISIONS),
    "probe": _one_of(PROBE),
    "schedule": _one_of(SHAPES),
    "strict": _yes_or_no,
    "trainable": _groups,
    "weight_decay": _number("a finite number, at least 0.", zero=True),
}
