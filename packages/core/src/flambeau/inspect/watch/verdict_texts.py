"""The sentences of verdicts on layers: what was found, with the figure, and how to fix it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import cast

from flambeau.inspect.watch.evidence import Evidence
from flambeau.wording import format_number, name_some

Text = tuple[str, str]
"""What was found, and how to fix it."""


def _dead(found: Evidence, value: float, step: int) -> Text:
    what = f"{value:.0%} of its {found.detail['units']} units never fire since step {step}"
    if step == next(iter(found.values)):
        return what, (
            "They were dead from the start: check the initial biases and the scale of the inputs, "
            "or use a leaky activation."
        )
    return what, "Lower lr or warm it up, or use a leaky activation."


def _not_finite(found: Evidence, value: float, step: int) -> Text:
    what = f"{value:.0%} of its outputs are NaN or infinite since step {step}"
    if found.layer.startswith("(input"):
        return what, "Look at the data: fill or drop missing values, and check the transforms."
    return what, "It is the first such layer. Lower lr, clip gradients, or check its divisions."


def _exploding(found: Evidence, value: float, step: int) -> Text:
    rms = cast("Mapping[int, float]", found.detail["rms"])[step]
    what = (
        f"its outputs are {format_number(value)} times as large as its inputs since step {step} "
        f"(root mean square {format_number(rms)})"
    )
    return what, (
        "Check its initial weights or its factor, normalise its outputs, and lower lr if they "
        "grew in training."
    )


def _growing(found: Evidence, value: float, step: int) -> Text:
    what = (
        f"activations grow from layer to layer: its outputs are {format_number(value)} times the "
        f"inputs of the model since step {step}"
    )
    return what, "Add normalisation layers (nn.LayerNorm, nn.BatchNorm2d) before it."


def _lost_signal(found: Evidence, value: float, step: int) -> Text:
    what = (
        f"its outputs for different samples differ by only {math.sqrt(value):.1g} of their size "
        f"since step {step}: the signal of the input is lost"
    )
    return what, (
        "Add normalisation layers (nn.LayerNorm, nn.BatchNorm2d) before it, use initial weights "
        "for its activation (nn.init.kaiming_normal_), and normalise the inputs."
    )


def _input_scale(found: Evidence, value: float, step: int) -> Text:
    what = (
        f"its values are not normalised: their root mean square is {format_number(value)}, and "
        "layers expect about 1"
    )
    return what, "Subtract the mean of the train set and divide by its standard deviation."


def _vanishing(found: Evidence, value: float, step: int) -> Text:
    what = (
        f"its gradient is {format_number(value)} times that of the layers after it since step "
        f"{step}, so it hardly trains"
    )
    where = found.detail.get("lost_in")
    what += f"; most of it is lost in {where}" if where else "; each layer after it loses a part"
    return what, (
        "Use ReLU or GELU in place of sigmoid or tanh, residual connections or normalisation "
        "layers, and check the initial weights."
    )


_NOT_TRAINED: Mapping[str, Text] = {
    "frozen": (
        "does not train: requires_grad is False, while most weights of the model train",
        "If that is a mistake, call requires_grad_(True) on it before the training.",
    ),
    "no gradient": (
        "does not train: no loss depends on it, so it gets no gradient",
        "Look for detach(), no_grad() or .data after it, or for a layer that forward does not use.",
    ),
    "no optimizer": (
        "does not train: no optimizer has it",
        "Give the optimizer all of model.parameters(), after the last layer was created.",
    ),
    "no update": (
        "does not train: it gets gradients, but its weights do not change",
        "Check the learning rate of its parameter group.",
    ),
    **{
        f"no update of {dtype}": (
            f"does not train: it gets gradients, but its {dtype} weights do not change, because "
            "smaller updates than their rounding are lost",
            "Keep the weights in float32 (model.float()), and set precision to bf16 or fp16 for "
            "the arithmetic.",
        )
        for dtype in ("bfloat16", "float16")
    },
}


def _frozen(found: Evidence, value: float, step: int) -> Text:
    what, fix = _NOT_TRAINED[str(found.detail["reason"])]
    names = cast("list[str]", found.detail["weights"])
    return f"{what} ({name_some(names, most=3)}; since step {step})", fix


def _saturated(found: Evidence, value: float, step: int) -> Text:
    what = (
        f"{value:.0%} of its units are at a bound of their range for almost all samples since step "
        f"{step}, where hardly any gradient passes"
    )
    return what, "Normalise its inputs, use smaller initial weights before it, or lower lr."


def _duplicated(found: Evidence, value: float, step: int) -> Text:
    pair = cast("list[float | None]", found.detail["pair"])
    first, second = (int(each or 0) for each in pair)
    word = "features" if found.layer.startswith("(input") else "units"
    what = f"{word} {first} and {second} are equal for all samples since step {step}"
    if value > 2:
        what += f", and {value - 2:.0f} more"
    if word == "features":
        return what, "Drop one of the two: it adds no information."
    return what, (
        "Give them different initial weights (a constant makes all units equal), and look for a "
        "part that is used twice."
    )


def _one_position(found: Evidence, value: float, step: int) -> Text:
    what = (
        f"attention collapsed onto one position: {value:.0%} of the weights of every head, "
        f"whatever the query, since step {step}"
    )
    return what, _ATTENTION_FIX


def _no_entropy(found: Evidence, value: float, step: int) -> Text:
    what = (
        f"attention collapsed: each query attends to one position only (entropy "
        f"{format_number(value)} of 1) since step {step}"
    )
    return what, _ATTENTION_FIX


_ATTENTION_FIX = (
    "Check the factor of the products (1 / sqrt(size of a head)) and the mask, normalise queries "
    "and keys, and lower lr if it happened in training."
)


def _unused_rows(found: Evidence, value: float, step: int) -> Text:
    rows = found.detail["rows"]
    what = f"{value:.0%} of its {rows:,} rows were never updated, up to the last watched step"
    return what, (
        "Build the vocabulary from the train set alone, or drop rare entries, so that all rows are "
        "trained."
    )


def _large_updates(found: Evidence, value: float, step: int) -> Text:
    others = int(cast("int", found.detail.get("others", 0)))
    more = f", as in {others} other layers" if others else ""
    what = (
        f"an update changes its weights by {value:.0%} of their initial size in step {step}{more}; "
        "0.1% to 1% is usual"
    )
    return what, f"Lower lr about {_factor(value)} times."


def _factor(value: float) -> str:
    # Healthy values are around 0.03 in the same unit.
    return format_number(float(f"{max(value / 0.03, 10.0):.1g}"))


TEXTS: Mapping[str, Callable[[Evidence, float, int], Text]] = {
    "not finite": _not_finite,
    "large updates": _large_updates,
    "input scale": _input_scale,
    "exploding": _exploding,
    "growing": _growing,
    "lost signal": _lost_signal,
    "dead": _dead,
    "saturated": _saturated,
    "vanishing": _vanishing,
    "frozen": _frozen,
    "duplicated": _duplicated,
    "one position": _one_position,
    "no entropy": _no_entropy,
    "unused rows": _unused_rows,
}
"""The text of each kind of fault, in the order in which verdicts are listed."""
