"""``loop-overhead``: the cost of a training step compared with a hand-written loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau import EMA, Callback, Learner, TrainingOptions, TrainState
from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size, equal_losses
from flambeau_bench.cases import by_hand
from flambeau_bench.cases.tiny_training import (
    BATCH_SIZE,
    BatchSource,
    KeepState,
    ReadyLoader,
    UserLoader,
    ready_batches,
    tiny_learner,
    tiny_model,
)
from flambeau_bench.measurement import Measurement
from flambeau_bench.timing import SecondsClock, Slope, clock_for, slope, threads

BY_HAND, FLAMBEAU = "by hand", "flambeau"
_SECOND_FITS = 3  # the fastest counts

Loop = Callable[[nn.Module, Optimizer, BatchSource], list[Tensor]]


@dataclass(frozen=True)
class LoopVariant:
    """A variant: one way of training, for both sides.

    Attributes:
        loop: The hand-written loop.
        training: The options of flambeau's fit. If they have an optimizer factory, both sides use
            it.
        optimizer: Name of the optimizer where there is no factory.
        micro_batches: Batches per optimizer step.
        user_loader: Whether both sides read a user's ``DataLoader`` instead of ready batches.
        limits_us: Limits in µs/step on the CPU and on CUDA; None measures without a limit.
    """

    loop: Loop
    training: TrainingOptions
    optimizer: str = "adamw"
    micro_batches: int = 1
    user_loader: bool = False
    limits_us: tuple[float | None, float | None] = (10.0, 20.0)


_UNGUARDED = TrainingOptions(nonfinite="off")
_USER_OPTIMIZER = TrainingOptions(optimizer=by_hand.user_optimizer)
_USER_OPTIMIZER_UNGUARDED = TrainingOptions(optimizer=by_hand.user_optimizer, nonfinite="off")
_USER_LIMITS = (60.0, None)
_USER_LIMITS_UNGUARDED = (25.0, None)
_NO_LIMITS = (None, None)

VARIANTS: dict[str, LoopVariant] = {
    "default": LoopVariant(by_hand.plain, _UNGUARDED),
    "sgd": LoopVariant(by_hand.plain, _UNGUARDED, optimizer="sgd"),
    # The hand-written loop has no such guard: its whole cost counts as overhead.
    "guard": LoopVariant(by_hand.plain, TrainingOptions()),
    "clip": LoopVariant(
        by_hand.clipped, TrainingOptions(nonfinite="off", clip_norm=by_hand.MAX_NORM)
    ),
    "accumulate4": LoopVariant(
        by_hand.accumulated,
        TrainingOptions(nonfinite="off", accumulate=by_hand.ACCUMULATE),
        micro_batches=by_hand.ACCUMULATE,
    ),
    "ema": LoopVariant(
        by_hand.averaged, TrainingOptions(nonfinite="off", average=EMA(by_hand.EMA_DECAY))
    ),
    # flambeau steps torch's own optimizers faster than torch does, which offsets the cost of its
    # loop. A user-defined optimizer makes the same step on both sides.
    "user optimizer": LoopVariant(by_hand.plain, _USER_OPTIMIZER, limits_us=_USER_LIMITS),
    "user optimizer, guard off": LoopVariant(
        by_hand.plain, _USER_OPTIMIZER_UNGUARDED, limits_us=_USER_LIMITS_UNGUARDED
    ),
    "user loader": LoopVariant(
        by_hand.moved, TrainingOptions(), user_loader=True, limits_us=_USER_LIMITS
    ),
    "user loader, guard off": LoopVariant(
        by_hand.moved, _UNGUARDED, user_loader=True, limits_us=_USER_LIMITS_UNGUARDED
    ),
    "user loader and optimizer": LoopVariant(
        by_hand.moved, _USER_OPTIMIZER, user_loader=True, limits_us=_NO_LIMITS
    ),
    "user loader and optimizer, guard off": LoopVariant(
        by_hand.moved, _USER_OPTIMIZER_UNGUARDED, user_loader=True, limits_us=_NO_LIMITS
    ),
}


class LoopOverhead(Case):
    """Compare fits of an MLP 32-64-1 on batches of 32 with hand-written training loops.

    The cost of a step is the slope between a short and a long fit. The losses of both sides must be
    bitwise equal. flambeau uses its default callbacks. "setup" is the time from ``fit`` to the
    first step in a learner that has been fitted before.
    """

    name: ClassVar = "loop-overhead"
    question: ClassVar = "How much longer does a step take than in a hand-written loop?"
    sizes: ClassVar = {
        "quick": Size("quick", {"steps": 20}, pairs=1, floor_pairs=1),
        # Short runs and many pairs: the speed of a shared machine changes by a tenth within a
        # second; 11 pairs of 1,000 steps gave ±40 µs, 201 pairs of 100 steps ±2.
        "cpu": Size("cpu", {"steps": 20}, pairs=201, floor_pairs=201),
        "gpu": Size("gpu", {"steps": 200}, pairs=21, floor_pairs=21, device="cuda"),
    }

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        ratio = Criterion("slope_us", "ratio", "× by hand")
        fixed = Criterion("fixed_ms", "difference", "ms/fit")
        setup = Criterion("setup_ms", "value", "ms to the first step of a second fit", limit=1.0)
        found: list[Comparison] = []
        for name, variant in VARIANTS.items():
            limit_us = variant.limits_us[size.device == "cuda"]
            per_step = Criterion("slope_us", "difference", "µs/step", limit=limit_us)
            more = (fixed, setup) if name == "default" else ()
            found.append(Comparison(name, BY_HAND, FLAMBEAU, (per_step, ratio, *more)))
        return found

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        with threads(1):
            run = _Run(self, VARIANTS[comparison.variant], side, size)
            line = slope(run.seconds_of, size["steps"])
            return run.measurement(line)

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        return equal_losses(pairs)

    # Replaced by negative controls

    def model(self, side: str, device: str) -> nn.Module:
        """Return the untrained model."""
        return tiny_model(0, device)

    def loader(self, side: str, count: int, device: str) -> ReadyLoader:
        """Return the batches of an epoch."""
        return ReadyLoader(ready_batches(1, device), count)

    def callbacks(self) -> Sequence[Callback]:
        """Return callbacks of flambeau's side, in addition to the default callbacks."""
        return ()


class _Run:
    """The fits of one side, and the losses, weights and settings of the last fit."""

    def __init__(self, case: LoopOverhead, variant: LoopVariant, side: str, size: Size) -> None:
        self.case, self.variant, self.side, self.size = case, variant, side, size
        self.clock: SecondsClock = clock_for(torch.device(size.device))
        self.init_hash = ""
        self.source: BatchSource = ReadyLoader([], 0)
        self.losses: list[float] = []
        self.model: nn.Module = nn.Identity()
        self.optimizer: Optimizer | None = None

    def seconds_of(self, steps: int) -> float:
        """Train a new model for ``steps`` optimizer steps and return the seconds that they took."""
        self.source = self._batches(steps * self.variant.micro_batches)
        self.model = self.case.model(self.side, self.size.device)
        self.init_hash = fingerprint.of_weights(self.model)
        return self._by_hand() if self.side == BY_HAND else self._flambeau()

    def _batches(self, count: int) -> BatchSource:
        device = self.size.device
        if self.variant.user_loader:
            return UserLoader(ready_batches(1, device), count)
        return self.case.loader(self.side, count, device)

    def _by_hand(self) -> float:
        factory = self.variant.training.factory
        started = self.clock()
        if factory is None:
            self.optimizer = by_hand.optimizer_for(self.variant.optimizer, self.model)
        else:
            self.optimizer = factory(self.model, {})["main"]
        losses = self.variant.loop(self.model, self.optimizer, self.source)
        # The evaluation and the single read of the device that end flambeau's epoch too.
        by_hand.evaluate(self.model, self.source.first())
        self.losses = torch.stack(losses).double().tolist()
        return self.clock() - started

    def _flambeau(self) -> float:
        keep = KeepState()
        learner = self._learner(self.source, self.model, keep)
        started = self.clock()
        history = learner.fit()
        took = self.clock() - started
        self.losses = list(history.step_losses)
        if keep.state is not None:
            self.optimizer = keep.state.optimizers["main"]
        return took

    def _learner(self, source: BatchSource, model: nn.Module, *more: Callback) -> Learner:
        learner = tiny_learner(
            source,
            model,
            optimizer=self.variant.optimizer,
            training=self.variant.training,
            callbacks=[*self.case.callbacks(), *more],
            device=self.size.device,
        )
        learner.built.components()  # built on first use; only the loop is timed
        return learner

    def measurement(self, line: Slope) -> Measurement:
        """Return a measurement of the slope, with the losses and settings of the long fit."""
        figures = {"slope_us": line.per_step_us, "fixed_ms": line.fixed_ms}
        if self.side == FLAMBEAU and self.variant is VARIANTS["default"]:
            figures["setup_ms"] = self._setup_ms()
        settings = {**fingerprint.machine_settings(), "batch_size": BATCH_SIZE}
        if self.optimizer is not None:
            settings |= fingerprint.optimizer_settings(self.optimizer)
        return Measurement(
            figures,
            steps=len(self.losses),
            samples=len(self.source.taken) * BATCH_SIZE,
            init_hash=self.init_hash,
            order_hash=fingerprint.of_numbers(self.source.taken),
            settings=settings,
            quality={
                "losses": fingerprint.of_numbers(self.losses) + fingerprint.of_weights(self.model)
            },
        )

    def _setup_ms(self) -> float:
        first_step = _FirstStep(self.clock)
        source = self._batches(2)
        learner = self._learner(source, self.case.model(self.side, self.size.device), first_step)
        learner.fit()
        times: list[float] = []
        for _ in range(_SECOND_FITS):
            started = self.clock()
            learner.fit()
            times.append(first_step.at_s - started)
        return min(times) * 1e3


class _FirstStep(Callback):
    """Records when the first step of the last fit began."""

    def __init__(self, clock: SecondsClock) -> None:
        self._clock = clock
        self.at_s = 0.0

    def on_step_start(self, state: TrainState) -> None:
        if state.position.epoch_step == 0:
            self.at_s = self._clock()
