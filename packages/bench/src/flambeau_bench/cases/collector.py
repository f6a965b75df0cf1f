"""``collector``: whether a fit is faster if Python's garbage collector is limited in its steps."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from flambeau import Callback, TrainingOptions, TrainState
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
from flambeau_bench.timing import clock_for, threads

ON = "collector on"


@dataclass(frozen=True)
class CollectorVariant:
    """How a variant limits the garbage collector during the steps of an epoch.

    Attributes:
        stop: Function called before the first step of an epoch.
        resume: Function called after the last step of an epoch.
        with_objects: Whether the process holds a large list of Python objects.
    """

    stop: Callable[[], None]
    resume: Callable[[], None]
    with_objects: bool = False


VARIANTS: Mapping[str, CollectorVariant] = {
    "frozen": CollectorVariant(gc.freeze, gc.unfreeze),
    "disabled": CollectorVariant(gc.disable, gc.enable),
    "frozen, with a list of samples": CollectorVariant(gc.freeze, gc.unfreeze, with_objects=True),
}


class EpochTimes(Callback):
    """Measures the CPU time of all steps, and the part of it that the garbage collector takes.

    Args:
        variant: How the collector is limited during the steps; None does not limit it.

    Attributes:
        seconds: CPU time of the steps.
        collector_s: CPU time of garbage collections in the steps.
        collections: Number of garbage collections.
    """

    def __init__(self, variant: CollectorVariant | None) -> None:
        self._variant = variant
        self._clock = clock_for(torch.device("cpu"))
        self._started = self._collection_started = 0.0
        self.seconds = self.collector_s = 0.0
        self.collections = 0

    def on_epoch_start(self, state: TrainState) -> None:
        gc.callbacks.append(self._on_collection)
        self._started = self._clock()
        if self._variant is not None:
            self._variant.stop()

    def on_eval_start(self, state: TrainState) -> None:
        if self._variant is not None:
            self._variant.resume()
        self.seconds += self._clock() - self._started
        gc.callbacks.remove(self._on_collection)

    def _on_collection(self, phase: str, info: dict[str, Any]) -> None:
        now = self._clock()
        if phase == "start":
            self._collection_started = now
            return
        self.collector_s += now - self._collection_started
        self.collections += 1


class Collector(Case):
    """Compare long fits of ``loop-overhead`` with and without limits on the garbage collector.

    Each run is in a new process, so that only the objects of one fit exist. One variant also keeps
    a list of samples, as a data set of files may do: a tuple of path and label per sample.
    """

    name: ClassVar = "collector"
    question: ClassVar = "Is a fit faster without the garbage collector between evaluations?"
    sizes: ClassVar = {
        "quick": Size("quick", {"steps": 1_000, "objects": 10_000}, pairs=1, floor_pairs=1),
        "cpu": Size("cpu", {"steps": 10_000, "objects": 1_000_000}, pairs=11, floor_pairs=5),
    }
    fresh: ClassVar = True

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        criteria = (
            Criterion("step_us", "difference", "µs/step"),
            Criterion("collector_us", "difference", "µs/step in the collector"),
        )
        return [Comparison(name, ON, f"collector {name}", criteria) for name in VARIANTS]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        variant = VARIANTS[comparison.variant]
        count = size["objects"] if variant.with_objects else 0
        samples = [(f"photos/{number}.jpg", number % 10) for number in range(count)]
        times = EpochTimes(None if side == ON else variant)
        with threads(1):
            loader = ReadyLoader(ready_batches(1), size["steps"])
            model = tiny_model(0)
            init_hash = fingerprint.of_weights(model)
            learner = tiny_learner(loader, model, training=TrainingOptions(), callbacks=[times])
            losses = list(learner.fit().step_losses)
        return Measurement(
            {
                "step_us": times.seconds / len(losses) * 1e6,
                "collector_us": times.collector_s / len(losses) * 1e6,
                "collections": float(times.collections),
            },
            steps=len(losses),
            samples=len(loader.taken) * BATCH_SIZE,
            init_hash=init_hash,
            order_hash=fingerprint.of_numbers(loader.taken),
            settings={**fingerprint.machine_settings(), "samples": len(samples)},
            quality={"losses": fingerprint.of_numbers(losses) + fingerprint.of_weights(model)},
        )

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        return equal_losses(pairs)
