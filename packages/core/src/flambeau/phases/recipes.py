"""Recipes: functions that return the phases of the learner's training methods.

Each takes the plan's values ("epochs" or "steps", "lr", "schedule", "bn") and, for discriminative
learning rates, the names of the model's parameter groups from stem to head. The result can be
printed, changed and passed to ``Learner.fit_phases``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flambeau.checked_arguments import checked_count, checked_number
from flambeau.errors import InputError
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule, checked_schedules

Values = Mapping[str, Any]


def single_phase(
    values: Values,
    *,
    trainable: tuple[str, ...] | None = None,
    schedules: Mapping[str, Schedule] | None = None,
) -> list[Phase]:
    """Return one phase with the plan's schedules.

    Args:
        values: Values of the plan.
        trainable: Groups that train; None for all groups.
        schedules: Schedules by the name of the value, such as "weight_decay"; they replace those
            of the plan.
    """
    lr = Schedule(values["schedule"], values["lr"])
    return [
        Phase(
            **_length(values),
            schedules={"lr": lr, **planned_schedules(values), **checked_schedules(schedules or {})},
            trainable=trainable,
            bn=values["bn"],
        )
    ]


def planned_schedules(values: Values) -> dict[str, Schedule]:
    """Return the schedules in the plan's "schedules", by the name of the value.

    The peak of a schedule without "peak" is the plan's value of that name ("weight_decay"), or 1 if
    the plan has none.

    Raises:
        ArgumentError: A shape or an option is unknown.
        InputError: A peak or an option has an invalid value.
    """
    # Plans of earlier releases do not have the key.
    planned: Mapping[str, Mapping[str, Any]] = values.get("schedules", {})
    found: dict[str, Schedule] = {}
    for name, entry in planned.items():
        peak = entry.get("peak", values.get(name))
        found[name] = Schedule(
            entry["shape"], 1.0 if peak is None else peak, dict(entry.get("options", {}))
        )
    return found


def momentum_cycle(high: float = 0.95, low: float = 0.85, pct_start: float = 0.25) -> Schedule:
    """Return a momentum schedule inverse to one-cycle: from ``high`` to ``low`` and back.

    Source:
        Smith, "A disciplined approach to neural network hyper-parameters", 2018 (arXiv
        1803.09820), section 4.3; with cosine segments.
    """
    points = {"start": high, "middle": low, "end": high, "pct_start": pct_start}
    return Schedule("cycle", 1.0, points)


def sgdr(
    values: Values,
    *,
    cycles: int = 3,
    cycle_mult: int = 2,
    trainable: tuple[str, ...] | None = None,
) -> list[Phase]:
    """Return one phase for each cycle (warm restart): half a cosine from the peak rate to 0.

    Args:
        values: Values of the plan; "epochs" is the length of the first cycle.
        cycles: Number of cycles.
        cycle_mult: Length of each cycle relative to the one before.
        trainable: Groups that train; None for all groups.

    Raises:
        InputError: ``cycles`` or ``cycle_mult`` is not a whole number above 0.

    Source:
        Loshchilov and Hutter, "SGDR", 2017 (arXiv 1608.03983), equation 5, with a lowest rate of 0
        in the last step of each cycle.
    """
    cycles = checked_count(cycles, "cycles")
    cycle_mult = checked_count(cycle_mult, "cycle_mult")
    epochs = checked_count(values["epochs"], "epochs")
    falling = Schedule("cosine", values["lr"], {"warmup": 0.0})
    return [
        Phase(
            epochs * cycle_mult**cycle,
            {"lr": falling},
            trainable=trainable,
            bn=values["bn"],
            name=f"cycle {cycle + 1}",
        )
        for cycle in range(cycles)
    ]


def fine_tune(
    values: Values,
    groups: Sequence[str],
    *,
    freeze_epochs: int = 1,
    layer_decay: float | None = None,
) -> list[Phase]:
    """Return two phases: the head alone, then all groups with lower rates for earlier groups.

    Args:
        values: Values of the plan; "epochs" is the length of the second phase, "lr" the peak
            learning rate of the first. The second phase has half that peak.
        groups: Group names from the first layers (stem) to the head.
        freeze_epochs: Epochs of the first phase; 0 omits it.
        layer_decay: Factor from each group to the one before it. None spaces the factors
            geometrically from 0.01 at the stem to 1 at the head, for any number of groups.

    Raises:
        InputError: There is only one group, or a number is out of range.

    Source:
        The two phases: Howard and Gugger, "fastai: A Layered API for Deep Learning", 2020; unlike
        theirs, frozen batch norm behaves in training as in evaluation, and the optimizer keeps
        its state for the head. Layer decay: Clark et al., "ELECTRA", 2020 (arXiv 2003.10555),
        appendix A.
    """
    _require_groups("fine_tune", groups)
    freeze_epochs = checked_count(freeze_epochs, "freeze_epochs", at_least=0)
    peak = values["lr"]
    head = Phase(
        max(1, freeze_epochs),
        {"lr": Schedule("one_cycle", peak, {"pct_start": 0.99})},
        trainable=(groups[-1],),
        bn=values["bn"],
        name="head",
    )
    scales = (
        geometric_lr_scales(groups)
        if layer_decay is None
        else layerwise_lr_scales(groups, layer_decay)
    )
    everything = Phase(
        **_length(values),
        schedules={"lr": Schedule("one_cycle", peak / 2)},
        lr_scales=scales,
        bn=values["bn"],
        name="all",
    )
    return [head, everything] if freeze_epochs else [everything]


def gradual_unfreezing(
    values: Values,
    groups: Sequence[str],
    *,
    epochs_per_group: int = 1,
    layer_decay: float = 1 / 2.6,
) -> list[Phase]:
    """Return phases that train the head, then one more group in each phase, finally all groups.

    Each phase has a slanted triangular schedule; the learning rate of a group is ``layer_decay``
    times that of the group after it.

    Args:
        values: Values of the plan; "epochs" is the length of the last phase.
        groups: Group names from the first layers (stem) to the head.
        epochs_per_group: Epochs of each earlier phase.
        layer_decay: Factor from each group to the one before it.

    Raises:
        InputError: There is only one group, or the factor is out of range.

    Source:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018
        (arXiv 1801.06146), section 3.3: one epoch per group, factor 2.6, slanted triangles.
    """
    _require_groups("gradual_unfreeze", groups)
    scales = layerwise_lr_scales(groups, layer_decay)
    rate = Schedule("slanted_triangular", values["lr"])
    phases: list[Phase] = []
    for count in range(1, len(groups) + 1):
        is_last = count == len(groups)
        phases.append(
            Phase(
                **(_length(values) if is_last else {"epochs": epochs_per_group}),
                schedules={"lr": rate},
                trainable=None if is_last else tuple(groups[-count:]),
                lr_scales=scales,
                bn=values["bn"],
                name="all" if is_last else f"from {groups[-count]}",
            )
        )
    return phases


def _length(values: Values) -> dict[str, Any]:
    """Return the length of a phase: the plan's steps if it has any, else its epochs."""
    steps = values.get("steps")
    return {"epochs": values["epochs"]} if steps is None else {"steps": steps}


def geometric_lr_scales(groups: Sequence[str], lowest: float = 0.01) -> dict[str, float]:
    """Return factors on lr that increase geometrically from ``lowest`` at the stem to 1."""
    last = len(groups) - 1
    return {name: lowest ** (1 - index / last) for index, name in enumerate(groups)}


def layerwise_lr_scales(groups: Sequence[str], decay: float) -> dict[str, float]:
    """Return factors on lr: 1 at the head, multiplied by ``decay`` per group towards the stem.

    Raises:
        InputError: ``decay`` is not above 0 and at most 1.
    """
    decay = checked_number(decay, "layer_decay", above=0, at_most=1)
    last = len(groups) - 1
    return {name: decay ** (last - index) for index, name in enumerate(groups)}


def _require_groups(method: str, groups: Sequence[str]) -> None:
    if len(groups) < 2:
        raise InputError(
            f"{method} needs a model with several parameter groups, but this model has only one. "
            "Use fit(), or define layer_groups() in the model."
        )
