"""Layer groups: the parameters of a model by group name, from the stem to the head."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Protocol, cast

from torch import nn

from flambeau.checked_arguments import checked_count
from flambeau.errors import ArgumentError, InputError, did_you_mean
from flambeau.wording import name_some

Part = nn.Module | nn.Parameter


class HasLayerGroups(Protocol):
    """A model that defines its layer groups; each group is frozen and trained as a unit."""

    def layer_groups(self) -> Mapping[str, Sequence[Part]]:
        """Return modules (or single parameters) by group name, from the stem to the head."""
        ...


class HasLRFactors(Protocol):
    """A model in which some parameters have a learning rate of their own."""

    def lr_factors(self) -> Mapping[str, float]:
        """Return the factor on the learning rate by parameter name; 1 for the other parameters.

        The names are those of ``named_parameters()``.
        """
        ...


def _defines_layer_groups(model: nn.Module) -> bool:
    # isinstance with a protocol takes 25 µs, and a fit calls this five times before its first step.
    return callable(getattr(model, "layer_groups", None))


def layer_groups(model: nn.Module) -> dict[str, list[Part]]:
    """Return the parts of each group: from ``model.layer_groups()``, else the child modules.

    Without this method, each child module with parameters is a group that has the name of the
    child, in the order of definition; parameters of the model itself form the first group, "root".
    """
    if _defines_layer_groups(model):
        defined = cast("HasLayerGroups", model).layer_groups()
        return {name: list(parts) for name, parts in defined.items()}
    groups: dict[str, list[Part]] = {}
    own: list[Part] = list(model.parameters(recurse=False))
    if own:
        groups["root"] = own
    for name, child in model.named_children():
        if next(child.parameters(), None) is not None:
            groups.setdefault(name, []).append(child)
    return groups


def lr_factors(model: nn.Module) -> dict[int, float]:
    """Return the factors that ``model.lr_factors()`` defines, by the ``id`` of the parameter.

    Without this method there are none.

    Raises:
        InputError: The model has no parameter of a name, or a factor is not a finite number ≥ 0.
    """
    if not callable(getattr(model, "lr_factors", None)):
        return {}
    defined = cast("HasLRFactors", model).lr_factors()
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, factor in defined.items():
        where = f"lr_factors() of {type(model).__name__}"
        if name not in parameters:
            raise InputError(
                f"{where} names the parameter {name!r}, which the model does not have. "
                f"{did_you_mean(name, parameters)}"
            )
        if not 0 <= factor < math.inf:
            raise InputError(f"{where} has {factor!r} for {name!r}; give a finite number ≥ 0.")
    return {id(parameters[name]): float(factor) for name, factor in defined.items()}


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """Return the parameters of each layer group, from the stem to the head, each exactly once.

    A parameter that is tied between two groups (embedding and output layer) belongs to the first
    one. Groups without parameters are omitted.

    Raises:
        InputError: ``model.layer_groups()`` names a part twice, misses a parameter, or names one
            that is not the model's.
    """
    parts_of = layer_groups(model)
    if _defines_layer_groups(model):
        _check_named_once(model, parts_of)
        _check_complete(model, parts_of)
    assigned: set[int] = set()
    groups: dict[str, list[nn.Parameter]] = {}
    for group, parts in parts_of.items():
        for parameter in _parameters(parts):
            if id(parameter) not in assigned:
                assigned.add(id(parameter))
                groups.setdefault(group, []).append(parameter)
    return groups


def trainable_groups(wanted: str | Sequence[str], model: nn.Module) -> tuple[str, ...] | None:
    """Convert the value of ``trainable`` in a plan to the groups of ``Phase.trainable``.

    Args:
        wanted: "all", "head" (the last group), or names of groups.
        model: The model with the groups.

    Raises:
        ArgumentError: The model has no group of one of the names.
    """
    if wanted == "all":
        return None
    names = parameter_groups(model)
    if wanted == "head":
        return tuple(names)[-1:]
    check_group_names(wanted, names)
    return tuple(wanted)


def check_group_names(names: Collection[str], groups: Mapping[str, object]) -> None:
    """Check that the names are layer groups of the model.

    Raises:
        ArgumentError: A name is unknown; the message suggests a similar one.
    """
    for name in names:
        if name not in groups:
            raise ArgumentError(
                f"The model has no parameter group {name!r}. {did_you_mean(name, groups)} "
                f"From stem to head it has: {', '.join(groups)}."
            )


def _parameters(parts: Sequence[Part]) -> Iterator[nn.Parameter]:
    for part in parts:
        if isinstance(part, nn.Module):
            yield from part.parameters()
        else:
            yield part


def _check_named_once(model: nn.Module, parts_of: Mapping[str, Sequence[Part]]) -> None:
    """Check that no part is listed twice or is inside another listed part."""
    counts: Counter[int] = Counter()
    for parts in parts_of.values():
        for part in parts:
            counts[id(part)] += 1
            if isinstance(part, nn.Module):
                counts.update({id(inner) for inner in part.modules()} - {id(part)})
                counts.update({id(parameter) for parameter in part.parameters()})
    for group, parts in parts_of.items():
        for part in parts:
            if counts[id(part)] > 1:
                raise InputError(
                    f"layer_groups() of {type(model).__name__} names {_name(model, part)!r} in "
                    f"group {group!r} and again, by itself or inside another part. A part must "
                    "belong to exactly one group: remove it from the other."
                )


def _check_complete(model: nn.Module, parts_of: Mapping[str, Sequence[Part]]) -> None:
    """Check that the parts have all parameters of the model and no others."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    listed: set[int] = set()
    for group, parts in parts_of.items():
        for parameter in _parameters(parts):
            if id(parameter) not in names:
                raise InputError(
                    f"layer_groups() of {type(model).__name__} lists a parameter of shape "
                    f"{tuple(parameter.shape)} in group {group!r} that is not among "
                    "model.parameters(). Register it on the model, or remove it from the group."
                )
            listed.add(id(parameter))
    missing = [name for key, name in names.items() if key not in listed]
    if missing:
        raise InputError(
            f"layer_groups() of {type(model).__name__} lacks {len(missing)} parameters "
            f"({name_some(missing)}), which would not be trained. Add their modules to a group."
        )


def _name(model: nn.Module, part: Part) -> str:
    # torch does not annotate the type of the generator.
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    entries = chain(modules, model.named_parameters())
    return next((name for name, entry in entries if entry is part), "?")


def groups_from(model: nn.Module, first: int) -> list[str]:
    """Return the names of the parameter groups from index ``first`` on.

    Raises:
        ArgumentError: ``first`` is not a number.
        InputError: There is no group from that index on.
    """
    names = tuple(parameter_groups(model))
    first = checked_count(first, "first", at_least=-len(names))
    if not names[first:]:
        raise InputError(
            f"freeze_to({first}) freezes every parameter group: the model has {len(names)} "
            f"({', '.join(names)}). Give an index from {-len(names)} to {len(names) - 1}."
        )
    return list(names[first:])
