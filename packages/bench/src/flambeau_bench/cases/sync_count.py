"""``sync-count``: how often a training step makes the host wait for a tensor's value."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import ClassVar

import torch

from flambeau import EMA, Callback, TrainingOptions, TrainState
from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size
from flambeau_bench.cases import by_hand
from flambeau_bench.cases.host_reads import HostReads, count_host_reads, forbid_host_reads
from flambeau_bench.cases.tiny_training import (
    BATCH_SIZE,
    ReadyLoader,
    ready_batches,
    tiny_learner,
    tiny_model,
)
from flambeau_bench.measurement import Measurement
from flambeau_bench.timing import threads

BY_HAND, FLAMBEAU = "by hand", "flambeau"

VARIANTS: dict[str, TrainingOptions] = {
    "default": TrainingOptions(),
    "guard off": TrainingOptions(nonfinite="off"),
    "clip": TrainingOptions(clip_norm=by_hand.MAX_NORM),
    "accumulate4": TrainingOptions(accumulate=by_hand.ACCUMULATE),
    "ema": TrainingOptions(average=EMA()),
    "inspect": TrainingOptions(accumulate=by_hand.ACCUMULATE),
}

INSPECT = "inspect"
"""The variant in which ``learner.inspect`` watches every step."""


class StepSwitch(Callback):
    """Calls ``switch(True)`` at the start of step 2 and ``switch(False)`` at the last step's end.

    The first step is not counted, because optimizers create their state in it.
    """

    def __init__(self, switch: Callable[[bool], None]) -> None:
        self._switch = switch

    def on_step_start(self, state: TrainState) -> None:
        if state.position.epoch_step == 1:
            self._switch(True)

    def on_step_end(self, state: TrainState) -> None:
        if state.position.epoch_step == state.steps_per_epoch:
            self._switch(False)

    def on_exception(self, state: TrainState) -> None:
        self._switch(False)


class SyncCount(Case):
    """Check that the steps of a fit with the default callbacks have no host reads.

    The progress bar is drawn only at the end, because it reads the loss after some time, not by the
    step: a slow fit would have a read that no step causes.

    On the CPU a dispatch mode counts host reads. On CUDA, where a host read waits for all queued
    work, torch raises at the first one (``set_sync_debug_mode("error")``), so a fit that ends has
    none.
    """

    name: ClassVar = "sync-count"
    question: ClassVar = "How often does a training step make the host wait for a value?"
    sizes: ClassVar = {
        "quick": Size("quick", {"steps": 12}, pairs=1, floor_pairs=0),
        "cpu": Size("cpu", {"steps": 101}, pairs=1, floor_pairs=0),
        "gpu": Size("gpu", {"steps": 101}, pairs=1, floor_pairs=0, device="cuda"),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        criterion = Criterion("host_reads", "value", "host reads/step", limit=0.0)
        return [Comparison(name, BY_HAND, FLAMBEAU, (criterion,)) for name in VARIANTS]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        training = VARIANTS[comparison.variant]
        steps = size["steps"]
        loader = ReadyLoader(ready_batches(1, size.device), steps * training.accumulate)
        with threads(1):
            if side == BY_HAND:
                reads, trained = self._with_planted_reads(loader, size, training.accumulate), steps
            else:
                watches = comparison.variant == INSPECT
                reads, trained = self._flambeau(loader, size, training, watches)
        return Measurement(
            {"host_reads": reads / (steps - 1)},
            steps=trained,
            samples=len(loader.taken) * BATCH_SIZE,
            order_hash=fingerprint.of_numbers(loader.taken),
            quality={"host_reads": reads},
        )

    def _with_planted_reads(self, loader: ReadyLoader, size: Size, accumulate: int) -> int:
        """Return the counted reads of a loop that reads its loss in all steps but the first."""
        model = tiny_model(0, size.device)
        optimizer = by_hand.optimizer_for("adamw", model)
        with count_host_reads() as reads:
            for number, (x, y) in enumerate(loader.pairs(), start=1):
                loss = torch.nn.functional.mse_loss(model(x), y)
                loss.backward()
                if number % accumulate == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                    reads.active = number > accumulate
                    loss.item()
                    reads.active = False
            return reads.total

    def _flambeau(
        self, loader: ReadyLoader, size: Size, training: TrainingOptions, watches: bool
    ) -> tuple[int, int]:
        with ExitStack() as stack:
            reads: HostReads | None = None
            inner = ExitStack()
            if size.device == "cpu":
                reads = stack.enter_context(count_host_reads())

            def switch(on: bool) -> None:
                if reads is not None:
                    reads.active = on
                elif on:
                    inner.enter_context(forbid_host_reads())
                else:
                    inner.close()

            learner = tiny_learner(
                loader,
                tiny_model(0, size.device),
                training=training,
                callbacks=[StepSwitch(switch)],
                device=size.device,
                bar_every_s=math.inf,
            )
            if watches:
                learner.inspect(every=1)
            history = learner.fit()
            return (0 if reads is None else reads.total), len(history.step_losses)

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """Require that the counter has counted every read of the test loop."""
        for baseline, _ in pairs:
            if baseline.quality["host_reads"] != baseline.steps - 1:
                counted = baseline.quality["host_reads"]
                return Gate(False, f"{counted} of {baseline.steps - 1} planted reads were counted")
        return Gate(True, "one planted read per step was counted in a hand-written loop")
