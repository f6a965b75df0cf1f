"""The median of paired figures, with a bootstrap interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from flambeau.errors import InputError

LEAST_PAIRS = 11
"""Below this many pairs the interval is the whole range: a bootstrap would be too narrow."""

_RESAMPLES = 4_000


@dataclass(frozen=True)
class Interval:
    """A median and the 95% interval around it.

    Attributes:
        median: Of the pairs.
        low: Lower end.
        high: Upper end.
        pairs: How many there were.
    """

    median: float
    low: float
    high: float
    pairs: int

    def as_json(self) -> dict[str, float]:
        """Plain values for a record."""
        return asdict(self)


def median_interval(values: Sequence[float], seed: int = 0) -> Interval:
    """The median of ``values`` with its 95% interval.

    With ``LEAST_PAIRS`` or more the percentile bootstrap of the median, with fewer their range.

    Args:
        values: One a pair.
        seed: Of the resampling, so that a report written twice is the same.

    Raises:
        InputError: There are none.

    Source:
        Efron, "Bootstrap methods: another look at the jackknife", 1979.

    Example:
        >>> median_interval([3.0, 1.0, 2.0])
        Interval(median=2.0, low=1.0, high=3.0, pairs=3)
    """
    if not values:
        raise InputError("There is no pair to take a median of: every one was void.")
    found = np.asarray(values, dtype=np.float64)
    if len(found) < LEAST_PAIRS:
        low, high = float(found.min()), float(found.max())
    else:
        rows = np.random.default_rng(seed).integers(len(found), size=(_RESAMPLES, len(found)))
        medians = np.median(found[rows], axis=1)
        low, high = (float(end) for end in np.quantile(medians, (0.025, 0.975)))
    return Interval(float(np.median(found)), low, high, len(found))
