"""Negative controls: what is planted must turn loop-overhead red."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from flambeau import Batch, Callback, TrainState
from flambeau_bench.case import Comparison, Size
from flambeau_bench.cases.loop_overhead import BY_HAND, OURS, LoopOverhead
from flambeau_bench.cases.tiny import Tape, ready_batches
from flambeau_bench.pairing import measure_pairs
from flambeau_bench.verdict import Outcome, judge

SIZE = Size("quick", {"steps": 4}, pairs=1, floor_pairs=0)
PLANTED_US = 500


def outcomes(case: LoopOverhead, variant: str = "default", size: Size = SIZE) -> list[Outcome]:
    comparison = of_variant(case, variant)
    return judge(case, measure_pairs(case, comparison, size))


def of_variant(case: LoopOverhead, variant: str) -> Comparison:
    [comparison] = [c for c in case.comparisons(SIZE) if c.variant == variant]
    return comparison


class BusyWait(Callback):
    """Burns CPU time in every step: a sleep would not be seen by a clock of CPU time."""

    def on_step_end(self, state: TrainState) -> None:
        end = time.process_time() + PLANTED_US * 1e-6
        while time.process_time() < end:
            pass


class Delayed(LoopOverhead):
    def callbacks(self) -> Sequence[Callback]:
        return [BusyWait()]


def test_a_planted_delay_misses_the_bar() -> None:
    # A slope over 40 and 200 steps: the delay alone is 50 times the bar, in CPU time of this
    # process, so that a busy machine can only make it longer. Without it ours is some 100 µs
    # below the loop by hand, for which the last line leaves room.
    size = replace(SIZE, counts={"steps": 40}, pairs=3)
    per_step = outcomes(Delayed(), size=size)[0]
    assert per_step.gate.passed
    assert per_step.verdict == "MISSED"
    assert per_step.interval is not None
    assert per_step.interval.high > 0.5 * PLANTED_US


class Skipping(Tape):
    """Leaves its third batch out."""

    def _play(self, what: Sequence[object], start: int):
        for step, entry in enumerate(super()._play(what, start)):
            if step != 2:
                yield entry


class Dropped(LoopOverhead):
    """Ours does not train on one of the batches that it was given."""

    def tape(self, side: str, count: int, device: str) -> Tape:
        kind = Skipping if side == OURS else Tape
        return kind(ready_batches(1, device), count)


def test_a_skipped_batch_voids_the_pair() -> None:
    outcome = outcomes(Dropped())[0]
    assert outcome.verdict == "VOID"
    assert outcome.interval is None
    assert "the candidate skipped steps" in outcome.voided[0]


class OtherOrder(LoopOverhead):
    def tape(self, side: str, count: int, device: str) -> Tape:
        batches: list[Batch] = ready_batches(1, device)
        tape = Tape(batches, count)
        if side == OURS:
            tape._play = lambda what, start: reversed(list(Tape._play(tape, what, start)))  # type: ignore
        return tape


def test_other_batches_fail_the_gate() -> None:
    """The tape was taken in its order, so only the losses show what was done with it."""
    outcome = outcomes(OtherOrder())[0]
    assert outcome.verdict == "GATE FAILED"


class OtherWeights(LoopOverhead):
    def model(self, side: str, device: str) -> nn.Module:
        model = super().model(side, device)
        if side == OURS:
            with torch.no_grad():
                next(model.parameters())[0, 0] += 1e-6
        return model


def test_unequal_first_weights_void_the_pair() -> None:
    outcome = outcomes(OtherWeights())[0]
    assert outcome.verdict == "VOID"
    assert "first weights differ" in outcome.voided[0]


def test_the_sides_are_what_they_are_called() -> None:
    comparison = of_variant(LoopOverhead(), "default")
    assert (comparison.baseline, comparison.candidate) == (BY_HAND, OURS)
