"""How far a score may be from what more samples would show: bootstrap and Wilson intervals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.errors import InputError

Statistic = Callable[..., Tensor]
"""Takes columns with a leading axis of resamples, ``(resamples, n, …)``; gives ``(resamples,)``."""

_MOST_NUMBERS = 4_000_000  # resampled at once: 32 MB of row numbers


@dataclass(frozen=True)
class Interval:
    """A figure and the range in which it would fall for other samples of the same kind.

    Attributes:
        value: The figure for the samples at hand.
        low: Lower end.
        high: Upper end.
        level: Share of such intervals that hold the true value, 0..1.
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


def wilson(successes: int, n: int, level: float = 0.95) -> Interval:
    """The interval of a share: right ones among ``n`` that are independent.

    It stays within 0..1 and has a width even where all or none are right, unlike the usual one.

    Args:
        successes: How many are right, 0..n.
        n: Of how many, at least 1.
        level: Share of such intervals that hold the true share.

    Raises:
        InputError: No trials, more successes than trials, or a level outside 0..1.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927;
        without continuity correction.

    Example:
        >>> print(wilson(9, 10))
        0.9 (0.5958 to 0.9821)
    """
    _check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"A share of {successes} in {n} is none: give 0 to n of at least 1.")
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # The ends are exact where rounding would leave 1e-17.
    low = 0.0 if successes == 0 else centre - half
    high = 1.0 if successes == n else centre + half
    return Interval(share, low, high, level)


def bootstrap(
    statistic: Statistic,
    *columns: Tensor,
    level: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> Interval:
    """The percentile interval of a statistic over samples drawn again with replacement.

    With fewer than about 20 samples it is too narrow: what was never seen cannot be drawn.

    Args:
        statistic: Takes the columns, ``(resamples, n, …)`` each, and gives ``(resamples,)``:
            ``lambda errors: errors.abs().mean(dim=1)``.
        columns: ``(n, …)`` each; row i of all of them is one sample.
        level: Share of such intervals that hold the true value.
        resamples: How often n samples are drawn; a thousand fix the ends to about a twentieth of
            the width.
        seed: The same seed draws the same samples.

    Raises:
        InputError: Fewer than two samples, columns of different length, or a level outside 0..1.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", 1979.

    Example:
        >>> errors = torch.linspace(-1, 1, 50)
        >>> print(bootstrap(lambda e: e.abs().mean(dim=1), errors))
        0.5102 (0.4244 to 0.5898)
    """
    _check_level(level)
    n = _length(columns)
    if resamples < 1:
        raise InputError(f"resamples is {resamples}, but must be at least 1.")
    # Results are read on the host, and the draws are the same on every machine there.
    columns = tuple(column.cpu() for column in columns)
    value = float(statistic(*(column.unsqueeze(0) for column in columns)))
    widest = max(math.prod(column.shape[1:]) for column in columns)
    chunk = max(1, _MOST_NUMBERS // (n * max(1, widest)))
    draws = keyed.generator(seed, "bootstrap", n)
    found: list[Tensor] = []
    for start in range(0, resamples, chunk):
        rows = torch.randint(n, (min(chunk, resamples - start), n), generator=draws)
        found.append(statistic(*(column[rows] for column in columns)).double())
    ends = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
    # A resample may leave a statistic undefined (R² of equal targets); the others tell enough.
    low, high = torch.cat(found).nanquantile(ends)
    return Interval(value, float(low), float(high), level)


def paired_difference(
    statistic: Statistic,
    first: Tensor,
    second: Tensor,
    *shared: Tensor,
    level: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> Interval:
    """The interval of ``statistic(first) - statistic(second)`` for two models on the same samples.

    Both are scored on the same draws, so what makes a sample hard for either cancels out: the
    interval is narrower than two separate ones would suggest. If it holds 0, the samples do not
    tell which model is better.

    Args:
        statistic: As in ``bootstrap``; gets a model's column and the shared ones.
        first: Answers, or whether they are right, or losses: ``(n, …)``.
        second: Those of the other model, row by row for the same samples.
        shared: Columns that both need: the truth.
        level: As in ``bootstrap``.
        resamples: As in ``bootstrap``.
        seed: As in ``bootstrap``.

    Raises:
        InputError: As ``bootstrap``.

    Example:
        >>> ours, theirs = torch.tensor([1.0, 1, 1, 0, 1, 1]), torch.tensor([1.0, 0, 1, 0, 1, 1])
        >>> paired_difference(lambda right: right.mean(dim=1), ours, theirs).low
        0.0
    """

    def difference(one: Tensor, other: Tensor, *rest: Tensor) -> Tensor:
        return statistic(one, *rest) - statistic(other, *rest)

    return bootstrap(
        difference, first, second, *shared, level=level, resamples=resamples, seed=seed
    )


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise InputError(f"level is a share between 0 and 1 (0.95), not {level}.")


def _length(columns: tuple[Tensor, ...]) -> int:
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        raise InputError(
            f"The columns have lengths {sorted(lengths) or 'none'}; give one or more columns with "
            "the same samples."
        )
    n = lengths.pop()
    if n < 2:
        raise InputError(f"{n} sample tells nothing about spread. Give at least two.")
    return n
