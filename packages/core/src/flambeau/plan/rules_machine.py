"""Core rules for the machine: device, data location, precision, threads, compile, memory format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from flambeau.data.facts import Facts
from flambeau.data.memory_loader import DEVICE_SHARE
from flambeau.device import best_device, free_memory_bytes, has_fast_bf16, usable_cores
from flambeau.phases.setting_names import COMPILE_MODES, MEMORY_FORMATS, PRECISIONS
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.value_types import DeviceType, one_of, whole


def _device(facts: Facts, values: Mapping[str, Any]) -> Choice:
    device = best_device()
    if device.type == "cuda":
        reason = f"PyTorch found a GPU: {torch.cuda.get_device_name(device)}."
    elif device.type == "mps":
        reason = "PyTorch found this machine's GPU (Metal)."
    else:
        reason = "PyTorch found no accelerator."
    on_cpu = device.type == "cpu"
    return Choice(
        "device",
        str(device),
        reason,
        evidence={"found": str(device)},
        alternatives=() if on_cpu else ("cpu",),
        override="This machine has no other device." if on_cpu else "",
    )


def data_device_choice(device: str, size: int | None, what: str) -> Choice:
    """Return the choice of where batches are gathered: on the accelerator if the data fit there.

    Args:
        device: The device of the model.
        size: Bytes of the data if they are in memory, else None.
        what: Subject of the reason ("The samples").
    """
    kind = torch.device(device).type
    evidence: dict[str, Any] = {"device": kind, "bytes": size}
    if kind == "cpu":
        value, reason = "cpu", "The model runs on the CPU, where the data are."
    elif size is None:
        value, reason = (
            "cpu",
            f"{what} are read during training, and each batch is copied to the device.",
        )
    else:
        free = free_memory_bytes(torch.device(device))
        evidence |= {"free_bytes": free, "share": DEVICE_SHARE}
        value = kind if size < DEVICE_SHARE * free else "cpu"
        copy = "They are copied once." if value == kind else "Each batch is copied to the device."
        reason = (
            f"{what} take {size / 1e6:,.1f} MB; at most {DEVICE_SHARE:.0%} of the "
            f"{free / 1e6:,.0f} MB free on {kind} may be used. {copy}"
        )
    others = tuple(other for other in ("cpu", kind) if other != value and size is not None)
    return Choice(
        "data_device",
        value,
        reason,
        evidence=evidence,
        alternatives=others,
        override="" if others else "There is no other location for these data.",
    )


def _data_device(facts: Facts, values: Mapping[str, Any]) -> Choice:
    size = facts.get("memory_bytes") if facts.get("in_memory", False) else None
    return data_device_choice(values["device"], size, "The samples")


def _data_device_accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
    return data_device_fault(value, values["device"], facts.get("in_memory", False))


def data_device_fault(value: Any, device: str, in_memory: bool) -> str | None:
    """Return a description of valid values of ``data_device`` if ``value`` is invalid, else None.

    Args:
        value: The value that the user set.
        device: The device of the model.
        in_memory: Whether the data are held in memory.
    """
    kind = torch.device(device).type
    if value == "cpu" or (value == kind and in_memory):
        return None
    known = f"'cpu' or {kind!r}" if in_memory and kind != "cpu" else "'cpu'"
    return f"{known}: the model runs on {kind}, and only data in memory can be kept there."


def _num_threads(facts: Facts, values: Mapping[str, Any]) -> Choice:
    count, cores = torch.get_num_threads(), usable_cores()
    return Choice(
        "num_threads",
        count,
        f"PyTorch's current number of threads; this process may use {cores} cores.",
        evidence={"torch": count, "cores": cores},
        alternatives=() if count == 1 else (1,),
        source="default",
    )


def precision_rule(gains: Mapping[str, str], given: str | None = None) -> Rule:
    """Return the rule for ``precision``: bf16 if the architecture is faster in bf16 on the device.

    Args:
        gains: Measured gain of bf16 by architecture, as text
            (``{"small_cnn": "1.9× on an AVX512-bf16 CPU, accuracy unchanged"}``). An architecture
            that is not listed trains in fp32.
        given: A sentence that says why a user-defined module trains in bf16; None trains it in
            fp32.
    """

    def decide(facts: Facts, values: Mapping[str, Any]) -> Choice:
        device, architecture = torch.device(values["device"]), values["architecture"]
        fast = has_fast_bf16(device)
        is_own = bool(facts.get("model_given"))
        gain = given if is_own else gains.get(architecture)
        dtype = facts.get("model_dtype", "float32")
        if dtype != "float32":
            value, reason = "fp32", f"The module's weights are {dtype}, so it computes in {dtype}."
        elif fast and gain is not None:
            gained = gain if is_own else f"Measured for {architecture}: {gain}."
            value, reason = "bf16", f"This {device.type} computes bf16 fast. {gained}"
        elif fast:
            value = "fp32"
            reason = (
                f"This {device.type} computes bf16 fast, but no gain was measured for "
                f"{architecture}."
            )
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

    return Rule(
        "precision", ("device", "architecture"), decide, type=one_of(PRECISIONS), changes="apply"
    )


def _compile(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "compile",
        "off",
        "Measured on CPU, a step with torch.compile is 0.97–1.02× as fast, and the first step "
        "takes 30 s. The first fit tries torch.compile if the run is long enough.",
        evidence={"cpu_speed_up": [0.97, 1.02], "first_step_s": 30},
        alternatives=("regions", "whole"),
        source="default",
    )


def _memory_format(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "memory_format",
        "contiguous_format",
        "PyTorch's default memory format.",
        alternatives=("channels_last",),
        source="default",
    )


TO_MEASURE = ("auto", "always")
"""Values of ``probe`` for which the first fit measures."""

PROBE = (*TO_MEASURE, "off", "measured", "cached", "skipped")
"""All values of ``probe``; the last three are results, and a replay does not measure again."""


def _probe(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "probe",
        "auto",
        "The first fit measures the memory of a step. If the run is long enough, it also times "
        "other precisions, memory formats and numbers of threads.",
        alternatives=("always", "off"),
        source="default",
    )


MACHINE_RULES = (
    Rule("device", (), _device, type=DeviceType(), of_machine=True),
    Rule("data_device", ("device",), _data_device, _data_device_accepts, of_machine=True),
    precision_rule({}),
    Rule(
        "memory_format",
        ("architecture",),
        _memory_format,
        type=one_of(MEMORY_FORMATS),
        changes="apply",
    ),
    Rule(
        "compile",
        ("device", "architecture"),
        _compile,
        type=one_of(COMPILE_MODES),
        changes="apply",
    ),
    Rule(
        "num_threads",
        ("device", "architecture"),
        _num_threads,
        type=whole(1, "threads"),
        changes="fit",
        of_machine=True,
    ),
    Rule(
        "probe",
        ("device", "architecture", "batch_size"),
        _probe,
        type=one_of(PROBE),
        changes="fit",
    ),
)
