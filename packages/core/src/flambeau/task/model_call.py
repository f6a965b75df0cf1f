"""Call a model with the inputs of a batch: by name if ``forward`` has arguments of these names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, TypeGuard, cast

from torch import Tensor, nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from flambeau.errors import InputError
from flambeau.torch_internals import compiled_module

if TYPE_CHECKING:
    from flambeau.task.ensemble_outputs import EnsembleOutputs

# Names that flambeau gives to the fields of a tuple; they say nothing about the model's arguments.
_GENERATED = re.compile(r"input(_\d+)?")
_BY_POSITION = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


@dataclass(frozen=True)
class Binding:
    """How named inputs are passed: by position first, then by keyword.

    Attributes:
        positional: Names in the order of the arguments.
        keywords: Names that are passed as keywords, because an argument before them is left out.
    """

    positional: tuple[str, ...]
    keywords: tuple[str, ...] = ()


def call_model(model: nn.Module, inputs: Mapping[str, Any]) -> Any:
    """Return ``model(…)`` with the inputs as its arguments.

    If the inputs have the names of arguments of the model's ``forward``, they are passed by name;
    also if ``forward`` has only ``*args`` and ``**kwargs``, as that of a wrapper. If no name
    matches, they are passed in their order. Inputs that come from a tuple have no names.

    Raises:
        InputError: Some names match and others do not.
    """
    if len(inputs) == 1 and "input" in inputs:
        return model(*inputs.values())
    binding = bind_inputs(model, tuple(inputs))
    positional = [inputs[name] for name in binding.positional]
    if not binding.keywords:
        return model(*positional)
    return model(*positional, **{name: inputs[name] for name in binding.keywords})


def bind_inputs(model: nn.Module, names: tuple[str, ...]) -> Binding:
    """Return how inputs of these names are passed to the model.

    Raises:
        InputError: Some names match arguments of ``forward`` and others do not.
    """
    if _may_wrap(type(model)):
        while isinstance(model, DataParallel | DistributedDataParallel):
            model = cast("nn.Module", model.module)
        model = compiled_module(model) or model
    forward: Callable[..., Any] = model.forward
    # The function without its module, which the cache would keep in memory.
    function = getattr(forward, "__func__", None)
    skipped = 0 if function is None else 1
    return _bind(function or forward, skipped, names, type(model).__name__)


@lru_cache(maxsize=64)
def _may_wrap(kind: type[nn.Module]) -> bool:
    """Return whether models of this class may contain the model whose ``forward`` is meant."""
    if issubclass(kind, DataParallel | DistributedDataParallel):
        return True
    return kind.__module__.startswith("torch.") and not kind.__module__.startswith("torch.nn.")


@lru_cache(maxsize=64)
def _bind(forward: Callable[..., Any], skipped: int, names: tuple[str, ...], model: str) -> Binding:
    in_order = Binding(names)
    if all(_GENERATED.fullmatch(name) for name in names):
        return in_order
    kinds = _arguments(forward, skipped)
    if kinds is None:
        return in_order
    takes_any = inspect.Parameter.VAR_KEYWORD in kinds.values()
    variable = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    known = [name for name, kind in kinds.items() if kind not in variable]
    unknown = [name for name in names if name not in known]
    if takes_any and not known:  # a wrapper: forward(self, *args, **kwargs)
        return Binding((), names)
    if len(unknown) == len(names):
        return in_order
    if unknown and not takes_any:
        raise InputError(
            f"The inputs {', '.join(names)} are passed to {model}.forward({', '.join(known)}) by "
            f"name, but it has no argument {' or '.join(map(repr, unknown))}. Give the inputs the "
            "names of the arguments, or override the task's forward to call the model."
        )
    positional: list[str] = []
    for name, kind in kinds.items():
        if name not in names or kind not in _BY_POSITION:
            break
        positional.append(name)
    keywords = tuple(name for name in names if name not in positional)
    return Binding(tuple(positional), keywords)


def _arguments(forward: Callable[..., Any], skipped: int) -> dict[str, Any] | None:
    """Return the arguments of a function with their kinds; None if they are not known."""
    try:
        parameters = list(inspect.signature(forward).parameters.values())[skipped:]
    except (TypeError, ValueError):  # a function of C++
        schema = getattr(forward, "schema", None)  # of a traced or frozen torch.jit module
        if schema is None:
            return None
        names: list[str] = [each.name for each in schema.arguments[1:]]
        return dict.fromkeys(names, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {each.name: each.kind for each in parameters}


def of_ensemble(outputs: object) -> TypeGuard[EnsembleOutputs]:
    """Return whether outputs are the ``EnsembleOutputs`` of a model in training."""
    if isinstance(outputs, Tensor):
        return False
    from flambeau.task.ensemble_outputs import EnsembleOutputs

    return isinstance(outputs, EnsembleOutputs)
