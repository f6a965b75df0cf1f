"""``inspect-cost``: what ``learner.inspect(every=100)`` costs in a fit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from flambeau_bench import fingerprint
from flambeau_bench.case import Case, Comparison, Criterion, Gate, Size, equal_losses
from flambeau_bench.cases.vision_fit import ArraysByPart, learner_of, read_fashion_mnist
from flambeau_bench.measurement import Measurement
from flambeau_bench.real_data import missing_reason
from flambeau_bench.side.small_resnet import SmallResNet
from flambeau_bench.timing import clock_for, threads

if TYPE_CHECKING:
    from flambeau import Learner
    from flambeau_bench.cases.translation_sides import TranslationSides

PLAIN, INSPECTED = "fit", "fit, inspected"
VISION, TRANSLATION = "vision", "translation"


class InspectCost(Case):
    """Compare fits with and without ``learner.inspect(every=100)``, which train the same weights.

    "vision" is the net of ``vision-fit``, "translation" the recurrent model of ``translation``. The
    length is a multiple of 100 steps, so that the share of watched steps is one in a hundred. On a
    CPU the figure is CPU time, and the two fits alternate in time slices: one after the other they
    differ by several percent, because the speed of the machine changes meanwhile.
    """

    name: ClassVar = "inspect-cost"
    question: ClassVar = "What does it cost to watch all layers in every 100th step?"
    fresh: ClassVar = True
    sizes: ClassVar = {
        "quick": Size(
            "quick",
            {"train": 64, "valid": 16, "batch_size": 16, "every": 2, "steps": 4},
            pairs=1,
            floor_pairs=1,
        ),
        "cpu": Size(
            "cpu",
            {"train": 12_800, "valid": 64, "batch_size": 64, "every": 100, "steps": 200},
            pairs=11,
            floor_pairs=5,
        ),
        "gpu": Size(
            "gpu",
            {"train": 29_000, "valid": 64, "batch_size": 64, "every": 100, "steps": 400},
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
        limit = 1.02 if size.name != "quick" else None
        criteria = (
            Criterion("fit_s", "ratio", "× the time of the fit", limit),
            Criterion("fit_s", "value", "s"),
        )
        return [Comparison(name, PLAIN, INSPECTED, criteria) for name in (VISION, TRANSLATION)]

    def measure(self, comparison: Comparison, side: str, size: Size, pair: int) -> Measurement:
        make = _vision_learner if comparison.variant == VISION else self._translation_learner
        clock = clock_for(torch.device(size.device))
        with threads(1):
            learner = make(size, pair)
            learner.built.components()  # data are encoded on first use
            init_hash = fingerprint.of_weights(learner.model)
            if side == INSPECTED:
                learner.inspect(every=size["every"])
            torch.manual_seed(pair)  # dropout
            started = clock()
            history = learner.fit(steps=size["steps"])
            seconds = clock() - started
        return Measurement(
            {"fit_s": seconds},
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
