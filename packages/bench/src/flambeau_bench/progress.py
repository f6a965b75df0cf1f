"""Progress of a long comparison: a line at most every 30 seconds, between two pairs."""

from __future__ import annotations

import time
from collections.abc import Callable

INTERVAL_S = 30.0


class Progress:
    """Counts pairs and logs how many are done, the time so far and an estimate of the rest.

    Measured times are not logged, because they are valid only if the quality condition is met.

    Args:
        log: Receives the lines; it is not called if everything ends within ``INTERVAL_S``.
        count: Total number of pairs.
        clock: Returns seconds.
    """

    def __init__(
        self, log: Callable[[str], None], count: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._count, self._clock = log, count, clock
        self._done = 0
        self._started = self._logged = clock()

    def pair_done(self) -> None:
        """Count one finished pair, and log a line if the last line is 30 seconds old."""
        self._done += 1
        now = self._clock()
        if now - self._logged < INTERVAL_S or self._done == self._count:
            return
        self._logged = now
        elapsed = now - self._started
        remaining = elapsed / self._done * (self._count - self._done)
        self._log(
            f"  pair {self._done} of {self._count} after {_minutes(elapsed)}, "
            f"about {_minutes(remaining)} remaining"
        )


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
