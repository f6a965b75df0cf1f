"""Negative controls: planted faults must make loop-overhead fail."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from flambeau import Batch, Callback, TrainState
from flambeau_bench.case import Comparison, Size
from flambeau_bench.cases.loop_overhead import BY_HAND, FLAMBEAU, LoopOverhead
from flambeau_bench.cases.tiny_training import ReadyLoader, ready_batches
from flambeau_bench.pairing import measure_pairs
from flambeau_bench.verdict import Outcome, judge

SIZE = Size("quick", {"steps": 4}, pairs=1, floor_pairs=0)
PLANTED_US = 2000


def outcomes(case: LoopOverhead, variant: str = "default", size: Size = SIZE) -> list[Outcome]:
    comparison = of_variant(case, variant)
    return judge(case, measure_pairs(case, comparison, size))


def of_variant(case: LoopOverhead, variant: str) -> Comparison:
    [comparison] = [c for c in case.comparisons(SIZE) if c.variant == variant]
    return comparison


class BusyWait(Callback):
    """Uses CPU time in each step: a clock of CPU time would not see a sleep."""

    def on_step_end(self, state: TrainState) -> None:
        end = time.process_time() + PLANTED_US * 1e-6
        while time.process_time() < end:
            pass


class Delayed(LoopOverhead):
    def callbacks(self) -> Sequence[Callback]:
        return [BusyWait()]


def test_a_planted_delay_misses_the_limit() -> None:
    # A slope over 40 and 200 steps: the delay alone is 200 times the limit, in CPU time of this
    # process. Without it flambeau takes about 100 µs less than the hand-written loop, and on a busy
    # machine the loop was seen 300 µs slower; half of the delay is far beyond both.
    size = replace(SIZE, counts={"steps": 40}, pairs=3)
    per_step = outcomes(Delayed(), size=size)[0]
    assert per_step.gate.passed
    assert per_step.verdict == "MISSED"
    assert per_step.interval is not None
    assert per_step.interval.high > 0.5 * PLANTED_US


class Skipping(ReadyLoader):
    """Skips its third batch."""

    def _iterate(self, what: Sequence[object], start: int):
        for step, entry in enumerate(super()._iterate(what, start)):
            if step != 2:
                yield entry


class Dropped(LoopOverhead):
    """flambeau does not train on one of the given batches."""

    def loader(self, side: str, count: int, device: str) -> ReadyLoader:
        kind = Skipping if side == FLAMBEAU else ReadyLoader
        return kind(ready_batches(1, device), count)


def test_a_skipped_batch_makes_the_pair_invalid() -> None:
    outcome = outcomes(Dropped())[0]
    assert outcome.verdict == "INVALID"
    assert outcome.interval is None
    assert "the candidate skipped steps" in outcome.invalid_pairs[0]


class OtherOrder(LoopOverhead):
    def loader(self, side: str, count: int, device: str) -> ReadyLoader:
        batches: list[Batch] = ready_batches(1, device)
        loader = ReadyLoader(batches, count)
        if side == FLAMBEAU:
            iterate = loader._iterate
            loader._iterate = lambda what, start: reversed(list(iterate(what, start)))  # type: ignore
        return loader


def test_another_order_fails_the_gate() -> None:
    """The batches are read in order and used in another one, which only the losses show."""
    outcome = outcomes(OtherOrder())[0]
    assert outcome.verdict == "GATE FAILED"


class OtherWeights(LoopOverhead):
    def model(self, side: str, device: str) -> nn.Module:
        model = super().model(side, device)
        if side == FLAMBEAU:
            with torch.no_grad():
                next(model.parameters())[0, 0] += 1e-6
        return model


def test_unequal_initial_weights_make_the_pair_invalid() -> None:
    outcome = outcomes(OtherWeights())[0]
    assert outcome.verdict == "INVALID"
    assert "initial weights differ" in outcome.invalid_pairs[0]


def test_the_sides_have_their_names() -> None:
    comparison = of_variant(LoopOverhead(), "default")
    assert (comparison.baseline, comparison.candidate) == (BY_HAND, FLAMBEAU)
