"""A process of ``cold-start``: one step by hand or by a learner, told as a line of JSON.

python -m flambeau_bench.cases.first_step flambeau cpu
"""

from __future__ import annotations

import json
import sys
import time

from flambeau import Callback, TrainingOptions, TrainState
from flambeau_bench.cases import by_hand
from flambeau_bench.cases.cold_start import BY_HAND, milliseconds
from flambeau_bench.cases.tiny import Tape, ready_batches, tiny_learner, tiny_model


class Steps(Callback):
    """When a fit's first step began and ended, in CPU seconds."""

    def __init__(self) -> None:
        self.began_s = self.ended_s = 0.0

    def on_step_start(self, state: TrainState) -> None:
        self.began_s = time.process_time()

    def on_step_end(self, state: TrainState) -> None:
        self.ended_s = time.process_time()


def step_by_hand(device: str) -> dict[str, object]:
    """An optimizer and one step."""
    tape, model = Tape(ready_batches(1, device), 1), tiny_model(0, device)
    started = time.process_time()
    optimizer = by_hand.optimizer_for("adamw", model)
    [loss] = by_hand.plain(model, optimizer, tape)
    return {
        "figures": {"first_step_cpu_ms": milliseconds(started)},
        "loss": float(loss).hex(),
    }


def step_of_a_learner(device: str) -> dict[str, object]:
    """A learner built, fitted for a step, and fitted again."""
    tape, model, steps = Tape(ready_batches(1, device), 1), tiny_model(0, device), Steps()
    started = time.process_time()
    learner = tiny_learner(
        tape, model, training=TrainingOptions(), callbacks=[steps], device=device
    )
    build_ms = milliseconds(started)
    history = learner.fit()
    first_ms = (steps.ended_s - started) * 1e3
    again = time.process_time()
    learner.fit()
    return {
        "figures": {
            "build_cpu_ms": build_ms,
            "first_step_cpu_ms": first_ms,
            "second_setup_cpu_ms": (steps.began_s - again) * 1e3,
        },
        "loss": history.step_losses[0].hex(),
    }


if __name__ == "__main__":
    measured = (step_by_hand if sys.argv[1] == BY_HAND else step_of_a_learner)(sys.argv[2])
    sys.stdout.write(json.dumps(measured) + "\n")
