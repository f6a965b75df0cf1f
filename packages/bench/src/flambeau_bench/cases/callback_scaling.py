"""``callback-scaling``: the cost of each callback that listens to the events of a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.optim import Optimizer

from flambeau import Batch, Callback, Learner, Step, StepResult, Task, TrainingOptions, TrainState
from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size, equal_losses
from flambeau_bench.cases.tiny_training import (
    BATCH_SIZE,
    ReadyLoader,
    ready_batches,
    tiny_learner,
    tiny_model,
)
from flambeau_bench.measurement import Measurement
from flambeau_bench.timing import clock_for, slope, threads

STEP_EVENTS = ("on_step_start", "on_gradients_ready", "on_step_end")
NONE = "0 callbacks"


class StepListener(Callback):
    """A callback that has a method for each event of a step; the methods do nothing."""

    def on_step_start(self, state: TrainState) -> None: ...
    def on_gradients_ready(self, state: TrainState) -> None: ...
    def on_step_end(self, state: TrainState) -> None: ...


class FitEndListener(Callback):
    """A callback that has no method for the events of an epoch."""

    def on_fit_end(self, state: TrainState) -> None: ...


class EventCounter(Callback):
    """A callback that counts the events of steps, to show that they are sent."""

    def __init__(self) -> None:
        self.count = 0

    def _count(self, state: TrainState) -> None:
        self.count += 1

    on_step_start = on_gradients_ready = on_step_end = _count


VARIANTS: Mapping[str, tuple[Callable[[], Callback], int]] = {
    "1": (StepListener, 1),
    "5": (StepListener, 5),
    "20": (StepListener, 20),
    "20 without step events": (FitEndListener, 20),
}
"""The variants: class and number of the callbacks."""


class _NoOpOptimizer(Optimizer):
    """An optimizer that changes nothing, so that only the loop takes time in a step."""

    def __init__(self, model: nn.Module, lr: float) -> None:
        super().__init__(model.parameters(), {"lr": lr})

    def step(self, closure: Any = None) -> None: ...

    def zero_grad(self, set_to_none: bool = True) -> None: ...


def _no_op_optimizer(model: nn.Module, values: Mapping[str, Any]) -> Mapping[str, Optimizer]:
    return {"main": _NoOpOptimizer(model, values["lr"])}


class _EmptyStep:
    """A training step that sends all events and computes nothing, so that kernels add no noise."""

    def __init__(self) -> None:
        self._result = StepResult(torch.zeros(()), float(BATCH_SIZE))

    def __call__(
        self, model: nn.Module, micro_batches: Sequence[Batch], task: Task, step: Step
    ) -> StepResult:
        step.update()
        return self._result


class CallbackScaling(Case):
    """Compare fits with 0, 1, 5 and 20 callbacks that do nothing, in steps that compute nothing.

    A step without kernels takes microseconds, so that the cost of a callback can be measured. In a
    step that computes, the cost of a callback would be lost in the noise.
    """

    name: ClassVar = "callback-scaling"
    question: ClassVar = "What does a callback cost per event, whether it uses the event or not?"
    sizes: ClassVar = {
        "quick": Size("quick", {"steps": 1_000}, pairs=1, floor_pairs=1),
        "cpu": Size("cpu", {"steps": 2_000}, pairs=21, floor_pairs=21),
        "gpu": Size("gpu", {"steps": 2_000}, pairs=21, floor_pairs=21, device="cuda"),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        found: list[Comparison] = []
        for name, (kind, count) in VARIANTS.items():
            if kind is StepListener:
                criterion = Criterion(
                    "slope_us",
                    "difference",
                    "µs per callback and event",
                    limit=0.5,
                    per=count * len(STEP_EVENTS),
                )
            else:
                criterion = Criterion("slope_us", "difference", "µs/step", within_floor=True)
            found.append(Comparison(name, NONE, f"{name} callbacks", (criterion,)))
        return found

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        device, losses, loader = size.device, [0.0], ReadyLoader([], 0)
        clock = clock_for(torch.device(device))
        kind, count = (StepListener, 0) if side == NONE else VARIANTS[comparison.variant]

        def learner_of(steps: int, callbacks: Sequence[Callback]) -> Learner:
            nonlocal loader
            loader = ReadyLoader(ready_batches(1, device), steps)
            learner = tiny_learner(
                loader,
                tiny_model(0, device),
                training=TrainingOptions(
                    train_step=_EmptyStep(), optimizer=_no_op_optimizer, nonfinite="off"
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
            order_hash, samples = (
                fingerprint.of_numbers(loader.taken),
                len(loader.taken) * BATCH_SIZE,
            )
            counter = EventCounter()
            learner_of(3, [counter]).fit()
        return Measurement(
            {"slope_us": line.per_step_us},
            steps=len(losses),
            samples=samples,
            order_hash=order_hash,
            settings=fingerprint.machine_settings(),
            quality={
                "losses": fingerprint.of_numbers(losses),
                "events_per_step": counter.count / 3,
            },
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        events = {side.quality["events_per_step"] for pair in pairs for side in pair}
        if events != {float(len(STEP_EVENTS))}:
            return Gate(False, f"events per step: {sorted(events, key=str)}, not 3")
        return equal_losses(pairs)
