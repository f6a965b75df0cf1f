"""The plan's rules for pictures: what core cannot know about sizes, colours and networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flambeau.device import available_memory_bytes, usable_cores
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Rule
from flambeau.plan.rules import CORE_RULES
from flambeau.plan.rules_machine import data_device_choice, precision_rule
from flambeau.plan.rules_model import head_rule
from flambeau.plan.rules_task import targets_accept
from flambeau.plan.rules_training import lr_rule
from flambeau_vision.cache import room_bytes
from flambeau_vision.recipes import (
    ACCELERATOR_FACTOR,
    BF16_GAIN_OF_OTHERS,
    FEWEST_EPOCHS,
    MOST_EPOCHS,
    RECIPES,
    UNKNOWN,
)
from flambeau_vision.rules_augmentation import AUGMENTATION_RULES, NATIVE_UP_TO

Values = Mapping[str, Any]

LARGEST, LARGEST_ON_CPU = 224, 128
MEMORY_SHARE = 0.25
# Fewer photographs than this, and a larger network learns them by heart.
_ENOUGH_FOR_RESNET = 2_000
_FEW, _MANY = 1_000, 10_000

_CORE = {rule.key: rule for rule in CORE_RULES}
_SCRATCH_LR = lr_rule({name: recipe.lr for name, recipe in RECIPES.items()})
_PRETRAINED_LR = lr_rule({name: recipe.lr_pretrained for name, recipe in RECIPES.items()})


def _task(facts: Values, values: Values) -> Choice:
    kind, n = facts["label_kind"], facts["n_train"]
    names = facts.get("class_names", [])
    if kind == "classification":
        reason = f"One label a picture, {len(names):,} classes in {n:,} train rows."
    elif kind == "multi_label":
        reason = f"Lists of labels, {len(names):,} different ones in {n:,} train rows."
    else:
        low, high = facts["target_min"], facts["target_max"]
        reason = f"The labels are numbers from {low:g} to {high:g} in {n:,} train rows."
    return Choice(
        "task",
        kind,
        reason,
        evidence={"n_train": n, "classes": len(names), "target_dtype": facts["target_dtype"]},
        override='ImageOptions(task="regression") where the data are built',
    )


def _weights(facts: Values, values: Values) -> Choice:
    return Choice(
        "weights",
        None,
        "From scratch: published weights are downloaded only when they are asked for.",
        alternatives=("DEFAULT",),
        override='Learner(data, "resnet18", choices={"weights": "DEFAULT"}), or a file\'s path',
        source="default",
    )


def _channels(facts: Values, values: Values) -> Choice:
    own, n = facts.get("own_channels"), facts["n_train"]
    modes = ", ".join(f"{mode} {count:,}" for mode, count in facts["modes"].items())
    if own is not None:
        value, reason = own, f"The arrays have {own} channels."
    elif facts["grey"]:
        value, reason = 1, f"All {n:,} train pictures are grey ({modes})."
    else:
        value, reason = 3, f"There are coloured train pictures ({modes})."
    return Choice(
        "channels",
        value,
        reason,
        evidence={"modes": facts["modes"]},
        alternatives=() if own is not None else (4 - value,),
        override=f'Learner(data, choices={{"channels": {4 - value if own is None else own}}})',
    )


def _architecture(facts: Values, values: Values) -> Choice:
    device, n, side = values["device"], facts["n_train"], facts["short_side_median"]
    evidence = {"device": device, "n_train": n, "short_side_median": side}
    if values["weights"] is not None:
        value, reason = "resnet18", "The smallest network with published weights that is quick."
    elif str(device) == "cpu":
        value, reason = "small_cnn", "On a CPU a small network learns most in a given time."
    elif side <= NATIVE_UP_TO:
        value, reason = "small_cnn", f"The pictures are small (median short side {side:g} pixels)."
    elif n < _ENOUGH_FOR_RESNET:
        value = "small_cnn"
        reason = f"{n:,} pictures are few for a larger network from scratch."
    else:
        value = "resnet18"
        reason = f"{n:,} photographs (median short side {side:g}) and an accelerator."
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


def _image_size(facts: Values, values: Values) -> Choice:
    side, architecture = facts["short_side_median"], values["architecture"]
    evidence: dict[str, Any] = {"short_side_median": side, "device": values["device"]}
    rounded = max(32, round(side / 32) * 32)
    if values["weights"] is not None:
        value = LARGEST
        reason = f"The size that published weights were trained with; median short side {side:g}."
    elif side <= NATIVE_UP_TO:
        value, reason = round(side), f"The pictures' own size: median short side {side:g}."
        if architecture == "vit_b_16":
            value = max(32, round(side / 16) * 16)
            reason = f"Median short side {side:g}, to whole patches of 16."
    elif str(values["device"]) == "cpu" and rounded > LARGEST_ON_CPU:
        value = LARGEST_ON_CPU
        reason = (
            f"Median short side {side:g}; from scratch on a CPU {LARGEST_ON_CPU} is enough and "
            f"costs {(min(rounded, LARGEST) / LARGEST_ON_CPU) ** 2:.1f} times less than "
            f"{min(rounded, LARGEST)}."
        )
    else:
        value = min(LARGEST, rounded)
        reason = f"Median short side {side:g}, to a multiple of 32 and at most {LARGEST}."
    return Choice(
        "image_size",
        value,
        reason,
        evidence=evidence,
        alternatives=(value // 2, value * 2),
        confidence=0.8,
        override=f"ImageData.from_…(size={value * 2})",
    )


def _cache(facts: Values, values: Values) -> Choice:
    override = 'Learner(data, choices={"cache": "files"})'
    if facts["in_memory"]:
        size = facts["memory_bytes"]
        return Choice(
            "cache",
            "memory",
            f"The pictures came as arrays ({_megabytes(size)}).",
            evidence={"bytes": size},
            override="Give files instead of arrays.",
        )
    side, presize, n_train = values["image_size"], values["presize"], facts["n_train"]
    larger = n_train * ((presize or side) ** 2 - side**2)  # train pictures that are presized
    size = values["channels"] * (facts["n_pictures"] * side**2 + larger)
    free = available_memory_bytes()
    fits = size < MEMORY_SHARE * free
    what = (
        f"{facts['n_pictures']:,} pictures of {values['channels']}×{side}×{side} bytes"
        f"{f' ({n_train:,} of them {presize}×{presize})' if presize else ''} are "
        f"{_megabytes(size)}, of {_megabytes(free)} free memory up to {MEMORY_SHARE:.0%} may be "
        "used"
    )
    evidence = {"bytes": size, "available_bytes": free, "share": MEMORY_SHARE}
    if fits:
        value, reason = "memory", f"{what}: decoded once and kept."
    else:
        room = room_bytes(facts.get("cache_folder"))
        evidence["disk_bytes"] = room
        value = "disk" if size < room else "files"
        fate = "decoded once to a file" if size < room else "read by workers every epoch"
        reason = f"{what}, and {_megabytes(room)} on disk: {fate}."
    return Choice(
        "cache",
        value,
        reason,
        evidence=evidence,
        alternatives=tuple(other for other in ("memory", "disk", "files") if other != value),
        override=override if value != "files" else override.replace("files", "memory"),
    )


def _num_workers(facts: Values, values: Values) -> Choice:
    if values["cache"] != "files":
        where = "in memory" if values["cache"] == "memory" else "decoded in a mapped file"
        return Choice(
            "num_workers",
            0,
            f"The pictures are {where}: one gather a batch, which workers would only slow down.",
            evidence={"cache": values["cache"]},
            override='Learner(data, choices={"cache": "files"})',
        )
    cores = usable_cores()
    return Choice(
        "num_workers",
        cores,
        f"Pictures are decoded every epoch, and this process may use {cores} cores.",
        evidence={"cache": "files", "cores": cores},
        alternatives=(0, 2 * cores),
    )


def _normalisation(facts: Values, values: Values) -> Choice:
    if values["weights"] is not None and _has_record(values):
        return Choice(
            "normalisation",
            "weights",
            "Mean and std that the weights were trained with.",
            evidence={"weights": values["weights"]},
            alternatives=("train",),
        )
    return Choice(
        "normalisation",
        "train",
        f"Mean and std a channel of the {facts['n_train']:,} train pictures.",
        evidence={"n_train": facts["n_train"]},
        alternatives=("none",),
    )


def _has_record(values: Values) -> bool:
    from flambeau_vision.fitting import record_of

    return record_of(values) is not None


def _lr(facts: Values, values: Values) -> Choice:
    rule = _SCRATCH_LR if values["weights"] is None else _PRETRAINED_LR
    return rule.decide(facts, values)


def _targets(facts: Values, values: Values) -> Choice:
    if values["task"] != "regression":
        return _CORE["targets"].decide(facts, values)
    return Choice(
        "targets",
        "standard",
        f"Mean 0 and standard deviation 1 of {facts['n_train']:,} train rows; answers and metrics "
        "are in the targets' own units.",
        evidence={"n_train": facts["n_train"]},
        alternatives=("as_is",),
    )


def _data_device(facts: Values, values: Values) -> Choice:
    size = None
    if values["cache"] != "files":
        size = values["channels"] * facts["n_pictures"] * values["image_size"] ** 2
    return data_device_choice(values["device"], size, "The pictures")


def _data_device_accepts(value: Any, facts: Values, values: Values) -> str | None:
    own = {**facts, "in_memory": values["cache"] != "files"}
    accepts = _CORE["data_device"].accepts
    return None if accepts is None else accepts(value, own, values)


def _weights_accept(value: Any, facts: Values, values: Values) -> str | None:
    if facts.get("model_given") and value is not None:
        return "None: your module comes with its weights. Load others into it before."
    return None


def _workers_accept(value: Any, facts: Values, values: Values) -> str | None:
    if value == 0 or values["cache"] == "files":
        return None
    return f"0: with cache={values['cache']!r} no file is read while training."


def _weight_decay(facts: Values, values: Values) -> Choice:
    architecture = values["architecture"]
    recipe = RECIPES.get(architecture, UNKNOWN)
    value = recipe.weight_decay if values["optimizer"] == "adamw" else 5e-4
    return Choice(
        "weight_decay",
        value,
        f"For {architecture} under {values['optimizer']} ({recipe.measured}); norms and biases "
        "are left out of it.",
        evidence={"architecture": architecture, "optimizer": values["optimizer"]},
        alternatives=(round(value * 3, 6), round(value / 3, 6)),
        confidence=0.7,
    )


def _epochs(facts: Values, values: Values) -> Choice:
    n, architecture = facts["n_train"], values["architecture"]
    wanted = RECIPES.get(architecture, UNKNOWN).images_seen
    if str(values["device"]) != "cpu":
        wanted *= ACCELERATOR_FACTOR
    value = min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(wanted / n)))
    return Choice(
        "epochs",
        value,
        f"{architecture} wants to see about {wanted:,} pictures; {value} times {n:,} train rows "
        f"are {value * n:,} (between {FEWEST_EPOCHS} and {MOST_EPOCHS} epochs).",
        evidence={"n_train": n, "images_seen": value * n, "wanted": wanted},
        alternatives=(max(1, value // 2), value * 2),
        confidence=0.7,
        override=f"learner.fit({value * 2})",
    )


def _batch_size(facts: Values, values: Values) -> Choice:
    n = facts["n_train"]
    value = 32 if n < _FEW else 64 if n < _MANY else 128
    return Choice(
        "batch_size",
        value,
        f"{n:,} train pictures make {-(-n // value):,} steps an epoch (32 below {_FEW:,} pictures, "
        f"128 from {_MANY:,}).",
        evidence={"n_train": n},
        alternatives=(value * 2, value // 2),
        confidence=0.8,
    )


def _memory_format(facts: Values, values: Values) -> Choice:
    architecture = values["architecture"]
    if architecture in ("vit_b_16", "swin_t"):
        return Choice(
            "memory_format",
            "contiguous_format",
            f"{architecture} is made of matrix products, which gain nothing from channels_last.",
            alternatives=("channels_last",),
        )
    return Choice(
        "memory_format",
        "channels_last",
        "Convolutions: a step of small_cnn took 1.2 to 1.9 times less on a CPU, one of resnet18 "
        "1.07 times; 1.26 is published for resnet18 on a GPU.",
        evidence={"cpu_speed_up": {"small_cnn": [1.2, 1.9], "resnet18": 1.07}},
        alternatives=("contiguous_format",),
        confidence=0.7,
    )


def _megabytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"


RULES: tuple[Rule, ...] = (
    Rule("task", (), _task),
    Rule("targets", ("task",), _targets, targets_accept("standard", "as_is")),
    Rule("weights", (), _weights, _weights_accept),
    head_rule("it"),
    Rule("channels", (), _channels),
    Rule("architecture", ("device", "weights"), _architecture),
    Rule("image_size", ("device", "weights", "architecture"), _image_size),
    Rule("cache", ("image_size", "channels", "presize"), _cache),
    Rule(
        "data_device",
        ("device", "cache", "image_size", "channels"),
        _data_device,
        _data_device_accepts,
    ),
    Rule("num_workers", ("cache",), _num_workers, _workers_accept),
    Rule("normalisation", ("weights", "architecture"), _normalisation),
    *AUGMENTATION_RULES,
    Rule("lr", ("architecture", "optimizer", "weights"), _lr),
    Rule("weight_decay", ("architecture", "optimizer"), _weight_decay),
    Rule("batch_size", ("architecture",), _batch_size),
    Rule("epochs", ("architecture", "device"), _epochs),
    Rule("memory_format", ("architecture",), _memory_format),
    precision_rule(
        {name: recipe.bf16_gain for name, recipe in RECIPES.items() if recipe.bf16_gain},
        given=BF16_GAIN_OF_OTHERS,
    ),
)
