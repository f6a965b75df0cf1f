"""The plan's rules for how train pictures are changed, and at which size they are read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau_vision.augmentation import Augmentation
from flambeau_vision.presize import FACTOR, presized_side

Values = Mapping[str, Any]

# Sides up to this stay as they are; larger ones become a multiple of 32, the networks' stride.
NATIVE_UP_TO = 64
# What fastai changes by default; listed as an alternative until it is measured here.
_LIGHT_AND_WARP = {"warp": 0.2, "brightness": 0.2, "contrast": 0.2}


def _augmentation(facts: Values, values: Values) -> Choice:
    size, names = values["image_size"], facts.get("class_names", [])
    override = f'Learner(data, choices={{"augmentation": {Augmentation().as_json()}}})'
    if values["task"] == "regression":
        return Choice(
            "augmentation",
            None,
            "The labels are numbers, and moving or mirroring a picture may change them.",
            alternatives=(Augmentation().as_json(),),
            confidence=0.6,
            override=override,
        )
    flip, why = _may_flip(names)
    if size <= NATIVE_UP_TO:
        chosen = Augmentation(
            flip=flip, rotate_degrees=0.0, zoom=(1.0, 1.0), shift=0.0, probability=0.0
        )
        what = (
            f"pictures of {size} pixels are not moved (Fashion-MNIST after 5 epochs, valid: 0.930 "
            "mirrored, 0.916 mirrored and shifted by up to a tenth)"
        )
        alternative = replace(chosen, shift=0.1, probability=1.0)
    else:
        chosen = Augmentation(flip=flip, zoom=(1.0, 1.5))
        what = (
            "photographs turn, zoom and move, in one resampling (244 ants and bees: 0.76 with a "
            "zoom up to 1.5, 0.74 with 1.1, 0.73 unchanged); warp, light and erasing are off, "
            "since nobody measured them here"
        )
        alternative = replace(chosen, **_LIGHT_AND_WARP)
    return Choice(
        "augmentation",
        chosen.as_json(),
        f"{why}; {what}.",
        evidence={"image_size": size, "flip": flip},
        alternatives=(alternative.as_json(), None),
        confidence=0.7,
        override='Learner(data, choices={"augmentation": None})',
    )


def _may_flip(names: Sequence[str]) -> tuple[bool, str]:
    """Whether a mirrored picture keeps its class, as far as the names tell."""
    if names and all(len(name) == 1 or name.isdigit() for name in names):
        shown = ", ".join(names[:4])
        return False, f"No mirroring: classes called {shown}, … may be letters or digits"
    words = [set(re.split(r"[\W_]+", name.lower())) for name in names]
    for left, right in (("left", "right"), ("l", "r"), ("links", "rechts")):
        if any(left in word for word in words) and any(right in word for word in words):
            return False, f"No mirroring: class names tell {left} from {right}"
    return True, "Mirrored left and right in half of the samples"


def _presize(facts: Values, values: Values) -> Choice:
    size, given = values["image_size"], values["augmentation"]
    short_side = facts["short_side_median"]
    evidence = {"image_size": size, "short_side_median": short_side}
    if given is None or not Augmentation.from_json(given).resamples:
        return Choice(
            "presize",
            None,
            "Nothing is resampled on the device, so train pictures are read at their final size.",
            evidence=evidence,
            override='Learner(data, choices={"augmentation": {"zoom": [1.0, 1.5]}})',
        )
    crop = _crop(values)
    side = presized_side(size, crop, short_side)
    if side is None:
        return Choice(
            "presize",
            None,
            f"The pictures (median short side {short_side:g}) have hardly more than the "
            f"{size / crop:g} pixels that are read anyway.",
            evidence=evidence,
            override=f'Learner(data, choices={{"presize": {round(size / crop * FACTOR)}}})',
        )
    if values["weights"] is None:
        return Choice(
            "presize",
            None,
            f"From scratch, reading train pictures at {side} pixels and bringing them to {size} "
            "while they are augmented did not help (244 ants and bees, valid after 40 epochs: 0.72 "
            "with it and 0.74 without, means of four runs each).",
            evidence=evidence,
            alternatives=(side,),
            confidence=0.6,
            override=f'Learner(data, choices={{"presize": {side}}})',
        )
    return Choice(
        "presize",
        side,
        f"Train pictures are read at {side} pixels and brought to {size} by the resampling that "
        f"turns and zooms them: their corners are real pixels, and a zoom shows what a picture of "
        f"{size} has lost. Validation and prediction read at {size}. The usual way to fine-tune, "
        "not measured here.",
        evidence=evidence,
        alternatives=(None,),
        confidence=0.6,
        override='Learner(data, choices={"presize": None})',
    )


def _mixing(facts: Values, values: Values) -> Choice:
    usual = {"mixup": 0.2, "cutmix": 1.0, "probability": 0.5}
    mixes = values["task"] != "regression"
    return Choice(
        "mixing",
        None,
        "MixUp and CutMix want more epochs than small sets are given here, and nobody measured "
        "them with these recipes."
        if mixes
        else "The labels are numbers, which are not mixed.",
        alternatives=(usual,) if mixes else (),
        override=f'Learner(data, choices={{"mixing": {usual}}})' if mixes else "",
        source="default",
    )


def _crop(values: Values) -> float:
    """Share of the short side that validation sees."""
    from flambeau_vision.fitting import record_of

    record = record_of(values)
    return 1.0 if record is None else record.crop


AUGMENTATION_RULES: tuple[Rule, ...] = (
    Rule("augmentation", ("image_size", "task"), _augmentation),
    Rule("mixing", ("task",), _mixing),
    Rule("presize", ("image_size", "augmentation", "weights", "architecture"), _presize),
)
