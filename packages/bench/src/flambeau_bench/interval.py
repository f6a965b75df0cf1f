"""The median of paired figures with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from flambeau.errors import InputError

MIN_PAIRS = 11
"""With fewer pairs the interval is the range of the figures; a bootstrap would be too narrow."""

_RESAMPLES = 4_000


@dataclass(frozen=True)
class Interval:
    """A median and its 95% interval.

    Attributes:
        median: Median over the pairs.
        low: Lower end.
        high: Upper end.
        pairs: Number of pairs.
    """

    median: float
    low: float
    high: float
    pairs: int

    def as_json(self) -> dict[str, float]:
        """Return plain values for a record."""
        return asdict(self)


def median_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """Return the median of ``values`` with its 95% interval.

    With at least ``MIN_PAIRS`` values the interval is the percentile bootstrap interval of the
    median; with fewer values it is their range.

    Args:
        values: One value per pair.
        seed: Seed of the resampling: the same seed gives the same interval.

    Raises:
        InputError: ``values`` is empty.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", 1979.

    Example:
        >>> median_interval([3.0, 1.0, 2.0])
        Interval(median=2.0, low=1.0, high=3.0, pairs=3)
    """
    if not values:
        raise InputError("The median needs at least one valid pair, but every pair was invalid.")
    found = np.asarray(values, dtype=np.float64)
    if len(found) < MIN_PAIRS:
        low, high = float(found.min()), float(found.max())
    else:
        rows = np.random.default_rng(seed).integers(len(found), size=(_RESAMPLES, len(found)))
        medians = np.median(found[rows], axis=1)
        low, high = (float(end) for end in np.quantile(medians, (0.025, 0.975)))
    return Interval(float(np.median(found)), low, high, len(found))
