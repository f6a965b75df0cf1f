"""``loop-overhead``: what a training step costs over the same step written by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau import EMA, Callback, Learner, TrainingOptions, TrainState
from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Gate, Question, Size, same_losses
from flambeau_bench.cases import by_hand
from flambeau_bench.cases.tiny import (
    BATCH_SIZE,
    Keep,
    Tape,
    ready_batches,
    tiny_learner,
    tiny_model,
)
from flambeau_bench.measurement import Measurement
from flambeau_bench.timing import Clock, Slope, clock_for, slope, threads

BY_HAND, OURS = "by hand", "flambeau"
_SECOND_FITS = 3  # the quickest counts

Loop = Callable[[nn.Module, Optimizer, Tape], list[Tensor]]


@dataclass(frozen=True)
class Variant:
    """One way of training, for both sides."""

    loop: Loop
    training: TrainingOptions
    optimizer: str = "adamw"
    micro_batches: int = 1


VARIANTS: dict[str, Variant] = {
    "default": Variant(by_hand.plain, TrainingOptions(nonfinite="off")),
    "sgd": Variant(by_hand.plain, TrainingOptions(nonfinite="off"), optimizer="sgd"),
    # Nobody guards by hand: the guard's whole cost counts as overhead.
    "guard": Variant(by_hand.plain, TrainingOptions()),
    "clip": Variant(by_hand.clipped, TrainingOptions(nonfinite="off", clip_norm=by_hand.MAX_NORM)),
    "accumulate4": Variant(
        by_hand.accumulated,
        TrainingOptions(nonfinite="off", accumulate=by_hand.ACCUMULATE),
        micro_batches=by_hand.ACCUMULATE,
    ),
    "ema": Variant(
        by_hand.averaged, TrainingOptions(nonfinite="off", average=EMA(by_hand.EMA_DECAY))
    ),
}


class LoopOverhead(Case):
    """An MLP 32-64-1 on ready batches of 32, with the default callbacks; losses equal to the bit.

    The steps are timed by the slope between a short and a long fit. "setup" is the time from
    ``fit`` to the first step in a learner that has been fitted before.
    """

    name: ClassVar = "loop-overhead"
    asks: ClassVar = "What does a step cost over a loop written by hand with the same optimizer?"
    sizes: ClassVar = {
        "quick": Size("quick", {"steps": 40}),
        # Short runs, many pairs: the speed of a shared machine drifts by a tenth within a second;
        # 11 pairs of 1,000 steps left ±40 µs where 201 of 100 steps leave ±2.
        "cpu": Size("cpu", {"steps": 20}, pairs=201, floor_pairs=201),
        "gpu": Size("gpu", {"steps": 200}, pairs=21, floor_pairs=21, device="cuda"),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        limit_us = 10.0 if size.device == "cpu" else 20.0
        per_step = Question("slope_us", "difference", "µs/step", limit=limit_us)
        raw = Question("slope_us", "ratio", "× by hand")
        fixed = Question("fixed_ms", "difference", "ms/fit")
        setup = Question("setup_ms", "value", "ms to the first step of a second fit", limit=1.0)
        return [
            Comparison(
                name,
                BY_HAND,
                OURS,
                (per_step, raw, fixed, setup) if name == "default" else (per_step, raw),
            )
            for name in VARIANTS
        ]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        with threads(1):
            run = _Run(self, VARIANTS[comparison.variant], side, size)
            line = slope(run.seconds_of, size["steps"])
            return run.measurement(line)

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        return same_losses(pairs)

    # What a negative control replaces

    def model(self, side: str, device: str) -> nn.Module:
        """The net before training."""
        return tiny_model(0, device)

    def tape(self, side: str, count: int, device: str) -> Tape:
        """The batches of an epoch."""
        return Tape(ready_batches(1, device), count)

    def callbacks(self) -> Sequence[Callback]:
        """Observers of our side, besides the default ones."""
        return ()


class _Run:
    """The fits of one side, and the evidence of the last one."""

    def __init__(self, case: LoopOverhead, variant: Variant, side: str, size: Size) -> None:
        self.case, self.variant, self.side, self.size = case, variant, side, size
        self.clock: Clock = clock_for(torch.device(size.device))
        self.init_hash = ""
        self.tape = Tape([], 0)
        self.losses: list[float] = []
        self.model: nn.Module = nn.Identity()
        self.optimizer: Optimizer | None = None

    def seconds_of(self, steps: int) -> float:
        """Trains a new net for ``steps`` optimizer steps."""
        device = self.size.device
        self.tape = self.case.tape(self.side, steps * self.variant.micro_batches, device)
        self.model = self.case.model(self.side, device)
        self.init_hash = fingerprint.of_weights(self.model)
        return self._by_hand() if self.side == BY_HAND else self._ours()

    def _by_hand(self) -> float:
        started = self.clock()
        self.optimizer = by_hand.optimizer_for(self.variant.optimizer, self.model)
        losses = self.variant.loop(self.model, self.optimizer, self.tape)
        # Evaluation and the one read of the device, with which our epoch ends too.
        by_hand.evaluate(self.model, self.tape.first())
        self.losses = torch.stack(losses).double().tolist()
        return self.clock() - started

    def _ours(self) -> float:
        keep = Keep()
        learner = self._learner(self.tape, self.model, keep)
        started = self.clock()
        history = learner.fit()
        took = self.clock() - started
        self.losses = list(history.step_losses)
        if keep.state is not None:
            self.optimizer = keep.state.optimizers["main"]
        return took

    def _learner(self, tape: Tape, model: nn.Module, *more: Callback) -> Learner:
        learner = tiny_learner(
            tape,
            model,
            optimizer=self.variant.optimizer,
            training=self.variant.training,
            callbacks=[*self.case.callbacks(), *more],
            device=self.size.device,
        )
        learner.built.components()  # what the plan names is made on first use; the loop is timed
        return learner

    def measurement(self, line: Slope) -> Measurement:
        """The slope, with what the long fit has done."""
        figures = {"slope_us": line.per_step_us, "fixed_ms": line.fixed_ms}
        if self.side == OURS and self.variant is VARIANTS["default"]:
            figures["setup_ms"] = self._setup_ms()
        settings = {**fingerprint.machine_settings(), "batch_size": BATCH_SIZE}
        if self.optimizer is not None:
            settings |= fingerprint.optimizer_settings(self.optimizer)
        return Measurement(
            figures,
            steps=len(self.losses),
            items=len(self.tape.taken) * BATCH_SIZE,
            init_hash=self.init_hash,
            order_hash=fingerprint.of_numbers(self.tape.taken),
            settings=settings,
            quality={
                "losses": fingerprint.of_numbers(self.losses) + fingerprint.of_weights(self.model)
            },
        )

    def _setup_ms(self) -> float:
        first_step = _FirstStep(self.clock)
        tape = self.case.tape(self.side, 2, self.size.device)
        learner = self._learner(tape, self.case.model(self.side, self.size.device), first_step)
        learner.fit()
        times: list[float] = []
        for _ in range(_SECOND_FITS):
            started = self.clock()
            learner.fit()
            times.append(first_step.at_s - started)
        return min(times) * 1e3


class _FirstStep(Callback):
    """When the first step of the last fit began."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.at_s = 0.0

    def on_step_start(self, state: TrainState) -> None:
        if state.position.epoch_step == 0:
            self.at_s = self._clock()
