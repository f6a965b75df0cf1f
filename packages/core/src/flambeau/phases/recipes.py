"""Recipes: how a verb of the learner becomes a list of phases. Plain functions of single_phase values.

Each takes the plan's values ("epochs", "lr", "schedule", "bn") and, where groups learn one after
the other, the names of the model's parameter groups from stem to head. What they give can be
printed, changed and handed to ``Learner.fit_phases``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flambeau.errors import InputError
from flambeau.phases.phase import Phase
from flambeau.phases.schedule import Schedule

Values = Mapping[str, Any]


def single_phase(
    values: Values,
    *,
    trainable: tuple[str, ...] | None = None,
    schedules: Mapping[str, Schedule] | None = None,
) -> list[Phase]:
    """One phase with the plan's schedule.

    Args:
        values: The plan's.
        trainable: Groups that learn; None for all.
        schedules: Of other values by name, such as "weight_decay" or one of the task's.
    """
    lr = Schedule(values["schedule"], values["lr"])
    return [
        Phase(
            values["epochs"],
            {"lr": lr, **(schedules or {})},
            trainable=trainable,
            bn=values["bn"],
        )
    ]


def momentum_cycle(high: float = 0.95, low: float = 0.85, pct_start: float = 0.25) -> Schedule:
    """Momentum that falls from ``high`` to ``low`` while a one-cycle rate rises, and back.

    Source:
        Smith, "A disciplined approach to neural network hyper-parameters", 2018 (arXiv
        1803.09820), section 4.3; with cosine arms.
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
    """Warm restarts: a phase a cycle, each half a cosine from the peak to 0.

    Args:
        values: The plan's; "epochs" is the length of the first cycle.
        cycles: How many.
        cycle_mult: How many times as long as the last each cycle is.
        trainable: Groups that learn; None for all.

    Raises:
        InputError: There is no cycle, or it would shrink.

    Source:
        Loshchilov and Hutter, "SGDR", 2017 (arXiv 1608.03983), equation 5, with the lowest rate 0
        reached in the last step of each cycle.
    """
    for name, value in (("cycles", cycles), ("cycle_mult", cycle_mult)):
        if type(value) is not int or value < 1:
            raise InputError(f"{name} must be a whole number, at least 1, not {value!r}.")
    falling = Schedule("cosine", values["lr"], {"warmup": 0.0})
    return [
        Phase(
            values["epochs"] * cycle_mult**cycle,
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
    """The head alone, then everything at half the rate, earlier groups more slowly.

    Args:
        values: The plan's; "epochs" are those of the second phase, "lr" the head's peak.
        groups: Names from stem to head.
        freeze_epochs: Epochs of the first phase; 0 leaves it out.
        layer_decay: Factor from each group to the one before it. None spaces the rates
            geometrically from a hundredth at the stem to 1 at the head, however many groups
            there are.

    Raises:
        InputError: There is one group, or a number is out of range.

    Source:
        The two phases: Howard and Gugger, "fastai: A Layered API for Deep Learning", 2020; unlike
        theirs, frozen batch norm is used in training as in evaluation, and the optimizer keeps
        what it knows of the head. Layer decay: Clark et al., "ELECTRA", 2020 (arXiv 2003.10555),
        appendix A.
    """
    _require_groups("fine_tune", groups)
    if type(freeze_epochs) is not int or freeze_epochs < 0:
        raise InputError(
            "freeze_epochs must be a whole number, 0 to leave the phase out, not "
            f"{freeze_epochs!r}."
        )
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
        values["epochs"],
        {"lr": Schedule("one_cycle", peak / 2)},
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
    """The head alone, then with one group more at a time, at last all of them.

    Each phase is a slanted triangle; a group learns at ``layer_decay`` times the rate of the one
    after it.

    Args:
        values: The plan's; "epochs" are those of the last phase, in which everything learns.
        groups: Names from stem to head.
        epochs_per_group: Epochs of each phase before.
        layer_decay: Factor from each group to the one before it.

    Raises:
        InputError: There is one group, or the factor is out of range.

    Source:
        Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", 2018
        (arXiv 1801.06146), section 3.3: one epoch a group, 2.6, slanted triangular rates.
    """
    _require_groups("gradual_unfreeze", groups)
    scales = layerwise_lr_scales(groups, layer_decay)
    rate = Schedule("slanted_triangular", values["lr"])
    phases: list[Phase] = []
    for count in range(1, len(groups) + 1):
        is_last = count == len(groups)
        phases.append(
            Phase(
                values["epochs"] if is_last else epochs_per_group,
                {"lr": rate},
                trainable=None if is_last else tuple(groups[-count:]),
                lr_scales=scales,
                bn=values["bn"],
                name="all" if is_last else f"from {groups[-count]}",
            )
        )
    return phases


def geometric_lr_scales(groups: Sequence[str], lowest: float = 0.01) -> dict[str, float]:
    """Factors on lr that rise geometrically from ``lowest`` at the stem to 1 at the head."""
    last = len(groups) - 1
    return {name: lowest ** (1 - index / last) for index, name in enumerate(groups)}


def layerwise_lr_scales(groups: Sequence[str], decay: float) -> dict[str, float]:
    """Factors on lr: 1 at the head, ``decay`` times as much with each group towards the stem.

    Raises:
        InputError: The factor is not above 0, or above 1.
    """
    if not 0 < decay <= 1:
        raise InputError(f"layer_decay is a factor above 0 and at most 1, not {decay!r}.")
    last = len(groups) - 1
    return {name: decay ** (last - index) for index, name in enumerate(groups)}


def _require_groups(verb: str, groups: Sequence[str]) -> None:
    if len(groups) < 2:
        raise InputError(
            f"{verb} needs a model with a head apart from its body, but this one has one parameter "
            "group. Use fit, or give the model layer_groups()."
        )
