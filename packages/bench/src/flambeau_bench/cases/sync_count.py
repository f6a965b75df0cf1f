"""``sync-count``: how often a training step makes the host wait for a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import ClassVar

import torch

from flambeau import EMA, Callback, TrainingOptions, TrainState
from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Gate, Question, Size
from flambeau_bench.cases import by_hand
from flambeau_bench.cases.host_reads import HostReads, refused, watched
from flambeau_bench.cases.tiny import BATCH_SIZE, Tape, ready_batches, tiny_learner, tiny_model
from flambeau_bench.measurement import Measurement
from flambeau_bench.timing import threads

BY_HAND, OURS = "by hand", "flambeau"

VARIANTS: dict[str, TrainingOptions] = {
    "default": TrainingOptions(),
    "guard off": TrainingOptions(nonfinite="off"),
    "clip": TrainingOptions(clip_norm=by_hand.MAX_NORM),
    "accumulate4": TrainingOptions(accumulate=by_hand.ACCUMULATE),
    "ema": TrainingOptions(average=EMA()),
}


class InSteps(Callback):
    """Switches on at the second step's start and off at the last step's end.

    The first step is left out: optimizers make their state in it.
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
    """Host reads inside the steps of a fit with the default callbacks: there must be none.

    On the CPU a dispatch mode counts them. On CUDA, where each one drains the queue, torch is
    asked to raise at the first (``set_sync_debug_mode("error")``), so a finished run has none.
    """

    name: ClassVar = "sync-count"
    asks: ClassVar = "How often does a training step make the host wait for a value?"
    sizes: ClassVar = {
        "quick": Size("quick", {"steps": 12}, pairs=1, floor_pairs=0),
        "cpu": Size("cpu", {"steps": 101}, pairs=1, floor_pairs=0),
        "gpu": Size("gpu", {"steps": 101}, pairs=1, floor_pairs=0, device="cuda"),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        question = Question("host_reads", "value", "host reads/step", limit=0.0)
        return [Comparison(name, BY_HAND, OURS, (question,)) for name in VARIANTS]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        training = VARIANTS[comparison.variant]
        steps = size["steps"]
        tape = Tape(ready_batches(1, size.device), steps * training.accumulate)
        with threads(1):
            if side == BY_HAND:
                reads, trained = self._with_a_read(tape, size, training.accumulate), steps
            else:
                reads, trained = self._ours(tape, size, training)
        return Measurement(
            {"host_reads": reads / (steps - 1)},
            steps=trained,
            items=len(tape.taken) * BATCH_SIZE,
            order_hash=fingerprint.of_numbers(tape.taken),
            quality={"host_reads": reads},
        )

    def _with_a_read(self, tape: Tape, size: Size, accumulate: int) -> int:
        """The counter's own test: a loop that reads its loss after each step but the first."""
        model = tiny_model(0, size.device)
        optimizer = by_hand.optimizer_for("adamw", model)
        with watched() as reads:
            for number, (x, y) in enumerate(tape.pairs(), start=1):
                loss = torch.nn.functional.mse_loss(model(x), y)
                loss.backward()
                if number % accumulate == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                    reads.active = number > accumulate
                    loss.item()
                    reads.active = False
            return reads.total

    def _ours(self, tape: Tape, size: Size, training: TrainingOptions) -> tuple[int, int]:
        with ExitStack() as stack:
            reads: HostReads | None = None
            inner = ExitStack()
            if size.device == "cpu":
                reads = stack.enter_context(watched())

            def switch(on: bool) -> None:
                if reads is not None:
                    reads.active = on
                elif on:
                    inner.enter_context(refused())
                else:
                    inner.close()

            learner = tiny_learner(
                tape,
                tiny_model(0, size.device),
                training=training,
                callbacks=[InSteps(switch)],
                device=size.device,
            )
            history = learner.fit()
            return (0 if reads is None else reads.total), len(history.step_losses)

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        """The counter must see a read that is there."""
        for baseline, _ in pairs:
            if baseline.quality["host_reads"] != baseline.steps - 1:
                seen = baseline.quality["host_reads"]
                return Gate(False, f"{seen} of {baseline.steps - 1} planted reads were counted")
        return Gate(True, "one planted read a step was counted in a loop by hand")
