"""How far a comparison is: a line every half minute, between two pairs, where nothing is timed."""

from __future__ import annotations

import time
from collections.abc import Callable

EVERY_S = 30.0


class Progress:
    """Counts pairs and tells how many are done, for how long it ran and about how long it will.

    It says nothing of the times that were measured: these are no results before the gate.

    Args:
        tell: Gets the lines; none where all is over within ``EVERY_S``.
        count: Pairs in all.
        clock: Seconds that pass.
    """

    def __init__(
        self, tell: Callable[[str], None], count: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._tell, self._count, self._clock = tell, count, clock
        self._done = 0
        self._began = self._told = clock()

    def pair_done(self) -> None:
        """One more pair is done."""
        self._done += 1
        now = self._clock()
        if now - self._told < EVERY_S or self._done == self._count:
            return
        self._told = now
        gone = now - self._began
        left = gone / self._done * (self._count - self._done)
        self._tell(
            f"  pair {self._done} of {self._count} after {_minutes(gone)}, "
            f"about {_minutes(left)} to go"
        )


def _minutes(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
