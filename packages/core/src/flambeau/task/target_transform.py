"""The logarithm of regression targets, and bounds of predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, cast

import torch
from torch import Tensor

from flambeau.errors import ArgumentError, InputError
from flambeau.task.numerics import as_real

LogName = Literal["log", "log1p"]
Bounds = Sequence[float] | Sequence[Sequence[float]]

_SHOWN = 5


def checked_log(log: object) -> LogName | None:
    """Return the name of a logarithm, after checking it.

    Raises:
        ArgumentError: It is neither "log" nor "log1p" nor None.
    """
    if log is None or log in ("log", "log1p"):
        return log
    raise ArgumentError(
        f'log is {log!r}, but must be "log" (the natural logarithm, for targets above 0), "log1p" '
        "(the logarithm of 1 + target, for targets of at least 0) or None."
    )


def checked_bounds(bounds: Bounds | None, n: int) -> tuple[tuple[float, float], ...] | None:
    """Return the bounds of each of ``n`` numbers.

    Args:
        bounds: Lowest and highest prediction: one pair for all numbers, or one for each.
        n: Number of names.

    Raises:
        InputError: There is not one pair for each number, or a pair does not increase.
    """
    if bounds is None:
        return None
    entries: list[Any] = list(bounds)
    is_one = len(entries) == 2 and all(isinstance(each, int | float) for each in entries)
    pairs = [entries] * n if is_one else entries
    found = [tuple(map(float, pair)) for pair in pairs]
    if len(found) != n or any(len(pair) != 2 for pair in found):
        raise InputError(
            f"bounds is {bounds!r:.80}, but must be one pair (lowest, highest), or one for each of "
            f"the {n} names."
        )
    for low, high in cast("list[tuple[float, float]]", found):
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(
                f"bounds contain ({low:g}, {high:g}), but the lowest prediction must be finite and "
                "below the highest. Use the range of the train targets."
            )
    return cast("tuple[tuple[float, float], ...]", tuple(found))


def checked_smearing(values: Any, n: int) -> list[float]:
    """Return the smearing factors of ``n`` numbers.

    Raises:
        InputError: There is not one finite factor above 0 for each.
    """
    found = [float(value) for value in values]
    if len(found) != n or not all(0 < value < math.inf for value in found):
        raise InputError(
            f"The smearing factors are {found}, but there must be one for each of the {n} names, "
            "finite and above 0."
        )
    return found


def to_log(targets: Tensor, log: LogName) -> Tensor:
    """Return the logarithm of targets, in the widest float."""
    values = as_real(targets)
    return values.log() if log == "log" else values.log1p()


def from_log(values: Tensor, log: LogName, smearing: Sequence[float] | None) -> Tensor:
    """Return the targets whose logarithm is ``values``, or their mean with a smearing factor.

    Args:
        values: ``(…, values)``.
        log: The logarithm.
        smearing: Factor of each number on the exponential; None for 1.
    """
    if smearing is None:
        return values.exp() if log == "log" else values.expm1()
    found = values.exp() * torch.tensor(smearing, dtype=values.dtype, device=values.device)
    return found if log == "log" else found - 1


def clipped(values: Tensor, bounds: Sequence[Sequence[float]]) -> Tensor:
    """Return ``(…, values)``, each number within its bounds."""
    low, high = torch.tensor(bounds, dtype=values.dtype, device=values.device).unbind(1)
    return values.clamp(low, high)


def smearing_factors(errors: Iterable[tuple[Tensor, Tensor]]) -> list[float]:
    """Return the mean of the exponential of the errors, for each number.

    Args:
        errors: Errors of the logarithms ``(batch, values)`` and sample weights ``(batch,)``, for
            each batch.

    Raises:
        InputError: There are no samples, or an output is not finite.
    """
    found = [(each.cpu().double(), weights.cpu().double()) for each, weights in errors]
    total = sum(float(weights.sum()) for _, weights in found)
    if not total:
        raise InputError(
            "There are no calibration samples to fit on: the part is empty, or all its samples "
            "have the weight 0 or no target."
        )
    sums = torch.stack([weights @ each.exp() for each, weights in found]).sum(dim=0)
    if not bool(sums.isfinite().all()):
        raise InputError("Some outputs of the model are not finite. Train the model again first.")
    return [float(value) / total for value in sums]


def log_error(
    log: LogName, name: str, targets: Tensor, number: Callable[[int], int], part: str
) -> InputError | None:
    """Return the error for targets without a logarithm; None if all have one.

    Args:
        log: The logarithm.
        name: Name of the task.
        targets: ``(batch, …)``.
        number: Returns the sample number of a row.
        part: " in train" or empty, for the message.
    """
    wrong = targets <= 0 if log == "log" else targets < 0
    if not bool(wrong.any()):
        return None
    needed = "above 0" if log == "log" else "at least 0"
    fix = 'Use log="log1p" if 0 is possible.' if log == "log" else "Use log=None."
    return range_error(f'{name}(log="{log}")', targets, wrong, needed, number, part, fix)


def range_error(
    name: str,
    targets: Tensor,
    wrong: Tensor,
    needed: str,
    number: Callable[[int], int],
    part: str,
    fix: str,
) -> InputError:
    """Return the error for targets out of range, which names their samples.

    Args:
        name: Name of the task.
        targets: ``(batch, …)``.
        wrong: Which of them are out of range, bool.
        needed: The range, in words.
        number: Returns the sample number of a row.
        part: " in train" or empty.
        fix: What to do.
    """
    flat = wrong.reshape(len(wrong), -1)
    rows = [int(row) for row in flat.any(dim=1).nonzero()[: _SHOWN + 1, 0]]
    shown = ", ".join(str(number(row)) for row in rows[:_SHOWN])
    value = float(targets.reshape(len(targets), -1)[flat][0])
    return InputError(
        f"The targets of {name} must be {needed}, but{part} sample "
        f"{shown}{', …' if len(rows) > _SHOWN else ''} {'has' if len(rows) == 1 else 'have'} "
        f"others; the first is {value:g}. {fix}"
    )
