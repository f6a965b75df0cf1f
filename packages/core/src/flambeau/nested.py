"""Functions on nested values: tensors in tuples, lists, mappings and dataclasses."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, cast

from torch import Tensor


def map_tensors(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    """Return a copy of a nested value with ``function`` applied to every tensor.

    Tuples, named tuples, lists and dataclass instances keep their type; a mapping becomes a
    ``dict``; any other value is returned unchanged.

    Args:
        function: Called with each tensor.
        value: A tensor, or a nested structure of them.

    Example:
        >>> import torch
        >>> map_tensors(lambda tensor: tensor + 1, {"a": (torch.tensor(1), "text")})
        {'a': (tensor(2), 'text')}
    """
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, Mapping):
        parts = cast("Mapping[Any, Any]", value)
        return {name: map_tensors(function, part) for name, part in parts.items()}
    if isinstance(value, tuple | list):
        items = cast("tuple[Any, ...] | list[Any]", value)
        parts = [map_tensors(function, item) for item in items]
        # The constructor of a named tuple takes the fields as separate arguments.
        return type(items)(*parts) if hasattr(items, "_fields") else type(items)(parts)
    if is_dataclass(value) and not isinstance(value, type):
        parts = {
            field.name: map_tensors(function, getattr(value, field.name))
            for field in fields(value)
            if field.init
        }
        return replace(cast("Any", value), **parts)
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """Yield every tensor in a nested value, depth first."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in cast("Mapping[Any, Any]", value).values():
            yield from tensors_in(part)
    elif isinstance(value, tuple | list):
        for item in cast("tuple[Any, ...] | list[Any]", value):
            yield from tensors_in(item)
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            yield from tensors_in(getattr(value, field.name))


def detach(value: Any) -> Any:
    """Return a nested value with every tensor detached from the autograd graph."""
    return map_tensors(Tensor.detach, value)


def to_cpu(value: Any) -> Any:
    """Return a nested value with every tensor detached and on the CPU."""
    return map_tensors(lambda tensor: tensor.detach().cpu(), value)
