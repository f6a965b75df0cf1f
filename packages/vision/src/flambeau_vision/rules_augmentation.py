"""The plan's rules for augmentation, presizing and mixing of train images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau_vision.augmentation_settings import Augmentation
from flambeau_vision.facts import ImageFacts
from flambeau_vision.presize import FACTOR, presize_side
from flambeau_vision.recipes import LONG_RUN
from flambeau_vision.resize import height_and_width
from flambeau_vision.rules_geometry import NATIVE_UP_TO

Values = Mapping[str, Any]

_NATIVE_SHORT = (
    "no shift for images of their own size (Fashion-MNIST, validation accuracy after 5 epochs: "
    "0.930 with flip, 0.916 with flip and shifts of up to a tenth)"
)
_NATIVE_LONG = (
    f"shifts of up to an eighth in a run of at least {LONG_RUN} epochs (120 epochs, accuracy on "
    "held-out training images: 0.70 with and 0.67 without shifts on 1,250 cats and dogs of "
    "CIFAR-10, mean of both classes; 0.86 on 2,000 images of Fashion-MNIST, which had 0.84 after "
    "40 epochs without shifts)"
)
_PHOTO_LONG = (
    f"in a run of at least {LONG_RUN} epochs (244 photographs of ants and bees, four folds of "
    "train: accuracy 0.775 and loss 0.53 after 120 epochs with this augmentation and mixing, "
    "0.779 and 0.65 without mixing; 0.755 and 0.66 after 40 epochs of a short run's augmentation)"
)
_COLOR = {"brightness": 0.2, "contrast": 0.2}  # fastai's defaults


def _augmentation(facts: ImageFacts, values: Values) -> Choice:
    size, names = max(height_and_width(values["image_size"])), facts.get("class_names", [])
    override = f'Learner(data, choices={{"augmentation": {Augmentation().as_json()}}})'
    if values["task"] == "regression":
        return Choice(
            "augmentation",
            None,
            "The targets are numbers, and a geometric change of an image may change its target.",
            alternatives=(Augmentation().as_json(),),
            confidence=0.6,
            override=override,
        )
    flip, why = _choose_flip(names)
    is_long = values["epochs"] >= LONG_RUN
    if size <= NATIVE_UP_TO:
        still = Augmentation(
            flip=flip, rotate_degrees=0.0, zoom=(1.0, 1.0), shift=0.0, probability=0.0
        )
        shifted = replace(still, shift=0.125, probability=1.0)
        chosen, alternative = (shifted, still) if is_long else (still, shifted)
        what = _NATIVE_LONG if is_long else _NATIVE_SHORT
    elif is_long:
        chosen = Augmentation(
            flip=flip, zoom=(1.0, 2.2), shift=0.15, probability=1.0, **_COLOR, saturation=0.2
        )
        what = f"stronger rotation, zoom, shift and colour changes {_PHOTO_LONG}"
        alternative = Augmentation(flip=flip, zoom=(1.0, 1.5))
    else:
        chosen = Augmentation(flip=flip, zoom=(1.0, 1.5))
        what = (
            "rotation, zoom and shift in one resampling (244 photographs of ants and bees, "
            "validation accuracy: 0.76 with zoom up to 1.5, 0.74 with 1.1, 0.73 without "
            "augmentation); warp, colour changes and erasing are off because their gain was not "
            "measured in a short run"
        )
        alternative = replace(chosen, warp=0.2, **_COLOR)
    return Choice(
        "augmentation",
        chosen.as_json(),
        f"{why}; {what}.",
        evidence={"image_size": size, "flip": flip, "epochs": values["epochs"]},
        alternatives=(alternative.as_json(), None),
        confidence=0.7,
        override='Learner(data, choices={"augmentation": None})',
    )


def _choose_flip(names: Sequence[str]) -> tuple[bool, str]:
    """Return whether the class names suggest that a horizontal flip keeps the class, and why."""
    if names and all(len(name) == 1 or name.isdigit() for name in names):
        shown = ", ".join(names[:4])
        return False, f"No horizontal flip: classes named {shown}, … may be letters or digits"
    words = [set(re.split(r"[\W_]+", name.lower())) for name in names]
    for left, right in (("left", "right"), ("l", "r"), ("links", "rechts")):
        if any(left in word for word in words) and any(right in word for word in words):
            return False, f"No horizontal flip: class names distinguish {left} and {right}"
    return True, "Horizontal flip with probability 0.5"


def _presize(facts: ImageFacts, values: Values) -> Choice:
    height, width = height_and_width(values["image_size"])
    size, given = height, values["augmentation"]
    short_side = facts["short_side_median"]
    evidence = {"image_size": size, "short_side_median": short_side}
    if given is None or not Augmentation.from_json(given).resamples:
        return Choice(
            "presize",
            None,
            "The augmentation does not resample, so train images are read at their final size.",
            evidence=evidence,
            override='Learner(data, choices={"augmentation": {"zoom": [1.0, 1.5]}})',
        )
    if height != width:
        return Choice(
            "presize",
            None,
            "Presizing reads square images, so train images are read at their final size.",
            evidence=evidence,
            override=f"ImageData.from_…(size={max(height, width)})",
        )
    crop = _crop(values)
    side = presize_side(size, crop, short_side)
    if side is None:
        return Choice(
            "presize",
            None,
            f"The images (median short side {short_side:g}) are hardly larger than the "
            f"{size / crop:g} pixels that are read without presizing.",
            evidence=evidence,
            override=f'Learner(data, choices={{"presize": {round(size / crop * FACTOR)}}})',
        )
    if values["weights"] is None:
        return Choice(
            "presize",
            None,
            f"From scratch, reading train images at {side} pixels and resizing them to {size} "
            "during augmentation did not improve accuracy (244 photographs of ants and bees, "
            "validation accuracy after 40 epochs: 0.72 with and 0.74 without presizing, means of "
            "four runs each).",
            evidence=evidence,
            alternatives=(side,),
            confidence=0.6,
            override=f'Learner(data, choices={{"presize": {side}}})',
        )
    return Choice(
        "presize",
        side,
        f"Train images are read at {side} pixels and resized to {size} by the resampling that "
        "rotates and zooms them: corners show real pixels, and a zoom shows details that an image "
        f"of {size} pixels lacks. Validation and prediction read images at {size} pixels. This is "
        "usual practice for fine-tuning; its gain was not measured here.",
        evidence=evidence,
        alternatives=(None,),
        confidence=0.6,
        override='Learner(data, choices={"presize": None})',
    )


def _mixing(facts: ImageFacts, values: Values) -> Choice:
    usual = {"mixup": 0.2, "cutmix": 1.0, "probability": 0.5}
    size, epochs = max(height_and_width(values["image_size"])), values["epochs"]
    if values["task"] == "regression":
        reason = "MixUp and CutMix mix class labels, but this is a regression."
        return Choice("mixing", None, reason, source="default")
    evidence = {"image_size": size, "epochs": epochs}
    if epochs >= LONG_RUN and size > NATIVE_UP_TO:
        return Choice(
            "mixing",
            usual,
            f"Half of the images are mixed {_PHOTO_LONG}.",
            evidence=evidence,
            alternatives=(None,),
            confidence=0.6,
            override='Learner(data, choices={"mixing": None})',
        )
    return Choice(
        "mixing",
        None,
        f"MixUp and CutMix need a run of at least {LONG_RUN} epochs; of images of their own size "
        "they were measured only with uneven classes, where they lowered the loss and the accuracy "
        "of the smaller class (1,250 cats and dogs of CIFAR-10, 120 epochs).",
        evidence=evidence,
        alternatives=(usual,),
        override=f'Learner(data, choices={{"mixing": {usual}}})',
        source="default",
    )


def _crop(values: Values) -> float:
    """Return the share of the short side that is visible in validation."""
    from flambeau_vision.from_plan import planned_weights_record

    record = planned_weights_record(values)
    return 1.0 if record is None else record.crop


AUGMENTATION_RULES: tuple[Rule, ...] = (
    Rule("augmentation", ("image_size", "task", "epochs"), _augmentation, changes="apply"),
    Rule("mixing", ("image_size", "task", "epochs"), _mixing, changes="apply"),
    Rule("presize", ("image_size", "augmentation", "weights", "architecture"), _presize),
)
