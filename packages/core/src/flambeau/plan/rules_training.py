"""Core rules for training: batch size, optimizer, learning rate, schedule, epochs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from typing import Any, cast

from flambeau.data.facts import Facts
from flambeau.device import usable_cores
from flambeau.phases.bn_policy import BATCH_NORM_POLICIES, BN_STATISTICS
from flambeau.phases.setting_names import OPTIMIZER_NAMES, OPTIMIZER_SETTINGS
from flambeau.plan.choice import Choice
from flambeau.plan.rule import Accepts, Decide, Rule
from flambeau.plan.value_types import (
    AUTO_OUTCOME,
    ScheduleName,
    SchedulesType,
    ValueType,
    is_number,
    not_negative,
    one_of,
    positive,
    whole,
)

LR = positive("a finite number above 0 (the peak learning rate).")
"""Type of the learning rate."""

# Shorter epochs have too few steps for the schedule.
_MIN_STEPS = 20
_SMALLEST_BATCH, _LARGEST_BATCH = 4, 64
# (rows in memory, batch size): with so many rows an epoch still has 100 to 400 steps.
_LARGE_BATCHES = ((409_600, 1024), (102_400, 512), (25_600, 256))

_TARGET_STEPS = 2_000
# A longer epoch is divided, so that a run is evaluated more than once in hours.
_LONG_EPOCH_STEPS, _EVALUATE_EVERY = 20_000, 10_000
_MIN_EPOCHS, _MAX_EPOCHS = 3, 50

# Peak learning rate relative to AdamW's, from the usual recipes of each optimizer.
_RELATIVE_TO_ADAMW = {"adamw": 1, "adam": 1, "muon": 1, "rmsprop": 1, "adagrad": 10, "sgd": 50}
_WEIGHT_DECAY = {"adamw": 1e-2, "muon": 1e-2, "sgd": 5e-4}
_USUAL_LR = 1e-3


def _batch_size(facts: Facts, values: Mapping[str, Any]) -> Choice:
    given = facts.get("loader_batch_size")
    if given is not None:
        return Choice(
            "batch_size",
            given,
            f"The first batch of your loader has {given:,} samples.",
            override="Change it in your loader.",
            source="default",
        )
    n = facts["n_train"]
    value = 2 ** math.floor(math.log2(max(1, n // _MIN_STEPS)))
    value = min(_LARGEST_BATCH, max(_SMALLEST_BATCH, value))
    if facts.get("in_memory", False):
        value = next((size for rows, size in _LARGE_BATCHES if n >= rows), value)
    steps = -(-n // value)
    return Choice(
        "batch_size",
        value,
        f"An epoch of the {n:,} train rows has {steps:,} steps.",
        evidence={"n_train": n, "steps_per_epoch": steps},
        alternatives=(value * 2, max(1, value // 2)),
    )


def batch_size_accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
    """Accept only the batch size of a user-defined loader, if there is one."""
    given = facts.get("loader_batch_size")
    return (
        None
        if given in (None, value)
        else f"{given}, the batch size of your loader. Change it there."
    )


def _accumulate(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "accumulate",
        1,
        f"A step uses one batch of {values['batch_size']:,} samples. The first fit measures "
        "whether it fits into memory.",
        evidence={"batch_size": values["batch_size"]},
        alternatives=(2, 4),
        source="default",
    )


def _num_workers(facts: Facts, values: Mapping[str, Any]) -> Choice:
    if facts.get("loader_batch_size") is not None:
        reason = "Your loader reads the samples."
        return Choice(
            "num_workers", 0, reason, override="Change it in your loader.", source="default"
        )
    if facts.get("in_memory", False):
        reason = (
            "The samples are in memory, where one indexing operation makes a batch; worker "
            "processes would be slower."
        )
        return Choice(
            "num_workers",
            0,
            reason,
            evidence={"in_memory": True},
            override="Worker processes are only used for data read from files.",
        )
    cores = usable_cores()
    value = min(4, cores)
    return Choice(
        "num_workers",
        value,
        f"Files are read during training. This process may use {cores} cores; 4 workers at most.",
        evidence={"in_memory": False, "cores": cores},
        alternatives=(0, cores),
    )


def _workers_accept(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
    if value == 0:
        return None
    if facts.get("loader_batch_size") is not None:
        return "0: your loader reads the samples. Change its num_workers."
    return (
        "0: worker processes are for data read from files."
        if facts.get("in_memory", False)
        else None
    )


def _optimizer(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "optimizer",
        "adamw",
        "Less sensitive to the learning rate than SGD. Its fused kernel is 3.4–5.3× faster than "
        "the for-loop implementation on CPU.",
        evidence={"fused_speed_up_cpu": [3.4, 5.3]},
        alternatives=("sgd",),
        source="default",
    )


def _weight_decay(facts: Facts, values: Mapping[str, Any]) -> Choice:
    optimizer = values["optimizer"]
    value = _WEIGHT_DECAY.get(optimizer, 0.0)
    return Choice(
        "weight_decay",
        value,
        f"Common value for {optimizer}. Norm layers and biases are not decayed.",
        evidence={"optimizer": optimizer},
        alternatives=(value * 10, 0.0),
        source="default",
    )


def lr_rule(table: Mapping[str, float]) -> Rule:
    """Return the rule for ``lr``: the measured peak learning rate of the architecture.

    Args:
        table: Peak learning rate for AdamW by architecture, measured to train well. The rate for
            another optimizer is derived from it; an architecture that is not listed gets 1e-3
            with low confidence.
    """

    def decide(facts: Facts, values: Mapping[str, Any]) -> Choice:
        architecture, optimizer = values["architecture"], values["optimizer"]
        known = architecture in table
        base = table.get(architecture, _USUAL_LR)
        factor = _RELATIVE_TO_ADAMW.get(optimizer, 1)
        value = float(f"{base * factor:.3g}")
        reason = f"{base:g} is the measured default for {architecture} with AdamW."
        if facts.get("started"):
            reason += (
                " It was measured without the weights of an export; with them, less may be better."
            )
        confidence = 0.9
        if not known:
            reason = (
                f"No learning rate was measured for {architecture}; {base:g} is AdamW's usual one. "
                "A run of 1,200 steps or more runs lr_find first."
            )
            confidence = 0.45
        if optimizer != "adamw":
            reason += f" {optimizer} usually needs {factor} times that rate."
            confidence -= 0.3
        return Choice(
            "lr",
            value,
            reason,
            evidence={"architecture": architecture, "adamw": base, "factor": factor},
            alternatives=(float(f"{value * 3:.3g}"), float(f"{value / 3:.3g}")),
            confidence=round(max(0.1, confidence), 2),
            override=f"learner.fit(lr={value * 3:.3g})",
        )

    return Rule("lr", ("architecture", "optimizer"), decide, type=LR, changes="fit")


def _schedule(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "schedule",
        "one_cycle",
        "Warms up over a quarter of the run, then decays to zero, so the last epoch is usually "
        "the best.",
        alternatives=("cosine", "flat_cos", "constant"),
        override='learner.fit(schedule="cosine")',
        source="default",
    )


def _schedules(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "schedules",
        {},
        "Only the learning rate is scheduled.",
        alternatives=({"weight_decay": {"shape": "linear"}},),
        override='choices={"schedules": {"weight_decay": {"shape": "linear"}}}',
        source="default",
    )


def _steps_per_epoch(facts: Facts, values: Mapping[str, Any]) -> int:
    batches = facts.get("loader_batches")
    if batches is not None:
        return -(-batches // values["accumulate"])
    return -(-facts["n_train"] // (values["batch_size"] * values["accumulate"]))


def _epochs(facts: Facts, values: Mapping[str, Any]) -> Choice:
    steps = _steps_per_epoch(facts, values)
    value = min(_MAX_EPOCHS, max(_MIN_EPOCHS, -(-_TARGET_STEPS // steps)))
    return Choice(
        "epochs",
        value,
        f"{value} epochs of {steps:,} steps are {steps * value:,} steps. The target is about "
        f"{_TARGET_STEPS:,} steps in {_MIN_EPOCHS} to {_MAX_EPOCHS} epochs.",
        evidence={"steps_per_epoch": steps, "steps": steps * value},
        alternatives=(max(1, value // 2), value * 2),
        confidence=0.7,
        override=f"learner.fit({value * 2})",
    )


def unless_steps(decide: Decide) -> Decide:
    """Return a function that decides "epochs"; if "steps" are set, the epochs follow from them.

    Args:
        decide: Decides "epochs" if no "steps" are set. The evidence of its choice has
            "steps_per_epoch" if this number is known.
    """

    @wraps(decide)
    def decide_epochs(facts: Any, values: Mapping[str, Any]) -> Choice:
        choice, steps = decide(facts, values), values["steps"]
        if steps is None:
            return choice
        per_epoch = choice.evidence.get("steps_per_epoch")
        value = choice.value if per_epoch is None else max(1, -(-steps // per_epoch))
        epochs = "" if per_epoch is None else f", about {steps / per_epoch:.3g} epochs"
        return replace(
            choice,
            value=value,
            reason=f"Not used: the run has {steps:,} steps{epochs}.",
            confidence=1.0,
            alternatives=(),
            override=f"learner.fit({value})",
        )

    return decide_epochs


def _steps(facts: Facts, values: Mapping[str, Any]) -> Choice:
    if facts.get("has_length", True):
        reason, value = "The run is measured in epochs.", None
    else:
        reason = "The train loader has no len(), so the run is measured in steps."
        value = _TARGET_STEPS
    return Choice("steps", value, reason, override="learner.fit(steps=10_000)", source="default")


def _evaluate_every(facts: Facts, values: Mapping[str, Any]) -> Choice:
    per_epoch = _steps_per_epoch(facts, values)
    value, reason = None, "Evaluation at the end of each epoch."
    if not facts.get("has_length", True):
        value = _TARGET_STEPS // 4
        reason = "The train loader has no len(), so the end of an epoch is not known."
    elif per_epoch > _LONG_EPOCH_STEPS:
        value = _EVALUATE_EVERY
        reason = f"An epoch has about {per_epoch:,} steps, so it is evaluated inside epochs, too."
    return Choice(
        "evaluate_every",
        value,
        reason,
        evidence={} if value is None else {"steps_per_epoch": per_epoch},
        override="learner.fit(evaluate_every=500)",
        source="default",
    )


def _auto(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "auto",
        None,
        "fit_auto(minutes=…) has not run. It chooses epochs and schedule for a time budget and "
        "records the run here.",
        override="learner.fit_auto(minutes=3)",
        source="default",
    )


def _bn(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "bn",
        "auto",
        "The first fit decides it from batch statistics of the train data, with batches of "
        f"{values['batch_size']}.",
        evidence={"batch_size": values["batch_size"]},
        alternatives=("train", "adapt", "eval"),
        override='choices={"bn": "eval"}',
        source="default",
    )


def _bn_statistics(facts: Facts, values: Mapping[str, Any]) -> Choice:
    return Choice(
        "bn_statistics",
        "fresh",
        "In the first 50 steps that train the same layers, running statistics of norm layers lag "
        "behind the weights: these evaluations compute them anew from up to 20 train batches.",
        alternatives=("running",),
        override='choices={"bn_statistics": "running"}',
        source="default",
    )


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _or_none(description: str, accepts: Callable[[Any], bool], default: str = "") -> ValueType:
    return ValueType(
        f"None{default} or {description}", lambda value: value is None or accepts(value)
    )


TRAINING_RULES = (
    Rule(
        "batch_size",
        ("architecture",),
        _batch_size,
        batch_size_accepts,
        type=whole(1, "samples"),
        changes="apply",
    ),
    Rule(
        "accumulate",
        ("batch_size",),
        _accumulate,
        type=whole(1, "batches in a step"),
        changes="apply",
    ),
    Rule(
        "num_workers",
        (),
        _num_workers,
        _workers_accept,
        type=whole(0, "processes"),
        of_machine=True,
    ),
    Rule("optimizer", (), _optimizer, type=one_of(OPTIMIZER_NAMES)),
    Rule(
        "weight_decay",
        ("optimizer",),
        _weight_decay,
        type=not_negative("a finite number, at least 0."),
    ),
    lr_rule({}),
    Rule("schedule", (), _schedule, type=ScheduleName(), changes="fit"),
    Rule("schedules", (), _schedules, type=SchedulesType(), changes="fit"),
    Rule(
        "steps",
        (),
        _steps,
        type=_or_none("a whole number of steps, at least 1.", _is_count),
        changes="fit",
    ),
    Rule(
        "evaluate_every",
        ("batch_size", "accumulate"),
        _evaluate_every,
        type=_or_none("a whole number of steps between two evaluations, at least 1.", _is_count),
        changes="fit",
    ),
    Rule(
        "epochs",
        ("batch_size", "accumulate", "steps"),
        unless_steps(_epochs),
        type=whole(1, "passes over the train set"),
        changes="fit",
    ),
    Rule("bn", ("batch_size",), _bn, type=one_of(BATCH_NORM_POLICIES)),
    Rule("bn_statistics", (), _bn_statistics, type=one_of(BN_STATISTICS)),
    # A recorded run is invalid if one of these changes.
    Rule(
        "auto",
        ("accumulate", "architecture", "batch_size", "bn", "lr", "optimizer", "weight_decay"),
        _auto,
        type=AUTO_OUTCOME,
        changes="fit",
    ),
)


# Settings of the optimizer besides lr and weight decay

_EXAMPLES: Mapping[str, Any] = {
    "alpha": 0.9,
    "betas": [0.9, 0.95],
    "eps": 1e-6,
    "momentum": 0.9,
    "nesterov": True,
}


def _decide_setting(key: str) -> Decide:
    def decide(facts: Facts, values: Mapping[str, Any]) -> Choice:
        optimizer = values["optimizer"]
        has_setting = key in OPTIMIZER_SETTINGS.get(optimizer, (key,))
        reason = "torch's default." if has_setting else f"{optimizer} has no {key}."
        return Choice(key, None, reason, alternatives=(_EXAMPLES[key],), source="default")

    return decide


def _accept_setting(key: str) -> Accepts:
    def accepts(value: Any, facts: Facts, values: Mapping[str, Any]) -> str | None:
        optimizer = values["optimizer"]
        known = OPTIMIZER_SETTINGS.get(optimizer)
        if value is None or known is None:
            return None
        if key not in known:
            having = [name for name, keys in OPTIMIZER_SETTINGS.items() if key in keys]
            return (
                f"None: the optimizer {optimizer!r} has no {key}. Optimizers that have it: "
                f"{', '.join(having)}."
            )
        if key == "nesterov" and value and optimizer == "sgd" and not values["momentum"]:
            return 'False without momentum. Add it: choices={"momentum": 0.9, "nesterov": True}.'
        return None

    return accepts


def _is_share(value: Any) -> bool:
    return is_number(value) and 0 <= value < 1


def _is_betas(value: Any) -> bool:
    return (
        isinstance(value, list | tuple)
        and len(cast("list[Any]", value)) == 2
        and all(map(_is_share, cast("list[Any]", value)))
    )


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_positive(value: Any) -> bool:
    return is_number(value) and value > 0


_TORCHS = " (torch's default)"

_SETTING_TYPES: Mapping[str, ValueType] = {
    "momentum": _or_none("a number from 0 to below 1.", _is_share, _TORCHS),
    "nesterov": _or_none("True or False.", _is_bool, _TORCHS),
    "betas": _or_none("two numbers from 0 to below 1.", _is_betas, _TORCHS),
    "eps": _or_none("a finite number above 0.", _is_positive, _TORCHS),
    "alpha": _or_none("a number from 0 to below 1.", _is_share, _TORCHS),
}

OPTIMIZER_RULES = tuple(
    Rule(
        key,
        ("optimizer", "momentum") if key == "nesterov" else ("optimizer",),
        _decide_setting(key),
        _accept_setting(key),
        type=kind,
    )
    for key, kind in _SETTING_TYPES.items()
)
