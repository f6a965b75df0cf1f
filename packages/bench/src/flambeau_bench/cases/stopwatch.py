"""``Stopwatch``: the wall time of the steps of an epoch, without its evaluation."""

from __future__ import annotations

import torch

from flambeau import Callback, TrainState
from flambeau_bench.timing import wall_clock_for


class Stopwatch(Callback):
    """Measures the wall time of an epoch's steps; in a fit it stops before the evaluation.

    Args:
        device: Device of the steps; it is synchronised before the clock is read.

    Attributes:
        seconds: The wall time.
    """

    def __init__(self, device: torch.device) -> None:
        self._clock = wall_clock_for(device)
        self._started = 0.0
        self.seconds = 0.0

    def start(self) -> None:
        """Start the measurement."""
        self._started = self._clock()

    def stop(self) -> None:
        """End the measurement."""
        self.seconds = self._clock() - self._started

    def on_eval_start(self, state: TrainState) -> None:
        self.stop()
