"""The plan's rules for images: channels, architecture, cache and hyperparameters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from flambeau.device import available_memory_bytes, usable_cores
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules_machine import data_device_choice, data_device_fault, precision_rule
from flambeau.plan.rules_model import head_rule
from flambeau.plan.rules_task import targets_accept, with_readings
from flambeau.plan.rules_training import lr_rule, unless_steps
from flambeau.tuning.budget import LONGEST
from flambeau.wording import format_bytes
from flambeau_vision.disk_cache import available_cache_bytes
from flambeau_vision.facts import ImageFacts
from flambeau_vision.recipes import (
    ACCELERATOR_FACTOR,
    BF16_GAIN_OF_CUSTOM_MODULES,
    MAX_EPOCHS,
    MAX_EPOCHS_IN_BUDGET,
    MIN_EPOCHS,
    RECIPES,
    UNKNOWN,
)
from flambeau_vision.resize import height_and_width
from flambeau_vision.rules_augmentation import AUGMENTATION_RULES
from flambeau_vision.rules_geometry import GEOMETRY_RULES, NATIVE_UP_TO
from flambeau_vision.rules_pixels import PIXEL_RULES

Values = Mapping[str, Any]

MEMORY_SHARE = 0.25
# With fewer photographs than this, a larger network overfits.
_ENOUGH_FOR_RESNET = 2_000
_FEW, _MANY = 1_000, 10_000

_SCRATCH_LR = lr_rule({name: recipe.lr for name, recipe in RECIPES.items()})
_PRETRAINED_LR = lr_rule({name: recipe.lr_pretrained for name, recipe in RECIPES.items()})


def _task(facts: ImageFacts, values: Values) -> Choice:
    kind, n = facts["label_kind"], facts["n_train"]
    names = facts.get("class_names", [])
    if kind == "classification":
        reason = f"One label per image, {len(names):,} classes in {n:,} train rows."
    elif kind == "multi_label":
        reason = f"Several labels per image, {len(names):,} distinct labels in {n:,} train rows."
    else:
        low, high = facts["target_min"], facts["target_max"]
        reason = f"The labels are numbers from {low:g} to {high:g} in {n:,} train rows."
    other = "classification" if kind == "regression" else "regression"
    choice = Choice(
        "task",
        kind,
        reason,
        evidence={"n_train": n, "classes": len(names), "target_dtype": facts["target_dtype"]},
        override=f'ImageOptions(task="{other}"), on the command line --task {other}',
    )
    return with_readings(choice, facts)


def _weights(facts: ImageFacts, values: Values) -> Choice:
    return Choice(
        "weights",
        None,
        "From scratch: pretrained weights are downloaded only on request.",
        alternatives=("DEFAULT",),
        override=(
            'Learner(data, "resnet18", choices={"weights": "DEFAULT"}), or the path of a file '
            'instead of "DEFAULT"'
        ),
        source="default",
    )


def _channels(facts: ImageFacts, values: Values) -> Choice:
    given, n = facts.get("array_channels"), facts["n_train"]
    modes = ", ".join(f"{mode} {count:,}" for mode, count in facts["modes"].items())
    if given is not None:
        value, reason = given, f"The arrays have {given} channels."
    elif facts["grey"]:
        value, reason = 1, f"All {n:,} train images are grey ({modes})."
    else:
        value, reason = 3, f"Some train images have colours ({modes})."
    return Choice(
        "channels",
        value,
        reason,
        evidence={"modes": facts["modes"]},
        alternatives=() if given is not None else (4 - value,),
        override=f'Learner(data, choices={{"channels": {4 - value if given is None else given}}})',
    )


def _architecture(facts: ImageFacts, values: Values) -> Choice:
    device, n, side = values["device"], facts["n_train"], facts["short_side_median"]
    evidence = {"device": device, "n_train": n, "short_side_median": side}
    if values["weights"] is not None:
        value, reason = "resnet18", "A small and fast network with pretrained weights."
    elif str(device) == "cpu":
        value, reason = (
            "small_cnn",
            "On a CPU a small network reaches the best accuracy in a given time.",
        )
    elif side <= NATIVE_UP_TO:
        value, reason = "small_cnn", f"The images are small (median short side {side:g} pixels)."
    elif n < _ENOUGH_FOR_RESNET:
        value = "small_cnn"
        reason = f"{n:,} images are too few to train a larger network from scratch."
    else:
        value = "resnet18"
        reason = (
            f"{n:,} images (median short side {side:g} pixels) are enough for this network on an "
            "accelerator."
        )
    other = "resnet18" if value == "small_cnn" else "small_cnn"
    return Choice(
        "architecture",
        value,
        reason,
        evidence=evidence,
        alternatives=(other,),
        confidence=0.8,
        override=f'Learner(data, "{other}")',
    )


def _cheaper_networks(facts: ImageFacts, values: Values) -> Sequence[str]:
    """Return the network that trains in less time; nothing if the weights are pretrained."""
    is_larger = values["architecture"] != "small_cnn" and values["weights"] is None
    return ("small_cnn",) if is_larger else ()


def _cache(facts: ImageFacts, values: Values) -> Choice:
    override = 'Learner(data, choices={"cache": "files"})'
    if facts["in_memory"]:
        size = facts.get("memory_bytes", 0)
        return Choice(
            "cache",
            "memory",
            f"The images were given as arrays ({format_bytes(size)}).",
            evidence={"bytes": size},
            override="Pass files instead of arrays.",
        )
    height, width = height_and_width(values["image_size"])
    presize, n_train = values["presize"], facts["n_train"]
    larger = n_train * (presize**2 - height * width) if presize else 0  # presized train images
    size = values["channels"] * (facts["n_images"] * height * width + larger)
    free = available_memory_bytes()
    fits = size < MEMORY_SHARE * free
    need = (
        f"{facts['n_images']:,} images of {values['channels']}×{height}×{width} bytes"
        f"{f' ({n_train:,} of them {presize}×{presize})' if presize else ''} need "
        f"{format_bytes(size)}"
    )
    limit = f"the limit of {MEMORY_SHARE:.0%} of {format_bytes(free)} free memory"
    evidence = {"bytes": size, "available_bytes": free, "share": MEMORY_SHARE}
    if fits:
        value, reason = "memory", f"{need}, within {limit}: decoded once and kept in memory."
    else:
        disk = available_cache_bytes(facts.get("cache_folder"))
        evidence["disk_bytes"] = disk
        value = "disk" if size < disk else "files"
        how = "decoded once to a file" if size < disk else "decoded by workers every epoch"
        reason = f"{need}, above {limit}; {format_bytes(disk)} of disk space are available: {how}."
    return Choice(
        "cache",
        value,
        reason,
        evidence=evidence,
        alternatives=tuple(other for other in ("memory", "disk", "files") if other != value),
        override=override if value != "files" else override.replace("files", "memory"),
    )


def _num_workers(facts: ImageFacts, values: Values) -> Choice:
    if values["cache"] != "files":
        where = "in memory" if values["cache"] == "memory" else "in a memory-mapped file"
        return Choice(
            "num_workers",
            0,
            f"The decoded images are {where}: a batch is one gather operation, which workers would "
            "slow down.",
            evidence={"cache": values["cache"]},
            override='Learner(data, choices={"cache": "files"})',
        )
    cores = usable_cores()
    return Choice(
        "num_workers",
        cores,
        f"Images are decoded every epoch, and this process may use {cores} cores.",
        evidence={"cache": "files", "cores": cores},
        alternatives=(0, 2 * cores),
    )


def _normalisation(facts: ImageFacts, values: Values) -> Choice:
    if values["weights"] is not None and _has_weights_record(values):
        return Choice(
            "normalisation",
            "weights",
            "Mean and std with which the pretrained weights were trained.",
            evidence={"weights": values["weights"]},
            alternatives=("train",),
        )
    return Choice(
        "normalisation",
        "train",
        f"Mean and std of each channel over the {facts['n_train']:,} train images.",
        evidence={"n_train": facts["n_train"]},
        alternatives=("none",),
    )


def _has_weights_record(values: Values) -> bool:
    from flambeau_vision.from_plan import planned_weights_record

    return planned_weights_record(values) is not None


def _lr(facts: ImageFacts, values: Values) -> Choice:
    rule = _SCRATCH_LR if values["weights"] is None else _PRETRAINED_LR
    return rule.decide(facts, values)


def _targets(base: Choice, facts: ImageFacts, values: Values) -> Choice:
    if values["task"] != "regression":
        return base
    choice = Choice(
        "targets",
        "standard",
        f"Standardised to mean 0 and standard deviation 1 over {facts['n_train']:,} train rows; "
        "predictions and metrics are in the targets' units.",
        evidence={"n_train": facts["n_train"]},
        alternatives=("as_is",),
    )
    return with_readings(choice, facts)


def _data_device(facts: ImageFacts, values: Values) -> Choice:
    size = None
    if values["cache"] != "files":
        size = (
            values["channels"]
            * facts["n_images"]
            * math.prod(height_and_width(values["image_size"]))
        )
    return data_device_choice(values["device"], size, "The images")


def _data_device_accepts(value: Any, facts: ImageFacts, values: Values) -> str | None:
    return data_device_fault(value, values["device"], values["cache"] != "files")


def _weights_accept(value: Any, facts: ImageFacts, values: Values) -> str | None:
    if value is not None and (not isinstance(value, str) or not value):
        return '"DEFAULT", another name of published weights, the path of a file, or None.'
    if facts.get("model_given") and value is not None:
        return (
            "None, because your module already has weights. To use other weights, load them into "
            "the module before you pass it."
        )
    return None


def _workers_accept(value: Any, facts: ImageFacts, values: Values) -> str | None:
    if value == 0 or values["cache"] == "files":
        return None
    return f"0, because with cache={values['cache']!r} no file is read during training."


def _weight_decay(facts: ImageFacts, values: Values) -> Choice:
    architecture = values["architecture"]
    recipe = RECIPES.get(architecture, UNKNOWN)
    value = recipe.weight_decay if values["optimizer"] == "adamw" else 5e-4
    return Choice(
        "weight_decay",
        value,
        f"From the recipe of {architecture} for {values['optimizer']} ({recipe.measured}); not "
        "applied to norm layers and biases.",
        evidence={"architecture": architecture, "optimizer": values["optimizer"]},
        alternatives=(round(value * 3, 6), round(value / 3, 6)),
        confidence=0.7,
    )


def _epochs(facts: ImageFacts, values: Values) -> Choice:
    n, architecture = facts["n_train"], values["architecture"]
    wanted = RECIPES.get(architecture, UNKNOWN).n_samples
    if str(values["device"]) != "cpu":
        wanted *= ACCELERATOR_FACTOR
    value = min(MAX_EPOCHS, max(MIN_EPOCHS, round(wanted / n)))
    start = " without the weights of an export" if facts.get("started") else ""
    return Choice(
        "epochs",
        value,
        f"{architecture} needs about {wanted:,} training samples{start}; {value} epochs of {n:,} "
        f"train rows are {value * n:,} (limited to {MIN_EPOCHS} to {MAX_EPOCHS} epochs). In a time "
        f"budget fit_auto trains up to {MAX_EPOCHS_IN_BUDGET}.",
        evidence={
            "steps_per_epoch": -(-n // (values["batch_size"] * values["accumulate"])),
            "n_train": n,
            "samples": value * n,
            "samples_needed": wanted,
            LONGEST: max(value, MAX_EPOCHS_IN_BUDGET),
        },
        alternatives=(max(1, value // 2), value * 2),
        confidence=0.7,
        override=f"learner.fit({value * 2})",
    )


def _batch_size(facts: ImageFacts, values: Values) -> Choice:
    n = facts["n_train"]
    value = 32 if n < _FEW else 64 if n < _MANY else 128
    return Choice(
        "batch_size",
        value,
        f"{n:,} train images give {-(-n // value):,} steps per epoch (the batch size is 32 below "
        f"{_FEW:,} images, 128 from {_MANY:,} images, else 64).",
        evidence={"n_train": n},
        alternatives=(value * 2, value // 2),
        confidence=0.8,
    )


def _memory_format(facts: ImageFacts, values: Values) -> Choice:
    architecture = values["architecture"]
    if architecture in ("vit_b_16", "swin_t"):
        return Choice(
            "memory_format",
            "contiguous_format",
            f"{architecture} consists of matrix products, which do not gain from channels_last.",
            alternatives=("channels_last",),
        )
    return Choice(
        "memory_format",
        "channels_last",
        "Speeds up convolutions: a training step on a CPU is 1.2× to 1.9× faster for small_cnn and "
        "1.07× for resnet18; 1.26× is published for resnet18 on a GPU.",
        evidence={"cpu_speed_up": {"small_cnn": [1.2, 1.9], "resnet18": 1.07}},
        alternatives=("contiguous_format",),
        confidence=0.7,
    )


RULES: tuple[Rule, ...] = (
    Rule("task", (), _task),
    Rule.extending("targets", _targets, accepts=targets_accept("standard", "as_is")),
    Rule("weights", (), _weights, _weights_accept),
    head_rule("it"),
    Rule("channels", (), _channels, determines="preprocessor"),
    *PIXEL_RULES,
    Rule("architecture", ("device", "weights"), _architecture, cheaper=_cheaper_networks),
    *GEOMETRY_RULES,
    Rule("cache", ("image_size", "channels", "presize"), _cache),
    Rule(
        "data_device",
        ("device", "cache", "image_size", "channels"),
        _data_device,
        _data_device_accepts,
    ),
    Rule("num_workers", ("cache",), _num_workers, _workers_accept),
    Rule("normalisation", ("weights", "architecture"), _normalisation, determines="preprocessor"),
    *AUGMENTATION_RULES,
    Rule("lr", ("architecture", "optimizer", "weights"), _lr),
    Rule("weight_decay", ("architecture", "optimizer"), _weight_decay),
    Rule("batch_size", ("architecture",), _batch_size),
    Rule(
        "epochs",
        ("architecture", "device", "steps", "batch_size", "accumulate"),
        unless_steps(_epochs),
    ),
    Rule("memory_format", ("architecture",), _memory_format),
    precision_rule(
        {name: recipe.bf16_gain for name, recipe in RECIPES.items() if recipe.bf16_gain},
        given=BF16_GAIN_OF_CUSTOM_MODULES,
    ),
)
