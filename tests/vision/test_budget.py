"""The size of the images, and the network, that ``fit_auto`` chooses for a time budget."""

from __future__ import annotations

from ctypes import c_double
from dataclasses import replace
from itertools import count

import numpy as np
import pytest

from flambeau import Callback, Learner, Plan, TrainingOptions
from flambeau.plan import CORE_RULES, combine
from flambeau.training.step import train_step
from flambeau.tuning.budget_choice import longest_run
from flambeau_vision import ImageData
from flambeau_vision.domain import DOMAIN


class PixelClock:
    """Seconds of a machine on which a step takes as long as its images have pixels.

    The time is no Python number, because measurements restore those of a train step.
    """

    def __init__(self, pixels_per_s: float) -> None:
        self.pixels_per_s, self._now_s = pixels_per_s, c_double(0.0)

    @property
    def now_s(self) -> float:
        return self._now_s.value

    @now_s.setter
    def now_s(self, value: float) -> None:
        self._now_s.value = value

    def __call__(self) -> float:
        return self.now_s

    def step(self, model, micro_batches, task, step):
        for batch in micro_batches:
            n, _, height, width = batch.inputs["image"].shape
            self.now_s += n * height * width / self.pixels_per_s
        return train_step(model, micro_batches, task, step)

    def options(self) -> TrainingOptions:
        return TrainingOptions(train_step=self.step, doctor=False)


class Stop(Callback):
    """Ends a run before its first step, once the plan is complete."""

    def on_fit_start(self, state) -> None:
        state.stop_reason = "planned"


def photographs(n: int = 20, side: int = 160) -> ImageData:
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (n, side, side), dtype=np.uint8)
    return ImageData.from_arrays(images, ["ant", "bee"] * (n // 2), valid=0.2)


def learner(clock: PixelClock, data: ImageData | None = None, **more: object) -> Learner:
    choices = {"epochs": 40, "batch_size": 4, "probe": "off", **more.pop("choices", {})}
    return Learner(
        data or photographs(),
        training=clock.options(),
        callbacks=more.pop("callbacks", [Stop()]),
        choices=choices,
        quiet=True,
        **more,
    )


# 16 train images of 128 x 128 pixels are 262,144 pixels an epoch; 40 epochs are planned and 20 are
# enough. In 58.8 seconds a machine of 40,000 pixels a second trains 9 epochs at 128, 16 at 96, 64
# at 48; three steps of 4 images, the measurement, take 5 seconds of them at 128. On one of 10,000
# they take 20 seconds, so that no other size is measured.
@pytest.mark.parametrize(
    ("speed", "size"), [(140_000, 128), (80_000, 96), (40_000, 48), (10_000, 48)]
)
def test_the_size_is_the_largest_at_which_enough_epochs_fit(speed: int, size: int) -> None:
    clock = PixelClock(speed)
    made = learner(clock)
    made.fit_auto(1.0, clock=clock)
    choice = made.plan["image_size"]
    assert (choice.value, choice.source) == (size, "rule")
    assert made.built.preprocessor.arguments()["size"] == size
    # The figure of the plan is that of the arithmetic above, less what three or four steps took.
    fitting = choice.evidence["epochs_within_budget"]["image_size 128"]
    assert fitting == pytest.approx(0.98 * (60 * speed / 262_144 - 0.75), rel=0.03)


def test_the_plan_says_what_the_size_was_and_how_to_keep_it() -> None:
    clock = PixelClock(40_000)
    made = learner(clock)
    made.fit_auto(1.0, clock=clock)
    choice = made.plan["image_size"]
    assert "It replaces 128" in choice.reason
    assert choice.override == 'Learner(data, choices={"image_size": 128})'
    assert "13.9 epochs at image_size 96" in choice.reason
    assert "1 min" in choice.reason


@pytest.mark.parametrize("way", ["size", "choices", "plan", "built"])
def test_a_size_that_is_fixed_stays(way: str) -> None:
    clock = PixelClock(40_000)
    data = photographs()
    if way == "size":
        data = ImageData.from_arrays(data.samples["image"], ["ant", "bee"] * 10, size=128)
    made = learner(clock, data, choices={"image_size": 128} if way == "choices" else {})
    if way == "plan":
        made = Learner(
            data, plan=made.plan, training=clock.options(), callbacks=[Stop()], quiet=True
        )
    if way == "built":
        assert made.model is not None
    made.fit_auto(1.0, clock=clock)
    assert made.plan["image_size"].value == 128


def test_a_repeated_run_measures_no_size() -> None:
    clock = PixelClock(3_000)
    first = learner(clock, choices={"epochs": 2}, callbacks=[])
    rows = first.fit_auto(1.0, clock=clock).rows
    again = Learner(
        first.data,
        plan=Plan.from_json(first.plan.to_json()),
        training=TrainingOptions(doctor=False),
        quiet=True,
    )
    assert again.plan["image_size"].value == 48
    assert [row["train_loss"] for row in again.fit_auto().rows] == [
        row["train_loss"] for row in rows
    ]


def test_a_larger_network_gives_way_where_half_the_size_is_not_enough(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On an accelerator the plan takes resnet18; here the CPU stands in for it."""

    rules = {rule.key: rule for rule in combine(CORE_RULES, DOMAIN.rules)}
    decide = rules["architecture"].decide
    larger = replace(
        rules["architecture"],
        decide=lambda facts, values: replace(decide(facts, values), value="resnet18"),
    )
    domain = replace(
        DOMAIN,
        models={**DOMAIN.models, "resnet18": DOMAIN.models["small_cnn"]},  # quick to time
        rules=tuple(larger if r.key == "architecture" else r for r in DOMAIN.rules),
    )
    monkeypatch.setattr("flambeau.learner.learner.domain_of", lambda data: domain)
    clock = PixelClock(40_000)
    made = learner(clock, choices={"epochs": 100})
    assert made.plan["architecture"].value == "resnet18"
    made.fit_auto(1.0, clock=clock)
    assert made.plan["architecture"].value == "small_cnn"
    assert "It replaces resnet18" in made.plan["architecture"].reason


def test_a_run_in_a_time_budget_may_be_longer_than_planned() -> None:
    images = np.zeros((5_000, 8, 8), dtype=np.uint8)
    data = ImageData.from_arrays(images, ["ant", "bee"] * 2_500, valid=0.2)
    plan = Learner(data, quiet=True).plan
    assert (plan.values["epochs"], longest_run(plan)) == (12, 200)
    assert longest_run(Learner(data, quiet=True, choices={"epochs": 3}).plan) == 3


def test_a_run_in_a_budget_decides_the_augmentation_anew() -> None:
    data = photographs(40, side=8)
    clock = count(step=1e-3).__next__  # a thousandth of a second at each look: all epochs fit
    for choices, found in (({}, (200, 0.125)), ({"epochs": 2}, (2, 0.0))):
        learner = Learner(data, choices=choices, callbacks=[Stop()], quiet=True)
        assert learner.plan["augmentation"].value["shift"] == 0.0
        learner.fit_auto(1.0, clock=clock)
        (augment,) = learner.data.transforms(learner.plan.values)
        assert (learner.plan.values["epochs"], augment.augmentation.shift) == found
