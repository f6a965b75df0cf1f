"""Confidence intervals of scores: bootstrap and Wilson."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from flambeau import random as keyed
from flambeau.checked_arguments import checked_count, checked_number
from flambeau.errors import InputError
from flambeau.task.numerics import distinct

Statistic = Callable[..., Tensor]
"""Maps columns with a leading axis of resamples, ``(resamples, n, …)``, to ``(resamples,)``."""

_MOST_VALUES = 4_000_000  # resampled at once: 32 MB of row indices


@dataclass(frozen=True)
class Interval:
    """A value with its confidence interval.

    Attributes:
        value: The value for the given samples.
        low: Lower end.
        high: Upper end.
        level: Confidence level: share of such intervals that contain the population value, 0..1.
    """

    value: float
    low: float
    high: float
    level: float = 0.95

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


def weighted_wilson(successes: float, n: float, squares: float, level: float = 0.95) -> Interval:
    """Return the Wilson interval of a proportion of trials with weights.

    Its width is that of ``n² / squares`` trials of equal weight: n trials if all weights are equal.

    Args:
        successes: Sum of the weights of the successes.
        n: Sum of all weights, above 0.
        squares: Sum of the squared weights.
        level: Confidence level, between 0 and 1.

    Source:
        Kish, "Survey Sampling", 1965: the effective number of samples.
    """
    effective = max(1.0, n * n / squares)
    # Sums in another order may differ by rounding.
    return wilson(min(1.0, successes / n) * effective, effective, level)


def wilson(successes: float, n: float, level: float = 0.95) -> Interval:
    """Return the Wilson interval of a proportion of ``n`` independent trials.

    Unlike the normal approximation, it stays within 0..1 and has a width greater than 0 even for
    0 or ``n`` successes.

    Args:
        successes: Number of successes, 0..n.
        n: Number of trials, at least 1.
        level: Confidence level, between 0 and 1.

    Raises:
        InputError: There are no trials or more successes than trials, or the level is outside 0..1.

    Source:
        Wilson, "Probable inference, the law of succession, and statistical inference", 1927;
        without continuity correction.

    Example:
        >>> print(wilson(9, 10))
        0.9 (0.5958 to 0.9821)
    """
    _check_level(level)
    if n < 1 or not 0 <= successes <= n:
        raise InputError(
            f"{successes} successes in {n} trials are not possible: n must be at least 1, and "
            "successes between 0 and n."
        )
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
    """Return the percentile bootstrap interval of a statistic.

    With fewer than about 20 samples the interval is too narrow.

    Args:
        statistic: Maps the columns, ``(resamples, n, …)`` each, to ``(resamples,)``, such as
            ``lambda errors: errors.abs().mean(dim=1)``.
        columns: ``(n, …)`` each; row i of all columns is one sample.
        level: Confidence level, between 0 and 1.
        resamples: Number of resamples of n samples each; with 1,000, the random error of the ends
            is about a twentieth of the width.
        seed: Seed of the resampling.

    Raises:
        InputError: There are fewer than two samples, the columns differ in length, or the level is
            invalid.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", 1979.

    Example:
        >>> errors = torch.linspace(-1, 1, 50)
        >>> print(bootstrap(lambda e: e.abs().mean(dim=1), errors))
        0.5102 (0.4244 to 0.5898)
    """
    _check_level(level)
    n = _length(columns)
    resamples = checked_count(resamples, "resamples")
    # On the CPU, where the random numbers are the same on every machine.
    columns = tuple(column.cpu() for column in columns)
    value = float(statistic(*(column.unsqueeze(0) for column in columns)))
    widest = max(math.prod(column.shape[1:]) for column in columns)
    chunk = max(1, _MOST_VALUES // (n * max(1, widest)))
    draws = keyed.generator(seed, "bootstrap", n)
    found: list[Tensor] = []
    for start in range(0, resamples, chunk):
        rows = torch.randint(n, (min(chunk, resamples - start), n), generator=draws)
        found.append(statistic(*(column[rows] for column in columns)).double())
    return Interval(value, *percentiles(torch.cat(found), level), level)


def paired_difference(
    statistic: Statistic,
    first: Tensor,
    second: Tensor,
    *shared: Tensor,
    level: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> Interval:
    """Return the interval of ``statistic(first) - statistic(second)`` for two models.

    Both models are scored on the same resamples, so that differences in difficulty between
    samples cancel out: the interval is narrower than two separate intervals suggest. If it
    contains 0, these samples do not show which model is better.

    Args:
        statistic: As in ``bootstrap``; receives the column of one model and the shared columns.
        first: Predictions, correctness or losses of the first model: ``(n, …)``.
        second: The column of the second model, for the same samples in the same order.
        shared: Columns that both models share, such as the targets.
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


def resampled_counts(
    n: int, resamples: int = 1_000, groups: Tensor | None = None, seed: int = 0
) -> Iterator[Tensor]:
    """Yield how often each sample is in each resample, float64 ``(some resamples, n)``.

    Statistics that take weights of samples are computed with these counts as weights.

    Args:
        n: Number of samples.
        resamples: Number of resamples over all pieces.
        groups: Group numbers ``(n,)``. As many groups as there are, not samples, are drawn, and a
            group is in a resample with all of its samples: rows of one person are not independent.
            None draws samples.
        seed: Seed of the resampling.
    """
    if groups is None:
        n_units, units = n, None
    else:
        names, units = distinct(groups.cpu())
        n_units = len(names)
    draws = keyed.generator(seed, "resampled counts", n, n_units)
    chunk = max(1, _MOST_VALUES // max(1, n))
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = torch.randint(n_units, (rows, n_units), generator=draws)
        ones = torch.ones(rows, n_units, dtype=torch.float64)
        counts = torch.zeros_like(ones).scatter_add_(1, drawn, ones)
        yield counts if units is None else counts[:, units]


def bootstrap_groups(
    statistic: Statistic,
    *columns: Tensor,
    groups: Tensor,
    weights: Tensor | None = None,
    level: float = 0.95,
    resamples: int = 1_000,
    seed: int = 0,
) -> Interval:
    """Return the percentile bootstrap interval of a statistic, with whole groups resampled.

    Args:
        statistic: Maps the columns, ``(resamples, n, …)`` each, and weights ``(resamples, n)`` as
            the last argument to ``(resamples,)``.
        columns: ``(n, …)`` each; row i of all columns is one sample.
        groups: Group numbers ``(n,)``.
        weights: Sample weights ``(n,)``; None is 1 for each.
        level: As in ``bootstrap``.
        resamples: As in ``bootstrap``.
        seed: As in ``bootstrap``.

    Raises:
        InputError: As ``bootstrap``; or there is a single group, whose spread is unknown.

    Source:
        Field and Welsh, "Bootstrapping clustered data", 2007: the cluster bootstrap.
    """
    _check_level(level)
    n = _length(columns)
    n_groups = len(distinct(groups.cpu())[0])
    if n_groups < 2:
        raise InputError(
            f"The {n} samples have {n_groups} group, but an interval needs at least 2."
        )
    columns = tuple(column.cpu() for column in columns)
    each = torch.ones(n, dtype=torch.float64) if weights is None else weights.double().cpu()

    def of(counts: Tensor) -> Tensor:
        rows = len(counts)
        repeated = (column.expand(rows, *column.shape) for column in columns)
        return statistic(*repeated, counts * each).double()

    value = float(of(torch.ones(1, n, dtype=torch.float64)))
    found = torch.cat([of(counts) for counts in resampled_counts(n, resamples, groups, seed)])
    return Interval(value, *percentiles(found, level), level)


def percentiles(values: Tensor, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of the percentile interval of statistics ``(resamples,)``; NaN is ignored."""
    ends = torch.tensor([0.5 - level / 2, 0.5 + level / 2], dtype=torch.float64)
    # A statistic may be undefined for a resample (R² of equal targets); the others are enough.
    low, high = values.double().nanquantile(ends)
    return float(low), float(high)


def _check_level(level: float) -> None:
    checked_number(level, "level", above=0, below=1)


def _length(columns: tuple[Tensor, ...]) -> int:
    lengths = {len(column) for column in columns}
    if len(lengths) != 1:
        raise InputError(
            f"The columns have the lengths {sorted(lengths) or '(no columns)'}; pass at least one "
            "column, all of the same length."
        )
    n = lengths.pop()
    if n < 2:
        count = "1 sample" if n == 1 else f"{n} samples"
        raise InputError(f"The columns have {count}, but a bootstrap interval needs at least two.")
    return n
