"""The plan's rules for the size of the model's input, and how images get it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from flambeau.errors import InputError
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau_vision.facts import ImageFacts
from flambeau_vision.resize import Resize, Size, height_and_width, parse_size

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
# Share of an image's length. Photographs of 3:2 lose 0.33 in a square, of 16:9 0.44.
MOST_LOST, _HARDLY_ANY = 0.4, 0.02
_SIMILAR = 1.25  # ratio of the ninth to the first decile of width/height
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


def lost_shares(facts: ImageFacts, size: Size) -> list[float]:
    """Return, for each decile of the train images, the share of its length that "crop" cuts off.

    Args:
        facts: The facts of the data.
        size: Size of the model's input.
    """
    height, width = height_and_width(size)
    deciles = facts.get("aspect_deciles", [1.0])
    # Without the smallest and the largest, which may be single images.
    relative = [ratio * height / width for ratio in (deciles[1:-1] or deciles)]
    return [1 - min(ratio, 1 / ratio) for ratio in relative]


def _resize(facts: ImageFacts, values: Values) -> Choice:
    deciles = facts.get("aspect_deciles", [1.0])
    lost = lost_shares(facts, values["image_size"])
    median = statistics.median(lost)
    shape = f"Median width/height {statistics.median(deciles):.2g} in {facts['n_train']:,} images"
    evidence = {"aspect_deciles": list(deciles), "median_lost": round(median, 3)}
    value, confidence = "crop", 0.8
    if max(lost) < _HARDLY_ANY:
        reason = f"{shape}: the images have the model's proportions, so hardly anything is cut off."
        confidence = 1.0
    elif median <= MOST_LOST:
        reason = (
            f"{shape}: the centre is kept, as is usual for photographs; half of the images lose "
            f"more than {median:.0%} of their length."
        )
    elif deciles[-2] <= _SIMILAR * deciles[1]:
        value = "squash"
        reason = (
            f"{shape}, similar in all: the centre would lack more than {median:.0%} of the length "
            "in half of the images, and with it what stands at the side. The whole image is "
            "compressed, equally in all."
        )
    else:
        value = "pad"
        reason = (
            f"{shape}, from {deciles[1]:.2g} to {deciles[-2]:.2g}: the centre would lack more than "
            f"{median:.0%} of the length in half of the images, and with it what stands at the "
            "side. The whole image is fitted in, with its proportions."
        )
    others = tuple(other for other in get_args(Resize) if other != value)
    return Choice(
        "resize",
        value,
        reason,
        evidence=evidence,
        alternatives=others,
        confidence=confidence,
        override=f'ImageOptions(resize="{others[-1]}"), on the command line --resize {others[-1]}',
    )


def _resize_accepts(value: Any, facts: ImageFacts, values: Values) -> str | None:
    return None if value in get_args(Resize) else "'crop', 'squash' or 'pad'."


GEOMETRY_RULES: tuple[Rule, ...] = (
    Rule(
        "image_size",
        ("device", "weights", "architecture"),
        _image_size,
        _size_accepts,
        determines="preprocessor",
        cheaper=_cheaper_sizes,
    ),
    Rule("resize", ("image_size",), _resize, _resize_accepts, determines="preprocessor"),
)
