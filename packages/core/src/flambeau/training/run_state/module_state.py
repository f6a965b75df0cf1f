"""The state of model and task: ``state_dict``, and the state that it lacks but training uses.

A ``state_dict`` lacks buffers that are not persistent, parameters that a hook or an override
removes, and plain attributes such as a step counter. A resumed run needs all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, cast

import torch
from torch import Tensor, nn

_TORCH_ATTRIBUTES = frozenset(vars(nn.Module()))


def complete_state(module: object) -> dict[str, dict[str, Any]]:
    """Return everything that a resumed run needs of a model or a task; tensors are not copied.

    Args:
        module: A module; or any other object, for which only its attributes are returned.

    Returns:
        ``{"state_dict": …, "tensors": …, "attributes": …}``: the ``state_dict``, the parameters and
        buffers that it lacks, and the attributes that are numbers or dense tensors. The attributes
        of modules of torch's own classes are left out.
    """
    if not isinstance(module, nn.Module):
        return {"state_dict": {}, "tensors": {}, "attributes": dict(_plain(module))}
    listed = dict(module.state_dict())
    named = (*module.named_parameters(), *module.named_buffers())
    modules = cast("Iterator[tuple[str, nn.Module]]", module.named_modules())
    return {
        "state_dict": listed,
        "tensors": {n: value for n, value in named if n not in listed and _is_storable(value)},
        "attributes": {
            f"{prefix}.{name}" if prefix else name: value
            for prefix, each in modules
            if not type(each).__module__.startswith("torch.")
            for name, value in _plain(each)
        },
    }


def copied_state(module: object) -> dict[str, dict[str, Any]]:
    """Return ``complete_state(module)`` with copies of all values."""
    return {
        part: {name: _copy(value) for name, value in values.items()}
        for part, values in complete_state(module).items()
    }


@torch.no_grad()
def load_state(module: object, state: Mapping[str, Mapping[str, Any]]) -> None:
    """Load what ``complete_state`` or ``copied_state`` returned.

    Raises:
        RuntimeError: Names or shapes differ from the module's, as in ``load_state_dict``.
    """
    if isinstance(module, nn.Module):
        _load_listed(module, state["state_dict"], state["tensors"])
    for name, value in (*state["tensors"].items(), *state["attributes"].items()):
        prefix, _, attribute = name.rpartition(".")
        owner = module.get_submodule(prefix) if isinstance(module, nn.Module) else module
        _assign(owner, attribute, value)


def _load_listed(module: nn.Module, listed: Mapping[str, Any], unlisted: Mapping[str, Any]) -> None:
    if type(module).load_state_dict is not nn.Module.load_state_dict:
        module.load_state_dict(listed)
        return
    result: Any = module.load_state_dict(listed, strict=False)
    names: list[str] = [*result.missing_keys, *result.unexpected_keys]
    odd = [name for name in names if name not in unlisted]
    if odd:
        raise RuntimeError(f"either the model or the saved state lacks {odd[0]!r}")


def _plain(owner: object) -> Iterator[tuple[str, Any]]:
    """Yield the attributes that are numbers or dense tensors without gradient."""
    values: dict[str, Any] = getattr(owner, "__dict__", {})  # a task may have __slots__
    for name, value in values.items():
        if name in _TORCH_ATTRIBUTES:
            continue
        is_tensor = isinstance(value, Tensor) and not value.requires_grad
        if type(value) in (bool, int, float) or (is_tensor and _is_storable(value)):
            yield name, value


def _is_storable(value: Tensor) -> bool:
    """Return whether a checkpoint can contain the tensor."""
    dense = value.layout == torch.strided and not value.is_meta and not value.is_quantized
    return dense and value.dtype != torch.complex128


def _assign(owner: object, name: str, value: Any) -> None:
    present = getattr(owner, name, None)
    if not isinstance(value, Tensor):
        setattr(owner, name, value)
    elif isinstance(present, Tensor) and present.shape == value.shape:
        if not torch.equal(present, value.to(present)):
            present.copy_(value)  # in place: other modules may refer to the same tensor
    else:
        device = present.device if isinstance(present, Tensor) else _device_of(owner)
        setattr(owner, name, value.detach().clone().to(device))


def _device_of(owner: object) -> torch.device:
    parameters = owner.parameters() if isinstance(owner, nn.Module) else ()
    return next((parameter.device for parameter in parameters), torch.device("cpu"))


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, Tensor) else deepcopy(value)
