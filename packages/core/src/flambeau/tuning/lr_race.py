"""Short runs at several learning rates, compared: which rate is next, which is best, how surely.

Pure functions of numbers; ``lr_finder`` makes the runs. The rates are a factor ``STEP`` apart and
numbered: rate number k is ``center * STEP**k``, where ``center`` is what the sweep before has found.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from flambeau.tuning.lr_curve import Level

STEP = 10.0 ** (1.0 / 3.0)

# A fall of the loss counts when it is this many standard errors. The best of several runs is
# looked at, of which chance alone makes 2 to 3.
_SIGNIFICANT = 3.5
_MIN_DECREASE = 0.01
# Two runs differ when their losses do by this many standard errors.
_SIGNIFICANT_DIFFERENCE = 2.0
_MIN_LOSSES = 3
_MAX_STEPS_ABOVE = 3  # steps above the best that are tried
# What the best rate of longer runs is above that of short ones, in steps: a factor 1.36, the
# geometric mean over ten tasks of runs of 100 steps against runs of 30.
_LONG_RUN_SHIFT = 0.4


@dataclass(frozen=True)
class ShortRun:
    """A run of a few steps, its rate up to a peak and down again.

    Attributes:
        number: Of the rate.
        batch_order: Runs with the same one saw the same batches in the same order.
        rate: The peak.
        length: Steps it was to have.
        losses: Mean loss of each step made; fewer than ``length`` where it broke.
    """

    number: int
    batch_order: int
    rate: float
    length: int
    losses: tuple[float, ...]

    @property
    def end(self) -> tuple[float, ...]:
        """The losses of the last third, where the rate goes to zero; empty where it broke."""
        broke = len(self.losses) < self.length or not all(map(math.isfinite, self.losses))
        return () if broke else self.losses[-max(_MIN_LOSSES, self.length // 3) :]

    @property
    def loss(self) -> float:
        """What it came to: the mean of its end; infinite where it broke."""
        return fmean(self.end) if self.end else math.inf


def losses_of(runs: Sequence[ShortRun]) -> dict[int, float]:
    """The mean loss of each rate, by its number."""
    numbers = sorted({run.number for run in runs})
    return {k: fmean(run.loss for run in runs if run.number == k) for k in numbers}


def next_number(runs: Sequence[ShortRun]) -> int | None:
    """The rate to try next; None once the best one has a worse one on either side.

    Upwards until one is worse by more than chance: of rates that do alike after few steps the
    higher ones do better in the end.
    """
    losses = losses_of(runs)
    if not losses:
        return 0
    if min(losses.values()) == math.inf:
        return min(losses) - 2
    best = best_number(losses)
    # Lower first: where a rate is too high, the one above it is as well.
    if best - 1 not in losses:
        return best - 1
    for k in range(best + 1, best + _MAX_STEPS_ABOVE + 1):
        if k not in losses:
            return k
        if _worse(runs, k, best):
            break
    return None


def best_number(losses: dict[int, float]) -> int:
    """The number with the lowest loss."""
    return min(losses, key=losses.__getitem__)


def is_noisy(runs: Sequence[ShortRun]) -> bool:
    """Whether chance may have put the best rate before the one next to it."""
    losses = losses_of(runs)
    best = best_number(losses)
    return any(not _worse(runs, k, best) for k in (best - 1, best + 1) if k in losses)


def rate_of(runs: Sequence[ShortRun]) -> float:
    """The rate for a longer run.

    It is at the lowest point of the parabola through the best loss and those beside it, in the
    logarithm of the rate, and ``_LONG_RUN_SHIFT`` above. Where the rate above the best one breaks, the
    parabola's limit: half a step below the best, and no higher.
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
    """The lowest and the highest rate that do as well as the best, as far as the noise tells.

    At least half a step around ``rate_of``, which is how finely the rates were tried.
    """
    value, losses = rate_of(runs), losses_of(runs)
    best = best_number(losses)
    rates = {run.number: run.rate for run in runs}
    alike = [rates[k] for k in losses if k == best or not _worse(runs, k, best)]
    return min(*alike, value * STEP**-0.5), max(*alike, value * STEP**0.5)


def why_no_decrease(level: Level, runs: Sequence[ShortRun]) -> str:
    """Why the fall of the loss is no more than chance; empty where it is more."""
    losses = losses_of(runs)
    best = best_number(losses)
    low, high = min(run.rate for run in runs), max(run.rate for run in runs)
    if losses[best] == math.inf:
        return f"all {len(runs)} short runs at rates from {low:.2g} to {high:.2g} broke"
    n = sum(len(run.end) for run in runs if run.number == best)
    error = level.scatter * math.sqrt(1 / n + 1 / level.n)
    fall = level.loss - losses[best]
    if fall > max(0.0, _MIN_DECREASE * abs(level.loss), _SIGNIFICANT * error):
        return ""
    return (
        f"the loss falls at no rate from {low:.2g} to {high:.2g}: it begins at {level.loss:.4g} ± "
        f"{level.scatter:.2g} from batch to batch, and the best of {len(losses)} short runs came "
        f"to {losses[best]:.4g}"
    )


def _worse(runs: Sequence[ShortRun], number: int, best: int) -> bool:
    """Whether a rate does worse than the best one by more than chance, batch for batch."""
    by_draw = {(run.number, run.batch_order): run for run in runs}
    differences: list[float] = []
    for run in runs:
        if run.number != number or (best, run.batch_order) not in by_draw:
            continue
        if not run.end:
            return True
        pairs = zip(run.end, by_draw[best, run.batch_order].end, strict=True)
        differences += [mine - theirs for mine, theirs in pairs]
    if len(differences) < _MIN_LOSSES:
        return False
    error = stdev(differences) / math.sqrt(len(differences))
    return fmean(differences) > _SIGNIFICANT_DIFFERENCE * error
