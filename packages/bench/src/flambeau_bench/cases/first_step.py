"""The program that ``cold-start`` runs: measure one step and print the result as a line of JSON.

python -m flambeau_bench.cases.first_step flambeau cpu
"""

from __future__ import annotations

import json
import sys
import time

from flambeau import Callback, TrainingOptions, TrainState
from flambeau_bench.cases import by_hand
from flambeau_bench.cases.cold_start import BY_HAND, cpu_ms_since
from flambeau_bench.cases.tiny_training import (
    ReadyLoader,
    ready_batches,
    tiny_learner,
    tiny_model,
)


class StepTimes(Callback):
    """Records when a fit's first step began and ended, in CPU seconds."""

    def __init__(self) -> None:
        self.began_s = self.ended_s = 0.0

    def on_step_start(self, state: TrainState) -> None:
        self.began_s = time.process_time()

    def on_step_end(self, state: TrainState) -> None:
        self.ended_s = time.process_time()


def step_by_hand(device: str) -> dict[str, object]:
    """Build an optimizer, make one step by hand, and return the figures and the loss."""
    loader, model = ReadyLoader(ready_batches(1, device), 1), tiny_model(0, device)
    started = time.process_time()
    optimizer = by_hand.optimizer_for("adamw", model)
    [loss] = by_hand.plain(model, optimizer, loader)
    return {
        "figures": {"first_step_cpu_ms": cpu_ms_since(started)},
        "loss": float(loss).hex(),
    }


def step_of_learner(device: str) -> dict[str, object]:
    """Build a learner, fit it for one step twice, and return the figures and the first loss."""
    loader, model = ReadyLoader(ready_batches(1, device), 1), tiny_model(0, device)
    times = StepTimes()
    started = time.process_time()
    learner = tiny_learner(
        loader, model, training=TrainingOptions(), callbacks=[times], device=device
    )
    build_ms = cpu_ms_since(started)
    history = learner.fit()
    first_ms = (times.ended_s - started) * 1e3
    again = time.process_time()
    learner.fit()
    return {
        "figures": {
            "build_cpu_ms": build_ms,
            "first_step_cpu_ms": first_ms,
            "second_setup_cpu_ms": (times.began_s - again) * 1e3,
        },
        "loss": history.step_losses[0].hex(),
    }


if __name__ == "__main__":
    measured = (step_by_hand if sys.argv[1] == BY_HAND else step_of_learner)(sys.argv[2])
    sys.stdout.write(json.dumps(measured) + "\n")
