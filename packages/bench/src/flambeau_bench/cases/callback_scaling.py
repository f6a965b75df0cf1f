"""``callback-scaling``: what each callback costs that listens to the events of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from flambeau import Batch, Callback, Learner, Step, StepResult, Task, TrainingOptions, TrainState
from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Gate, Question, Size, same_losses
from flambeau_bench.cases.tiny import BATCH_SIZE, Tape, ready_batches, tiny_learner, tiny_model
from flambeau_bench.measurement import Measurement
from flambeau_bench.timing import clock_for, slope, threads

STEP_EVENTS = ("on_step_start", "on_gradients_ready", "on_step_end")
NONE = "0 callbacks"


class Listener(Callback):
    """Hears all events of a step and does nothing."""

    def on_step_start(self, state: TrainState) -> None: ...
    def on_gradients_ready(self, state: TrainState) -> None: ...
    def on_step_end(self, state: TrainState) -> None: ...


class Bystander(Callback):
    """Hears nothing within an epoch."""

    def on_fit_end(self, state: TrainState) -> None: ...


class Counter(Callback):
    """Counts the events of steps: shows that there is something to hear."""

    def __init__(self) -> None:
        self.heard = 0

    def _count(self, state: TrainState) -> None:
        self.heard += 1

    on_step_start = on_gradients_ready = on_step_end = _count


VARIANTS: Mapping[str, tuple[Callable[[], Callback], int]] = {
    "1": (Listener, 1),
    "5": (Listener, 5),
    "20": (Listener, 20),
    "20 that hear nothing": (Bystander, 20),
}
"""Which callbacks, and how many."""


class _Still(Optimizer):
    """An optimizer that changes nothing, so that a step is all loop."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model.parameters(), {"lr": 1.0})

    def step(self, closure: Any = None) -> None: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...


def _still_optimizer(model: nn.Module, values: Mapping[str, Any]) -> Mapping[str, Optimizer]:
    return {"main": _Still(model)}


class _EmptyStep:
    """A training step without a computation: all events, no noise of kernels."""

    def __init__(self) -> None:
        self._result = StepResult(torch.zeros(()), float(BATCH_SIZE))

    def __call__(
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
    ) -> StepResult:
        step.update()
        return self._result


class CallbackScaling(Case):
    """0, 1, 5 and 20 callbacks that do nothing, on steps that compute nothing.

    A step without kernels takes microseconds, so that a callback's share is seen. Two callbacks
    more or less would be lost in the noise of a step that computes.
    """

    name: ClassVar = "callback-scaling"
    asks: ClassVar = "What does a callback cost for each event of a step, heard or not?"
    sizes: ClassVar = {
        "quick": Size("quick", {"steps": 1_000}),
        "cpu": Size("cpu", {"steps": 2_000}, pairs=21, floor_pairs=21),
        "gpu": Size("gpu", {"steps": 2_000}, pairs=21, floor_pairs=21, device="cuda"),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        found: list[Comparison] = []
        for name, (kind, count) in VARIANTS.items():
            if kind is Listener:
                question = Question(
                    "slope_us",
                    "difference",
                    "µs per callback and event",
                    limit=0.5,
                    per=count * len(STEP_EVENTS),
                )
            else:
                question = Question("slope_us", "difference", "µs/step", within_floor=True)
            found.append(Comparison(name, NONE, f"{name} callbacks", (question,)))
        return found

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        device, losses, tape = size.device, [0.0], Tape([], 0)
        clock = clock_for(torch.device(device))
        kind, count = (Listener, 0) if side == NONE else VARIANTS[comparison.variant]

        def learner_of(steps: int, callbacks: Sequence[Callback]) -> Learner:
            nonlocal tape
            tape = Tape(ready_batches(1, device), steps)
            learner = tiny_learner(
                tape,
                tiny_model(0, device),
                training=TrainingOptions(
                    train_step=_EmptyStep(), optimizer=_still_optimizer, nonfinite="off"
                ),
                callbacks=callbacks,
                device=device,
            )
            learner.built.components()
            return learner

        def seconds_of(steps: int) -> float:
            nonlocal losses
            learner = learner_of(steps, [kind() for _ in range(count)])
            started = clock()
            history = learner.fit()
            took = clock() - started
            losses = list(history.step_losses)
            return took

        with threads(1):
            line = slope(seconds_of, size["steps"])
            taken, items = fingerprint.of_numbers(tape.taken), len(tape.taken) * BATCH_SIZE
            counter = Counter()
            learner_of(3, [counter]).fit()
        return Measurement(
            {"slope_us": line.per_step_us},
            steps=len(losses),
            items=items,
            order_hash=taken,
            settings=fingerprint.machine_settings(),
            quality={
                "losses": fingerprint.of_numbers(losses),
                "events_a_step": counter.heard / 3,
            },
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        heard = {side.quality["events_a_step"] for pair in pairs for side in pair}
        if heard != {float(len(STEP_EVENTS))}:
            return Gate(False, f"events heard a step: {sorted(heard, key=str)}, not 3")
        return same_losses(pairs)
