"""Compare short runs at several learning rates: next rate to try, best rate, uncertainty.

Pure functions of numbers; ``lr_finder`` makes the runs. Adjacent rates differ by the factor
``STEP``: the rate with index k is ``center * STEP**k``, where the sweep has found ``center``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from flambeau.tuning.lr_curve import Level

STEP = 10.0 ** (1.0 / 3.0)

# Decrease of the loss, in standard errors, that is significant. The best of several runs is
# compared, for which chance alone gives 2 to 3.
_SIGNIFICANT = 3.5
_MIN_DECREASE = 0.01
# Difference of two runs, in standard errors, that is significant.
_SIGNIFICANT_DIFFERENCE = 2.0
_MIN_LOSSES = 3
_MAX_STEPS_ABOVE = 3  # rates above the best that are tried
# Correction from short to longer runs, in multiples of STEP: a factor of 1.36, the geometric mean
# over ten tasks of the ratio of the best rates in runs of 100 and of 30 steps.
_LONG_RUN_SHIFT = 0.4


@dataclass(frozen=True)
class ShortRun:
    """A one-cycle run of a few steps.

    Attributes:
        number: Index of the learning rate.
        batch_order: Runs with the same ``batch_order`` use the same batches in the same order.
        rate: Peak learning rate.
        length: Planned number of steps.
        losses: Mean loss of each step; fewer than ``length`` if the run diverged.
    """

    number: int
    batch_order: int
    rate: float
    length: int
    losses: tuple[float, ...]

    @property
    def end(self) -> tuple[float, ...]:
        """The losses of the last third, in which the rate decays; empty if the run diverged."""
        diverged = len(self.losses) < self.length or not all(map(math.isfinite, self.losses))
        return () if diverged else self.losses[-max(_MIN_LOSSES, self.length // 3) :]

    @property
    def loss(self) -> float:
        """Mean loss at the end of the run; infinite if it diverged."""
        return fmean(self.end) if self.end else math.inf


def losses_of(runs: Sequence[ShortRun]) -> dict[int, float]:
    """Return the mean final loss of each rate, by index."""
    numbers = sorted({run.number for run in runs})
    return {k: fmean(run.loss for run in runs if run.number == k) for k in numbers}


def next_number(runs: Sequence[ShortRun]) -> int | None:
    """Return the index of the rate to try next; None if both neighbours of the best are worse.

    Higher rates are tried until one is significantly worse: of rates with similar losses after few
    steps, the higher ones are better in longer runs.
    """
    losses = losses_of(runs)
    if not losses:
        return 0
    if min(losses.values()) == math.inf:
        return min(losses) - 2
    best = best_number(losses)
    # Lower first: if a rate is too high, so is the one above it.
    if best - 1 not in losses:
        return best - 1
    for k in range(best + 1, best + _MAX_STEPS_ABOVE + 1):
        if k not in losses:
            return k
        if _worse(runs, k, best):
            break
    return None


def best_number(losses: dict[int, float]) -> int:
    """Return the index of the rate with the lowest loss."""
    return min(losses, key=losses.__getitem__)


def is_noisy(runs: Sequence[ShortRun]) -> bool:
    """Return whether the best rate is not significantly better than an adjacent rate."""
    losses = losses_of(runs)
    best = best_number(losses)
    return any(not _worse(runs, k, best) for k in (best - 1, best + 1) if k in losses)


def rate_of(runs: Sequence[ShortRun]) -> float:
    """Return the learning rate for a longer run.

    It is the minimum of the parabola through the best loss and the two adjacent losses, as a
    function of the logarithm of the rate, raised by ``_LONG_RUN_SHIFT``. If the next higher rate
    diverges, the minimum is half a step below the best rate, the limit for an infinite loss.
    """
    losses = losses_of(runs)
    best = best_number(losses)
    middle = next(run.rate for run in runs if run.number == best)
    below, above = losses.get(best - 1, math.inf), losses.get(best + 1, math.inf)
    if best + 1 in losses and above == math.inf:
        return middle * STEP**-0.5
    shift = 0.0
    if max(below, above) < math.inf:
        bend = below - 2.0 * losses[best] + above
        shift = 0.5 * (below - above) / bend if bend > 0.0 else 0.0
    return middle * STEP ** (shift + _LONG_RUN_SHIFT)


def range_of(runs: Sequence[ShortRun]) -> tuple[float, float]:
    """Return the lowest and the highest rate that are not significantly worse than the best.

    The range contains at least half a step, the resolution of the search, around ``rate_of``.
    """
    value, losses = rate_of(runs), losses_of(runs)
    best = best_number(losses)
    rates = {run.number: run.rate for run in runs}
    alike = [rates[k] for k in losses if k == best or not _worse(runs, k, best)]
    return min(*alike, value * STEP**-0.5), max(*alike, value * STEP**0.5)


def why_no_decrease(level: Level, runs: Sequence[ShortRun]) -> str:
    """Return why the decrease of the loss is not significant; empty if it is significant."""
    losses = losses_of(runs)
    best = best_number(losses)
    low, high = min(run.rate for run in runs), max(run.rate for run in runs)
    if losses[best] == math.inf:
        return f"all {len(runs)} short runs at learning rates from {low:.2g} to {high:.2g} diverged"
    n = sum(len(run.end) for run in runs if run.number == best)
    error = level.scatter * math.sqrt(1 / n + 1 / level.n)
    fall = level.loss - losses[best]
    if fall > max(0.0, _MIN_DECREASE * abs(level.loss), _SIGNIFICANT * error):
        return ""
    return (
        f"the loss does not decrease at any learning rate from {low:.2g} to {high:.2g}: it starts "
        f"at {level.loss:.4g} ± {level.scatter:.2g} (between batches), and is {losses[best]:.4g} "
        f"after the best of {len(losses)} short runs"
    )


def _worse(runs: Sequence[ShortRun], number: int, best: int) -> bool:
    """Return whether a rate is significantly worse than the best one, in a paired comparison."""
    by_draw = {(run.number, run.batch_order): run for run in runs}
    differences: list[float] = []
    for run in runs:
        if run.number != number or (best, run.batch_order) not in by_draw:
            continue
        if not run.end:
            return True
        pairs = zip(run.end, by_draw[best, run.batch_order].end, strict=True)
        differences += [loss - best_loss for loss, best_loss in pairs]
    if len(differences) < _MIN_LOSSES:
        return False
    error = stdev(differences) / math.sqrt(len(differences))
    return fmean(differences) > _SIGNIFICANT_DIFFERENCE * error
