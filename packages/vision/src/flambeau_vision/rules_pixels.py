"""The plan's rules for the range of pixels that are not of 8 bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau_vision.facts import ImageFacts

Values = Mapping[str, Any]


def _bits(facts: ImageFacts, values: Values) -> Choice:
    bits, n = facts.get("bits"), facts["n_train"]
    if bits is None:
        value, reason = 16, "No train image has 16-bit pixels."
    else:
        value = bits
        reason = (
            f"The largest 16-bit pixel in {n:,} train images has {bits} significant bits: values "
            f"up to {(1 << bits) - 1:,} are scaled to 255, and larger ones become 255."
        )
    return Choice(
        "bits",
        value,
        reason,
        evidence={} if bits is None else {"bits": bits},
        alternatives=() if value == 16 else (16,),
        override="ImageOptions(bits=16), on the command line --bits 16",
    )


def _bits_accept(value: Any, facts: ImageFacts, values: Values) -> str | None:
    if type(value) is not int or not 8 <= value <= 16:
        return "a whole number from 8 to 16."
    scaled = facts.get("bits", value) if facts["in_memory"] else value
    if value != scaled:
        return (
            f"{scaled}, because these arrays were already scaled with it when the data were "
            "created. To change it, create the data with ImageOptions(bits=…)."
        )
    return None


def _white(facts: ImageFacts, values: Values) -> Choice:
    white = facts.get("white")
    evidence: dict[str, Any] = {}
    largest = facts.get("float_max")
    if white is None or largest is None:
        reason = (
            "No train image is an array of floats. In predictions such arrays are in 0..1 if their "
            "largest value is at most 1, else in 0..255, separately for each image."
        )
    else:
        evidence = {"float_max": largest}
        reason = (
            "The largest value of the images of floats in train, or in the other parts if train "
            f"has none, is {largest:g}: all are in 0..{white}, and predictions read them in the "
            "same way."
        )
    return Choice(
        "white",
        white,
        reason,
        evidence=evidence,
        alternatives=tuple(other for other in (1, 255) if other != white),
        override=f"ImageOptions(white={1 if white == 255 else 255})",
    )


def _white_accept(value: Any, facts: ImageFacts, values: Values) -> str | None:
    if value is not None and (type(value) is not int or value not in (1, 255)):
        return "1, 255 or None."
    scaled = facts.get("white", value)
    if value != scaled:
        return (
            f"{scaled}, because the images were already scaled with it when the data were created. "
            "To change it, create the data with ImageOptions(white=…)."
        )
    return None


PIXEL_RULES: tuple[Rule, ...] = (
    Rule("bits", (), _bits, _bits_accept, determines="preprocessor"),
    Rule("white", (), _white, _white_accept, determines="preprocessor"),
)
