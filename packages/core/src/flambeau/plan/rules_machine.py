"""Core rules on the machine: device, precision, compilation, memory format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from flambeau.device import best_device, has_fast_bf16
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule


def _device(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    device = best_device()
    if device.type == "cuda":
        reason = f"torch sees {torch.cuda.get_device_name(device)}."
    elif device.type == "mps":
        reason = "torch sees this machine's GPU (Metal)."
    else:
        reason = "torch sees no accelerator here."
    on_cpu = device.type == "cpu"
    return Choice(
        "device",
        str(device),
        reason,
        evidence={"found": str(device)},
        alternatives=() if on_cpu else ("cpu",),
        override="Nothing else to choose on this machine." if on_cpu else "",
    )


def precision_rule(gains: Mapping[str, str], given: str | None = None) -> Rule:
    """The rule for ``precision``: bf16 where the device is fast at it and the architecture gains.

    Args:
        gains: What bf16 gained where it was measured, in words, by architecture
            (``{"small_cnn": "1.9× on an AVX512-bf16 CPU, accuracy unchanged"}``). An architecture
            that is not listed trains in fp32.
        given: Why a module of the user's own trains in bf16, a sentence; None trains it in fp32.
    """

    def decide(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
        device, architecture = torch.device(values["device"]), values["architecture"]
        fast = has_fast_bf16(device)
        is_own = bool(facts.get("model_given"))
        gain = given if is_own else gains.get(architecture)
        dtype = facts.get("model_dtype", "float32")
        if dtype != "float32":
            value, reason = "fp32", f"The module is {dtype}: it computes in what its weights have."
        elif fast and gain is not None:
            gained = gain if is_own else f"{architecture} gained {gain}."
            value, reason = "bf16", f"{device.type} has fast bf16. {gained}"
        elif fast:
            value = "fp32"
            reason = f"{device.type} has fast bf16, but no gain was measured for {architecture}."
        else:
            value, reason = "fp32", f"bf16 is not faster than fp32 on this {device.type}."
        return Choice(
            "precision",
            value,
            reason,
            evidence={"device": str(device), "fast_bf16": fast, "gain": gain},
            alternatives=("fp32",) if value == "bf16" else ("bf16",),
            confidence=0.7 if is_own else 1.0,
        )

    return Rule("precision", ("device", "architecture"), decide)


def _compile(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    return Choice(
        "compile",
        "off",
        "torch.compile gave 0.97–1.02× on CPU and took 30 s for the first step; this release does "
        "not probe it.",
        evidence={"cpu_speed_up": [0.97, 1.02], "first_step_s": 30},
        override="Compile the module yourself: Learner(data, torch.compile(model)).",
        source="default",
    )


def _memory_format(facts: Mapping[str, Any], values: Mapping[str, Any]) -> Choice:
    return Choice(
        "memory_format",
        "contiguous_format",
        "torch's own order of axes; nothing speaks for another one.",
        alternatives=("channels_last",),
        source="default",
    )


MACHINE_RULES = (
    Rule("device", (), _device),
    precision_rule({}),
    Rule("memory_format", (), _memory_format),
    Rule("compile", (), _compile),
)
