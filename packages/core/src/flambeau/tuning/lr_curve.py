"""Analysis of a learning-rate sweep: initial loss, lowest loss, divergence.

Pure functions of numbers; ``lr_finder`` runs the sweep.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

_WINDOW = 5  # steps of the moving average: a decade of learning rates
_MIN_STEPS = 6


@dataclass(frozen=True)
class Sweep:
    """One training run with increasing learning rates.

    Attributes:
        rates: Learning rate of each step, increasing.
        losses: Mean loss of each step, computed before its update.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def finite(self) -> int:
        """Number of steps before the first loss that is not finite."""
        return next((i for i, x in enumerate(self.losses) if not math.isfinite(x)), len(self.rates))

    def smoothed(self) -> list[float]:
        """Return the moving average of the finite losses."""
        return smoothed(self.losses[: self.finite])


@dataclass(frozen=True)
class Level:
    """The initial loss, with the weights from which the sweep and every short run start.

    Attributes:
        loss: Median over the first batches of the sweep.
        scatter: Standard deviation between batches.
        n: Number of batches.
    """

    loss: float
    scatter: float
    n: int


def smoothed(values: Sequence[float]) -> list[float]:
    """Return the centred moving average; the window is shorter at both ends."""
    half = _WINDOW // 2
    return [fmean(values[max(0, i - half) : i + half + 1]) for i in range(len(values))]


def level_of(losses: Sequence[float]) -> Level:
    """Return the initial loss from the first third of a sweep; its low rates do not change it."""
    first = losses[: max(_MIN_STEPS, len(losses) // 3)]
    middle = median(first)
    # Robust to outliers; 1.4826 converts it to the standard deviation of a normal distribution.
    return Level(middle, 1.4826 * median(abs(x - middle) for x in first), len(first))


def has_diverged(losses: Sequence[float]) -> bool:
    """Return whether a sweep has diverged: the loss is not finite, or far above its start."""
    if not math.isfinite(losses[-1]):
        return True
    if len(losses) < 2 * _MIN_STEPS:
        return False
    level = level_of(losses)
    fallen = max(0.0, level.loss - min(smoothed(losses)))
    return fmean(losses[-3:]) > level.loss + max(fallen, 0.2 * abs(level.loss), 4 * level.scatter)


def why_unusable(sweep: Sweep) -> str:
    """Return why a sweep cannot be analysed; empty if it can be analysed."""
    if sweep.finite >= _MIN_STEPS:
        return ""
    if sweep.finite == 0:
        return "the loss is not finite at the first step"
    return (
        f"the loss is not finite after {sweep.finite} steps, at lr "
        f"{sweep.rates[sweep.finite - 1]:.3g}"
    )


def lowest(sweep: Sweep, level: Level) -> float:
    """Return the centre of the rates whose smoothed loss is in the lowest 5 % of its range."""
    curve = sweep.smoothed()
    low = min(curve)
    bottom = low + 0.05 * max(0.0, level.loss - low)
    first = last = curve.index(low)
    while first > 0 and curve[first - 1] <= bottom:
        first -= 1
    while last + 1 < len(curve) and curve[last + 1] <= bottom:
        last += 1
    return math.sqrt(sweep.rates[first] * sweep.rates[last])
