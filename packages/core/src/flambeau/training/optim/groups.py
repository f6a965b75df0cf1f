"""Layer groups: a model's parameters by name, from the stem to the head."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from typing import Protocol, cast

from torch import nn

from flambeau.errors import ArgumentError, InputError, did_you_mean

Part = nn.Module | nn.Parameter


class HasLayerGroups(Protocol):
    """A model that says itself which of its parts freeze and learn together."""

    def layer_groups(self) -> Mapping[str, Sequence[Part]]:
        """Modules (or single parameters) by group name, from the stem to the head."""
        ...


def _says_its_groups(model: nn.Module) -> bool:
    # isinstance with a protocol takes 25 µs, and a fit asks five times before its first step.
    return callable(getattr(model, "layer_groups", None))


def layer_groups(model: nn.Module) -> dict[str, list[Part]]:
    """The parts of each group: what ``model.layer_groups()`` says, else the top-level children.

    Without the method each child that has parameters is a group of its own name, in the order of
    definition, and parameters of the model itself come first as "root".
    """
    if _says_its_groups(model):
        said = cast("HasLayerGroups", model).layer_groups()
        return {name: list(parts) for name, parts in said.items()}
    groups: dict[str, list[Part]] = {}
    own: list[Part] = list(model.parameters(recurse=False))
    if own:
        groups["root"] = own
    for name, child in model.named_children():
        if next(child.parameters(), None) is not None:
            groups.setdefault(name, []).append(child)
    return groups


def parameter_groups(model: nn.Module) -> dict[str, list[nn.Parameter]]:
    """The parameters of each layer group, from the stem to the head, each parameter exactly once.

    A parameter that is tied between two groups (embedding and output layer) belongs to the first
    of them. Groups without parameters are left out.

    Raises:
        InputError: ``model.layer_groups()`` names a part twice, misses a parameter, or names one
            that is not the model's.
    """
    parts_of = layer_groups(model)
    if _says_its_groups(model):
        _check_named_once(model, parts_of)
        _check_complete(model, parts_of)
    taken: set[int] = set()
    groups: dict[str, list[nn.Parameter]] = {}
    for group, parts in parts_of.items():
        for parameter in _parameters(parts):
            if id(parameter) not in taken:
                taken.add(id(parameter))
                groups.setdefault(group, []).append(parameter)
    return groups


def groups_that_learn(wanted: str | Sequence[str], model: nn.Module) -> tuple[str, ...] | None:
    """The plan's ``trainable`` as a phase has it.

    Args:
        wanted: "all", "head" (the last group), or names of groups.
        model: Whose groups they are.

    Raises:
        ArgumentError: A name is no group of the model.
    """
    if wanted == "all":
        return None
    names = parameter_groups(model)
    if wanted == "head":
        return tuple(names)[-1:]
    check_group_names(wanted, names)
    return tuple(wanted)


def check_group_names(names: Collection[str], groups: Mapping[str, object]) -> None:
    """Refuses names that are no layer group of the model.

    Raises:
        ArgumentError: A name is unknown; the message gives the nearest.
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
    """A part may be neither listed twice nor lie inside another listed part."""
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
                    f"group {group!r} and once more, by itself or inside another part. A part "
                    "learns with exactly one group: drop it from one of them."
                )


def _check_complete(model: nn.Module, parts_of: Mapping[str, Sequence[Part]]) -> None:
    """The parts hold every parameter of the model, and no others."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    listed: set[int] = set()
    for group, parts in parts_of.items():
        for parameter in _parameters(parts):
            if id(parameter) not in names:
                raise InputError(
                    f"layer_groups() of {type(model).__name__} lists a parameter of shape "
                    f"{tuple(parameter.shape)} in group {group!r} that is not among "
                    "model.parameters(). Register it on the model, or drop it."
                )
            listed.add(id(parameter))
    missing = [name for key, name in names.items() if key not in listed]
    if missing:
        raise InputError(
            f"layer_groups() of {type(model).__name__} leaves out {len(missing)} parameters "
            f"({', '.join(missing[:5])}{', …' if len(missing) > 5 else ''}): they would never be "
            "trained. Put their modules into a group."
        )


def _name(model: nn.Module, part: Part) -> str:
    # torch leaves the generator's type open.
    modules = cast("Iterator[tuple[str, nn.Module]]", model.named_modules())
    entries = chain(modules, model.named_parameters())
    return next((name for name, entry in entries if entry is part), "?")
