"""Create optimizers by name, without weight decay for norms and biases, fused if available."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import torch
from torch import nn
from torch.optim import Optimizer

from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.phases.setting_names import OPTIMIZER_SETTINGS
from flambeau.torch_internals import build_optimizer
from flambeau.training.optim.fused_step import OptimizerStep, with_inner
from flambeau.training.optim.groups import (
    HasLayerGroups,
    HasLRFactors,
    check_group_names,
    layer_groups,
    lr_factors,
    parameter_groups,
)

OptimizerFactory = Callable[[nn.Module, Mapping[str, Any]], Mapping[str, Optimizer]]
"""``factory(model, values) -> {"main": optimizer}``; ``values`` are the plan's values by key."""

ParamGroup = dict[str, Any]

_NORM_CLASS = re.compile(r"Norm(\d?d)?$")


@dataclass(frozen=True)
class OptimizerKind:
    """A torch optimizer class together with its settings."""

    build: type[Optimizer]
    options: tuple[str, ...]
    has_fused: bool = True


OPTIMIZERS: Mapping[str, OptimizerKind] = {
    "adagrad": OptimizerKind(torch.optim.Adagrad, OPTIMIZER_SETTINGS["adagrad"]),
    "adam": OptimizerKind(torch.optim.Adam, OPTIMIZER_SETTINGS["adam"]),
    "adamw": OptimizerKind(torch.optim.AdamW, OPTIMIZER_SETTINGS["adamw"]),
    "muon": OptimizerKind(torch.optim.Muon, OPTIMIZER_SETTINGS["muon"], has_fused=False),
    "rmsprop": OptimizerKind(torch.optim.RMSprop, OPTIMIZER_SETTINGS["rmsprop"], has_fused=False),
    "sgd": OptimizerKind(torch.optim.SGD, OPTIMIZER_SETTINGS["sgd"]),
}
"""Optimizers by the name in the plan."""


def make_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    options: Mapping[str, Any] | None = None,
    fused: bool | None = None,
) -> Optimizer:
    """Return a torch optimizer for all parameters of ``model``, in groups from stem to head.

    Each of its ``param_groups`` has the entries "group" (the layer group), "lr_scale" (1),
    "lr_factor" (from ``model.lr_factors()``, else 1; "lr" includes it) and "decay" (whether weight
    decay applies: not to norm layers, biases and other 1-d parameters).

    Args:
        name: "adamw", "adam", "sgd", "rmsprop" or "adagrad".
        model: On the device where it will be trained.
        lr: Learning rate; the loop sets it again before each step.
        weight_decay: As in torch's optimizer of that name (decoupled for adamw).
        options: Further settings by torch's names: "betas", "eps", "momentum", "nesterov",
            "alpha". None selects the default of torch.
        fused: Whether to use the fused form. None uses it if it exists for device and dtype (AdamW
            on 11.2 M parameters: 7.5 ms instead of 40 ms per step, 2-core EPYC).

    Raises:
        ArgumentError: The optimizer, or one of ``options``, is unknown.
        InputError: The model has no parameters, or a value is out of range.
    """
    kind = OPTIMIZERS.get(name)
    if kind is None:
        raise ArgumentError(f"Unknown optimizer {name!r}. {did_you_mean(name, OPTIMIZERS)}")
    if name == "muon":
        raise ArgumentError(
            "Muon trains only hidden matrices. Use make_muon, which returns Muon for "
            "these and AdamW for the other parameters."
        )
    settings = {key: value for key, value in (options or {}).items() if value is not None}
    for key in settings:
        if key not in kind.options:
            raise ArgumentError(
                f"The optimizer {name!r} has no option {key!r}. {did_you_mean(key, kind.options)}"
            )
    groups = split_by_decay(model, lr=lr, weight_decay=weight_decay)
    if not groups:
        raise InputError(
            f"{type(model).__name__} has no parameters, so there is nothing to optimize. "
            "Pass a model with parameters."
        )
    settings |= {"lr": lr, "weight_decay": weight_decay}
    return build_from_groups(name, groups, settings, fused=fused)


def build_from_groups(
    name: str,
    groups: Sequence[ParamGroup],
    settings: Mapping[str, Any],
    *,
    fused: bool | None = None,
) -> Optimizer:
    """Return the optimizer of a known name for param groups (see ``split_by_decay``).

    Args:
        name: A key of `OPTIMIZERS`.
        groups: Its param groups, at least one.
        settings: Keyword arguments of the optimizer class.
        fused: As for ``make_optimizer``.

    Raises:
        InputError: A value is out of range.
    """
    kind = OPTIMIZERS[name]
    if kind.has_fused and (_supports_fused(name, groups) if fused is None else fused):
        # Otherwise not set: fused=False would disable the foreach form of torch too.
        settings = {**settings, "fused": True}
    try:
        return build_optimizer(kind.build, list(groups), dict(settings))
    except ValueError as error:
        raise InputError(f"Invalid settings of the optimizer {name!r}: {error}.") from error


def split_by_decay(model: nn.Module, *, lr: float, weight_decay: float) -> list[ParamGroup]:
    """Return ``param_groups``: each layer group split by lr factor and by weight decay."""
    plain, factors = no_decay_ids(model), lr_factors(model)
    groups: list[ParamGroup] = []
    for name, parameters in parameter_groups(model).items():
        split: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for parameter in parameters:
            key = factors.get(id(parameter), 1.0), id(parameter) not in plain
            split.setdefault(key, []).append(parameter)
        # Decayed parameters first.
        for (factor, decay), chosen in sorted(split.items(), key=lambda entry: not entry[0][1]):
            groups.append(
                {
                    "params": chosen,
                    "group": name,
                    "lr_scale": 1.0,
                    "lr_factor": factor,
                    "decay": decay,
                    "lr": lr * factor,
                    "weight_decay": weight_decay if decay else 0.0,
                }
            )
    return groups


def base_lr(group: Mapping[str, Any]) -> float | None:
    """Return the learning rate of a param group without its "lr_factor"; None if it has none."""
    lr, factor = group.get("lr"), group.get("lr_factor", 1.0)
    return lr / factor if lr is not None and factor else lr


def no_decay_ids(model: nn.Module) -> set[int]:
    """Return the ``id`` of every parameter without weight decay.

    These are biases of any shape (also tables of relative position biases), 1-d parameters, and all
    parameters of norm layers: a scale near 0 weakens the layer and does not regularise it.
    """
    ids: set[int] = set()
    for module in model.modules():
        is_norm = _NORM_CLASS.search(type(module).__name__) is not None
        for name, parameter in module.named_parameters(recurse=False):
            if is_norm or parameter.ndim <= 1 or "bias" in name:
                ids.add(id(parameter))
    return ids


def regroup(
    optimizer: Optimizer,
    groups: Mapping[str, Sequence[nn.Parameter]],
    lr_scales: Mapping[str, float],
    no_decay: Collection[int] | None = None,
) -> None:
    """Merge parameters with the same settings into one param group, in the order of the model.

    Each param group needs a kernel call per step (20 µs for fused AdamW, 2-core EPYC). For nine
    layer groups with the same learning rate two param groups suffice instead of eighteen, and one
    without weight decay. The entry "group" of a merged group contains the names joined by "+".
    Besides the grouping only "lr_scale" and "decay" change; set "lr" afterwards. The state of each
    parameter does not change. The result does not depend on the previous grouping.

    Args:
        optimizer: Any torch optimizer; param groups that differ in other settings are not merged.
        groups: ``parameter_groups(model)``.
        lr_scales: Factor by layer group; 1 for other groups.
        no_decay: ``no_decay_ids(model)``; None if the plan's optimizer has no weight decay, so that
            these parameters are merged with the others.

    Raises:
        ArgumentError: ``lr_scales`` names an unknown group.
    """
    check_group_names(lr_scales, groups)
    group_of = {id(p): name for name, parameters in groups.items() for p in parameters}
    order = {key: index for index, key in enumerate(group_of)}
    entries = [(p, old) for old in optimizer.param_groups for p in old["params"]]
    entries.sort(key=lambda entry: order.get(id(entry[0]), len(order)))
    settings = {id(old): _settings(old) for old in optimizer.param_groups}
    merged: dict[tuple[float, bool, str], ParamGroup] = {}
    for parameter, old in entries:
        name = group_of.get(id(parameter))
        scale = lr_scales.get(name, 1.0) if name is not None else 1.0
        decay = "decay" not in old or no_decay is None or id(parameter) not in no_decay
        key = scale, decay, settings[id(old)]
        group = merged.get(key)
        if group is None:
            group = merged[key] = {**old, "params": [], "group": name or "other"}
            group["lr_scale"] = scale
            if "decay" in old:
                group["decay"] = decay
        elif name is not None and name not in group["group"].split("+"):
            group["group"] += f"+{name}"
        group["params"].append(parameter)
    optimizer.param_groups[:] = merged.values()


def shares_groups(wrapper: Optimizer, inner: Optimizer) -> bool:
    """Return whether a wrapper and its inner optimizer share the dictionaries of their groups."""
    mine, theirs = wrapper.param_groups, inner.param_groups
    return mine is theirs or [id(group) for group in mine] == [id(group) for group in theirs]


def regroup_with_inner(
    optimizer: Optimizer,
    groups: Mapping[str, Sequence[nn.Parameter]],
    lr_scales: Mapping[str, float],
    no_decay: Collection[int] | None = None,
) -> None:
    """Regroup an optimizer and the optimizers that it wraps; shared groups stay shared.

    Raises:
        ArgumentError: ``lr_scales`` names an unknown group.
        InputError: LBFGS, which has only one param group, would get several.
    """
    every = [(each, [id(group) for group in each.param_groups]) for each in with_inner(optimizer)]
    for index, (each, ids) in enumerate(every):
        first = next((other for other, shared in every[:index] if shared == ids), None)
        if first is not None:
            share_groups(first, each)
        else:
            regroup(each, groups, lr_scales, no_decay)
        if isinstance(each, torch.optim.LBFGS) and len(each.param_groups) > 1:
            raise InputError(
                "LBFGS has one learning rate and one param group for all parameters, but would "
                f"get {len(each.param_groups)}. Leave out lr_scales of layer groups and schedules "
                "of weight_decay (fit instead of fine_tune), or use another optimizer."
            )


def share_groups(wrapper: Optimizer, inner: Optimizer) -> None:
    """Give the inner optimizer the param groups of its wrapper."""
    if inner.param_groups is not wrapper.param_groups:
        inner.param_groups[:] = wrapper.param_groups


def _settings(group: ParamGroup) -> str:
    """Return the settings of a param group that must be equal for merging groups, as a text."""
    passing = {"params", "group", "lr_scale", "decay"}
    if "lr_scale" in group:
        # The loop computes "lr" of groups with "lr_scale"; other groups keep their own.
        passing.add("lr")
    return repr(sorted((key, value) for key, value in group.items() if key not in passing))


def _supports_fused(name: str, groups: Sequence[ParamGroup]) -> bool:
    parameters = [parameter for group in groups for parameter in group["params"]]
    kinds = {(parameter.device.type, parameter.dtype) for parameter in parameters}
    return all(_has_fused(name, device_type, dtype) for device_type, dtype in kinds)


@cache
def _has_fused(name: str, device_type: str, dtype: torch.dtype) -> bool:
    """Return whether a fused step works, by making one: some optimizers fail only in ``step``."""
    try:
        parameter = nn.Parameter(torch.zeros(1, device=device_type, dtype=dtype))
        parameter.grad = torch.zeros_like(parameter)
        OptimizerStep(
            build_optimizer(OPTIMIZERS[name].build, [parameter], {"lr": 1.0, "fused": True})
        )()
    except RuntimeError:
        return False
    return True


def checked_optimizers(made: object, model: nn.Module) -> Mapping[str, Optimizer]:
    """Return the optimizers that a factory made, after checking that they fit the model.

    Raises:
        ArgumentError: The factory did not return a mapping from name to optimizer.
        InputError: The optimizers have no parameter of the model.
    """
    optimizers = _named(made)
    _check_optimizers(optimizers, model)
    return optimizers


def _named(optimizers: object) -> Mapping[str, Optimizer]:
    """Return the optimizers that a factory returned, after a check of their types."""
    if isinstance(optimizers, Mapping):
        found = cast("Mapping[str, object]", optimizers)
        if found and all(isinstance(value, Optimizer) for value in found.values()):
            return cast("Mapping[str, Optimizer]", found)
        for name, value in found.items():
            if not isinstance(value, Optimizer) and callable(getattr(value, "step", None)):
                raise ArgumentError(
                    f"The optimizer {name!r} is a {type(value).__name__}, which is not a "
                    "torch.optim.Optimizer, so its param groups and state are unknown. Derive the "
                    "class from torch.optim.Optimizer and keep the optimizer in it as an attribute."
                )
    what = _shown(cast("object", optimizers))
    raise ArgumentError(
        f"TrainingOptions(optimizer=…) returned {what} instead of optimizers by name. "
        'Return a dict: lambda model, values: {"main": torch.optim.SGD(model.parameters(), '
        'lr=values["lr"])}.'
    )


def _shown(value: object) -> str:
    # The repr of an optimizer has several lines.
    return f"one {type(value).__name__}" if isinstance(value, Optimizer) else f"{value!r:.60}"


def _check_optimizers(optimizers: Mapping[str, Optimizer], model: nn.Module) -> None:
    """Check that the optimizers have a parameter of the model.

    Raises:
        InputError: They have none, so the model would not be trained.
    """
    own = {id(parameter) for parameter in model.parameters()}
    optimized = {
        id(parameter)
        for optimizer in optimizers.values()
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    if own and optimized.isdisjoint(own):
        raise InputError(
            f"No parameter of the optimizers ({', '.join(optimizers)}) belongs to the "
            f"{type(model).__name__}, so it would not be trained. Build the optimizers from the "
            "model that the factory gets: lambda model, values: "
            '{"main": torch.optim.SGD(model.parameters(), lr=values["lr"])}.'
        )


__all__ = [
    "OPTIMIZERS",
    "HasLRFactors",
    "HasLayerGroups",
    "OptimizerFactory",
    "OptimizerKind",
    "ParamGroup",
    "base_lr",
    "build_from_groups",
    "layer_groups",
    "lr_factors",
    "make_optimizer",
    "no_decay_ids",
    "parameter_groups",
    "regroup",
    "regroup_with_inner",
    "share_groups",
    "shares_groups",
    "split_by_decay",
]
