"""The parts of an object that may have state: attributes, submodules, variables of functions."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from functools import cache, partial
from types import CellType, CodeType, FunctionType, MethodType, SimpleNamespace
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.task.task import Task

_OF_MODULE = frozenset(vars(nn.Module()))
_SCALARS = (bool, int, float, str, type(None))
# Their objects have no state of training; modules, optimizers and tasks are read in any case.
_PACKAGES = {*sys.stdlib_module_names, "torch", "numpy", "pandas", "pyarrow", "PIL", "matplotlib"}
EXTRA_STATE = "get_extra_state()"


def parts_of(value: object) -> dict[str, object]:
    """Return the parts of an object by name; empty if it has no state of training.

    These are the attributes; of a module also its parameters, buffers and submodules; of a function
    the variables of the function around it and the global variables that it uses; of a method its
    object; of a ``functools.partial`` its function and arguments. Classes, Python modules, metrics
    and objects of the standard library or of large libraries have none.
    """
    if isinstance(value, FunctionType):
        return {} if _is_of_library(value.__module__) else dict(_of_function(value))
    if isinstance(value, MethodType):
        return {"__self__": value.__self__, "__func__": value.__func__}
    if isinstance(value, partial):
        bound = cast("partial[Any]", value)
        entries = (*enumerate(bound.args), *bound.keywords.items())
        objects = {str(k): each for k, each in entries if type(each) not in _SCALARS}
        return {"func": bound.func, **objects}
    if isinstance(value, nn.Module):
        return _of_module(value)
    if isinstance(value, type | Enum) or _is_metric(value):
        return {}
    module = type(value).__module__
    if isinstance(value, Optimizer):
        # All state of torch's own optimizers is in their state_dict.
        own = () if _is_of_library(module) else _attributes(value)
        return {name: part for name, part in own if name not in _of_optimizer()}
    if is_flambeau(module):  # the parts that a user passed to a task of flambeau
        parts = _attributes(value) if isinstance(value, Task) else ()
        return {name: part for name, part in parts if _is_of_user(part)}
    is_skipped = _is_of_library(module) and not isinstance(value, SimpleNamespace)
    return {} if is_skipped else dict(_attributes(value))


def set_part(owner: object, name: str, value: object) -> bool:
    """Replace a part that ``parts_of`` returned, or add an attribute; return whether it is set."""
    if isinstance(owner, FunctionType):
        cells = _cells(owner)
        if name in cells:
            cells[name].cell_contents = value
        elif name.startswith("global "):
            owner.__globals__[name.removeprefix("global ")] = value
        else:
            return _is_default(name) is False and _set_attribute(owner, name, value)
        return True
    if isinstance(owner, MethodType | partial):
        return False
    if isinstance(owner, nn.Module) and name == EXTRA_STATE:
        owner.set_extra_state(value)
        return True
    return _set_attribute(owner, name, value)


@cache
def _of_optimizer() -> frozenset[str]:
    """Return the attributes that every optimizer has; torch imports its compiler to make one."""
    return frozenset(vars(torch.optim.SGD([torch.zeros(1)], 0.1)))


def remove_parts(owner: object, names: Iterable[str]) -> None:
    """Remove attributes that were added to an object; variables of a function stay."""
    for name in names:
        if name in getattr(owner, "__dict__", {}):
            delattr(owner, name)


def _set_attribute(owner: object, name: str, value: object) -> bool:
    if isinstance(owner, nn.Module):
        setattr(owner, name, value)
    else:
        object.__setattr__(owner, name, value)  # also of a frozen dataclass
    return True


def _of_module(module: nn.Module) -> dict[str, object]:
    parts: dict[str, object] = {
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
        **dict(module.named_children()),
    }
    kind = type(module)
    if kind.get_extra_state is not nn.Module.get_extra_state:
        parts[EXTRA_STATE] = module.get_extra_state()
    own = {name: part for name, part in _attributes(module) if name not in _OF_MODULE}
    if kind.__module__.startswith("torch."):
        return parts
    if is_flambeau(kind.__module__):
        own = {name: part for name, part in own.items() if _is_of_user(part)}
    return {**parts, **own}


def _attributes(value: object) -> Iterator[tuple[str, object]]:
    for name, part in cast("dict[str, object]", getattr(value, "__dict__", {})).items():
        if name != "_sink":  # of a task: where the run collects logged values
            yield name, part
    for kind in type(value).__mro__:
        slots = kind.__dict__.get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                yield name, getattr(value, name)


def _of_function(function: FunctionType) -> Iterator[tuple[str, object]]:
    for name, cell in _cells(function).items():
        try:
            yield name, cell.cell_contents
        except ValueError:  # the variable has no value yet
            continue
    for index, value in enumerate(function.__defaults__ or ()):
        if type(value) not in _SCALARS:
            yield f"default {index}", value
    for name, value in (function.__kwdefaults__ or {}).items():
        if type(value) not in _SCALARS:
            yield f"default {name}", value
    read, written = _globals(function.__code__)
    for name in sorted(read | written):
        value = function.__globals__.get(name)
        if name in written or (name in read and not _is_constant(value)):
            yield f"global {name}", value
    yield from vars(function).items()


def _cells(function: FunctionType) -> dict[str, CellType]:
    return dict(zip(function.__code__.co_freevars, function.__closure__ or (), strict=True))


def _is_default(name: str) -> bool:
    return name.startswith("default ")


def _globals(code: CodeType) -> tuple[set[str], set[str]]:
    """Return the names of the global variables that a function reads, and that it sets."""
    read, written = set[str](), set[str]()
    for each in dis.get_instructions(code):
        if each.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            read.add(str(each.argval))
        elif each.opname == "STORE_GLOBAL":
            written.add(str(each.argval))
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            more_read, more_written = _globals(inner)
            read |= more_read
            written |= more_written
    return read, written


def _is_constant(value: object) -> bool:
    """Return whether a global variable that is only read has no state."""
    return type(value) in _SCALARS or isinstance(value, type)


def _is_of_user(value: object) -> bool:
    """Return whether a part of an object of flambeau may be an object that a user passed."""
    if isinstance(value, Mapping):
        return any(map(_is_of_user, cast("Mapping[object, object]", value).values()))
    if isinstance(value, list | tuple):
        return any(map(_is_of_user, cast("list[object]", value)))
    if isinstance(value, FunctionType | MethodType | partial | nn.Module | Task):
        return True
    module = type(value).__module__
    return not (isinstance(value, type | Tensor) or is_flambeau(module) or _is_of_library(module))


def _is_metric(value: object) -> bool:
    """Return whether an object is a metric, which is reset before each evaluation."""
    return all(callable(getattr(value, name, None)) for name in ("update", "compute", "reset"))


def is_flambeau(module: str) -> bool:
    """Return whether a module is part of flambeau or of one of its domains."""
    root = module.partition(".")[0]
    return root == "flambeau" or root.startswith("flambeau_")


def _is_of_library(module: str | None) -> bool:
    root = (module or "").partition(".")[0]
    return root in _PACKAGES or is_flambeau(root)
