"""``inspect-cost``: what ``learner.inspect(every=100)`` costs in a fit.

Two fits on one machine differ by several percent, also in alternating time slices. So the cost is
taken from the inspected fit itself: a watched step is compared with the steps around it.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean, median
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from flambeau import Callback, TrainState
from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size, equal_losses
from flambeau_bench.cases.vision_fit import ArraysByPart, learner_of, read_fashion_mnist
from flambeau_bench.measurement import Measurement
from flambeau_bench.real_data import missing_reason
from flambeau_bench.side.small_resnet import SmallResNet
from flambeau_bench.timing import SecondsClock, clock_for, threads

if TYPE_CHECKING:
    from flambeau import Learner
    from flambeau_bench.cases.translation_sides import TranslationSides

PLAIN, INSPECTED = "fit", "fit, inspected"
VISION, TRANSLATION = "vision", "translation"
_AROUND = 8  # steps before and after a watched step with which it is compared


class StepTimes(Callback):
    """Takes the time of each step, callbacks and loading included, and that of the end of the fit.

    Args:
        clock: Returns seconds.

    Attributes:
        end_s: Seconds from the end of the epoch to the end of the fit.
    """

    def __init__(self, clock: SecondsClock) -> None:
        self._clock = clock
        self._starts: list[float] = []
        self._ended = self.end_s = 0.0

    def on_step_start(self, state: TrainState) -> None:
        self._starts.append(self._clock())

    def on_epoch_end(self, state: TrainState) -> None:
        self._ended = self._clock()

    def on_fit_end(self, state: TrainState) -> None:
        self.end_s = self._clock() - self._ended

    def seconds(self) -> list[float]:
        """Return the time from the start of each step to the start of the next one."""
        pairs = zip(self._starts, self._starts[1:], strict=False)
        return [after - before for before, after in pairs]


def watched_share(seconds: Sequence[float], every: int) -> float:
    """Return how much longer the watched steps take, divided by the time of ``every`` steps.

    Args:
        seconds: The time of each step.
        every: Steps 0, ``every``, 2 · ``every`` … are watched. The first one is left out, because
            it is longer for other reasons.
    """
    found: list[float] = []
    for step in range(every, len(seconds), every):
        near = range(max(1, step - _AROUND), min(len(seconds), step + _AROUND + 1))
        usual = median(seconds[each] for each in near if each % every)
        found.append((seconds[step] - usual) / (every * usual))
    return mean(found)


class InspectCost(Case):
    """Watch every 100th step of a fit, which trains the same weights as one that is not watched.

    "vision" is the net of ``vision-fit``, "translation" the recurrent model of ``translation``. The
    cost is how much longer a watched step takes than the median of the sixteen steps around it, and
    the end of the fit, where the record is read, as a share of the time of all steps. What the
    callback does in other steps, some microseconds, is not in it. On a CPU it is CPU time.
    """

    name: ClassVar = "inspect-cost"
    question: ClassVar = "What does it cost to watch all layers in every 100th step?"
    sizes: ClassVar = {
        "quick": Size(
            "quick",
            {"train": 64, "valid": 16, "batch_size": 16, "every": 2, "steps": 6},
            pairs=1,
            floor_pairs=1,
        ),
        "cpu": Size(
            "cpu",
            {"train": 16_000, "valid": 64, "batch_size": 64, "every": 100, "steps": 250},
            pairs=11,
            floor_pairs=1,
        ),
        "gpu": Size(
            "gpu",
            {"train": 29_000, "valid": 64, "batch_size": 64, "every": 100, "steps": 450},
            pairs=7,
            floor_pairs=3,
            device="cuda",
        ),
    }

    def __init__(self) -> None:
        self._sides: dict[str, TranslationSides] = {}

    def skip_reason(self, size: Size) -> str:
        missing = super().skip_reason(size)
        if missing or size.name == "quick":
            return missing
        return missing_reason("fashion_mnist") or missing_reason("multi30k")

    def comparisons(self, size: Size) -> Sequence[Comparison]:
        limit = 2.0 if size.name != "quick" else None
        criteria = (
            Criterion("inspect_percent", "value", "% of the time of the steps", limit),
            Criterion("fit_s", "ratio", "× the time of the fit"),
            Criterion("fit_s", "value", "s"),
        )
        return [Comparison(name, PLAIN, INSPECTED, criteria) for name in (VISION, TRANSLATION)]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        make = _vision_learner if comparison.variant == VISION else self._translation_learner
        clock = clock_for(torch.device(size.device))
        with threads(1):
            learner, times = make(size, pair), StepTimes(clock)
            learner.callbacks = (times, *learner.callbacks)
            learner.built.components()  # data are encoded on first use
            init_hash = fingerprint.of_weights(learner.model)
            if side == INSPECTED:
                learner.inspect(every=size["every"])
            torch.manual_seed(pair)  # dropout
            started = clock()
            history = learner.fit(steps=size["steps"])
            seconds = clock() - started
        steps_s = times.seconds()
        share = 0.0
        if side == INSPECTED:
            share = watched_share(steps_s, size["every"]) + times.end_s / sum(steps_s)
        return Measurement(
            {"fit_s": seconds, "inspect_percent": 100 * share},
            steps=len(history.step_losses),
            samples=size["steps"] * size["batch_size"],
            init_hash=init_hash,
            settings=fingerprint.machine_settings(),
            quality={
                "losses": fingerprint.of_numbers(history.step_losses)
                + fingerprint.of_weights(learner.model)
            },
        )

    def _translation_learner(self, size: Size, seed: int) -> Learner:
        from flambeau_bench.cases.translation_sides import TranslationSides
        from flambeau_bench.cases.translation_variant import VARIANTS

        if size.name not in self._sides:
            self._sides[size.name] = TranslationSides(VARIANTS["rnn fp32"], size)
        return self._sides[size.name].learner(seed, size["batch_size"])

    def gate(
        self, comparison: Comparison, pairs: Sequence[tuple[Measurement, Measurement]]
    ) -> Gate:
        return equal_losses(pairs)


def _vision_learner(size: Size, seed: int) -> Learner:
    parts = _random_images(size) if size.name == "quick" else read_fashion_mnist(size)
    torch.manual_seed(seed)
    return learner_of(SmallResNet(), parts, size, seed, {"probe": "off"}, quiet=True)


def _random_images(size: Size) -> ArraysByPart:
    draws = np.random.default_rng(0)
    return {
        part: (
            draws.integers(0, 256, (size[part], 28, 28), dtype=np.uint8),
            np.arange(size[part]) % 10,
        )
        for part in ("train", "valid")
    }
