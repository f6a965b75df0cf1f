"""The plan's rules for the size of the model's input, and how images get it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flambeau.errors import InputError
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau_vision.facts import ImageFacts
from flambeau_vision.resize import parse_size

Values = Mapping[str, Any]

LARGEST, LARGEST_ON_CPU = 224, 128

# Sides up to this are kept; larger ones are rounded to a multiple of 32, the networks' stride.
NATIVE_UP_TO = 64

# Sides under a time budget. 64 is left out: small_cnn's stem has stride 2 up to 64 pixels and 4
# above, so that 64 costs as much as 128.
_SMALLER = (192, 160, 128, 96, 48, 32)
# Pretrained weights and larger networks see too little in small images; photographs lose what
# they show below 48 pixels.
_SMALLEST_PRETRAINED, _SMALLEST_PHOTOGRAPH = 128, 48
_FIXED_SIZE = ("vit_b_16", "swin_t")


def _image_size(facts: ImageFacts, values: Values) -> Choice:
    side, architecture = facts["short_side_median"], values["architecture"]
    evidence: dict[str, Any] = {"short_side_median": side, "device": values["device"]}
    rounded = max(32, round(side / 32) * 32)
    if values["weights"] is not None:
        value = LARGEST
        reason = f"The size used to train the pretrained weights; median short side {side:g}."
    elif side <= NATIVE_UP_TO:
        value, reason = round(side), f"The images' own size: median short side {side:g}."
        if architecture == "vit_b_16":
            value = max(32, round(side / 16) * 16)
            reason = f"Median short side {side:g}, rounded to whole patches of 16 pixels."
    elif str(values["device"]) == "cpu" and rounded > LARGEST_ON_CPU:
        value = LARGEST_ON_CPU
        reason = (
            f"Median short side {side:g}; from scratch on a CPU {LARGEST_ON_CPU} pixels suffice "
            f"and cost {(min(rounded, LARGEST) / LARGEST_ON_CPU) ** 2:.1f} times less than "
            f"{min(rounded, LARGEST)}."
        )
    else:
        value = min(LARGEST, rounded)
        reason = f"Median short side {side:g}, rounded to a multiple of 32, at most {LARGEST}."
    return Choice(
        "image_size",
        value,
        reason,
        evidence=evidence,
        alternatives=(value // 2, value * 2),
        confidence=0.8,
        override=f"ImageData.from_…(size={value * 2})",
    )


def _size_accepts(value: Any, facts: ImageFacts, values: Values) -> str | None:
    try:
        parse_size(value if not isinstance(value, str) else None)
    except InputError:
        return "a whole number of pixels, such as 224, or height and width: [224, 160]."
    if values["architecture"] == "vit_b_16" and not isinstance(parse_size(value), int):
        return "one number, because vit_b_16 takes square images."
    return None


def _cheaper_sizes(facts: ImageFacts, values: Values) -> Sequence[int]:
    """Return smaller sides, by descending cost; none for transformers with pretrained weights."""
    size, architecture = values["image_size"], values["architecture"]
    if values["weights"] is not None:
        least = size if architecture in _FIXED_SIZE else _SMALLEST_PRETRAINED
    elif architecture != "small_cnn":
        least = size / 2
    else:
        least = _SMALLEST_PHOTOGRAPH if size > NATIVE_UP_TO else min(_SMALLER)
    return [side for side in _SMALLER if least <= side < size]


GEOMETRY_RULES: tuple[Rule, ...] = (
    Rule(
        "image_size",
        ("device", "weights", "architecture"),
        _image_size,
        _size_accepts,
        determines="preprocessor",
        cheaper=_cheaper_sizes,
    ),
)
