"""The state of optimizers by (optimizer name, parameter name), for any param groups.

torch numbers the parameters of an optimizer in the order of its param groups, and a phase may
regroup them. A state by name can be loaded into any grouping, so a resumed run need not repeat
earlier phases. torch's ``distributed.checkpoint.state_dict`` is for sharded models; it does not
support LBFGS or parameters outside the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.errors import ResumeError
from flambeau.task.task import Task
from flambeau.task.task_module import task_module
from flambeau.torch_internals import unwrapped
from flambeau.training.optim.fused_step import inner_optimizers
from flambeau.training.optim.optimizer import share_groups, shares_groups

_OWN_FORMAT = "own format"
_INNER = "inner optimizers"


def parameter_names(model: nn.Module, task: Task) -> dict[int, str]:
    """Return the name of each parameter of model and task by its ``id``.

    Args:
        model: Its parameters are named "model.<name>".
        task: Its parameters, if it has any, are named "task.<name>".
    """
    own = task_module(task)
    modules = {"model": model, **({} if own is None else {"task": own})}
    return {
        id(parameter): f"{root}.{name}"
        for root, module in modules.items()
        for name, parameter in module.named_parameters()
    }


def state_by_name(optimizer: Optimizer, names: Mapping[int, str]) -> dict[str, Any]:
    """Return ``optimizer.state_dict()`` with names in place of torch's numbers.

    Args:
        optimizer: Any torch optimizer.
        names: From ``parameter_names``. Parameters of neither the model nor the task are named
            "other.0", "other.1", ….

    The states of optimizers that the optimizer wraps (``self.base_optimizer`` of SAM) are included.
    A state in another format than torch's is kept unchanged.
    """
    saved = cast("dict[str, Any]", unwrapped(optimizer, "state_dict")())
    if not _has_torch_format(saved):
        return {_OWN_FORMAT: saved}
    by_number = dict(_numbered(saved, optimizer, names))
    inner = {name: state_by_name(each, names) for name, each in inner_optimizers(optimizer).items()}
    return {
        **saved,
        # A key that is not the number of a parameter is kept, such as a counter of all steps.
        "state": {by_number.get(key, key): value for key, value in saved["state"].items()},
        "param_groups": [
            {**group, "params": [by_number[number] for number in group["params"]]}
            for group in saved["param_groups"]
        ],
        **({_INNER: inner} if inner else {}),
    }


def load_state_by_name(
    optimizer: Optimizer, saved: Mapping[str, Any], names: Mapping[int, str]
) -> None:
    """Load what ``state_by_name`` returned, into any grouping of the same parameters.

    A param group takes its settings from the saved group of its first parameter.

    Args:
        optimizer: The optimizer with the param groups of the run.
        saved: The saved state.
        names: From ``parameter_names``.

    Raises:
        ResumeError: The optimizer and the saved one have different parameters.
    """
    inner = inner_optimizers(optimizer)
    sharing_groups = [each for each in inner.values() if shares_groups(optimizer, each)]
    sharing_state = [each for each in inner.values() if each.state is optimizer.state]
    if _OWN_FORMAT in saved:
        unwrapped(optimizer, "load_state_dict")(saved[_OWN_FORMAT])
    else:
        _load(optimizer, saved, names)
        for name, each in inner.items():
            if name in saved.get(_INNER, {}):
                load_state_by_name(each, saved[_INNER][name], names)
    # Loading replaces these objects, but a wrapper sets lr in those of the inner optimizer.
    for each in sharing_groups:
        share_groups(optimizer, each)
    for each in sharing_state:
        each.state = optimizer.state


def _load(optimizer: Optimizer, saved: Mapping[str, Any], names: Mapping[int, str]) -> None:
    present = cast("dict[str, Any]", unwrapped(optimizer, "state_dict")())
    by_number = dict(_numbered(present, optimizer, names))
    groups = {name: group for group in saved["param_groups"] for name in group["params"]}
    if groups.keys() != set(by_number.values()):
        odd = sorted(groups.keys() ^ set(by_number.values()))
        raise ResumeError(
            f"The {type(optimizer).__name__} in the checkpoint and that of this run have different "
            f"parameters: {odd[0]} is only in one of them. Make the optimizer from the same "
            "parameters."
        )
    numbers = {name: number for number, name in by_number.items()}
    unwrapped(optimizer, "load_state_dict")(
        {
            **{key: value for key, value in saved.items() if key != _INNER},
            "state": {numbers.get(name, name): value for name, value in saved["state"].items()},
            "param_groups": [
                {
                    **(groups[by_number[group["params"][0]]] if group["params"] else group),
                    "params": group["params"],
                }
                for group in present["param_groups"]
            ],
        }
    )
    parameters = {
        by_number[number]: parameter
        for group, of_group in zip(optimizer.param_groups, present["param_groups"], strict=True)
        for parameter, number in zip(group["params"], of_group["params"], strict=True)
    }
    for name, values in saved["state"].items():
        if name in parameters and parameters[name] in optimizer.state:
            state = optimizer.state[parameters[name]]
            for key in state.keys() & values.keys():
                state[key] = _restored(state[key], values[key], parameters[name])


def _restored(loaded: object, saved: object, parameter: Tensor) -> Any:
    """Return the loaded value with the saved dtypes and the memory layout of the parameter.

    torch casts to the dtype of the parameter, which would round float32 moments of bf16 parameters
    and break integers and masks. Checkpoints store contiguous tensors; torch's fused kernels on
    the CPU pair elements by their place in memory, which is another for channels_last weights.
    """
    if isinstance(loaded, Tensor) and isinstance(saved, Tensor):
        like = loaded if loaded.dtype == saved.dtype else saved.to(loaded.device, copy=True)
        if like.shape != parameter.shape or like.stride() == parameter.stride():
            return like
        return torch.empty_like(parameter, dtype=like.dtype, device=like.device).copy_(like)
    kind: type[object] = type(loaded)
    if kind is dict and isinstance(saved, Mapping):
        origin = cast("Mapping[Any, Any]", saved)
        values = cast("dict[Any, Any]", loaded)
        return {
            k: _restored(v, origin[k], parameter) if k in origin else v for k, v in values.items()
        }
    if kind in (list, tuple) and isinstance(saved, list | tuple):
        pairs = zip(cast("list[Any]", loaded), cast("list[Any]", saved), strict=True)
        parts = [_restored(value, origin, parameter) for value, origin in pairs]
        return parts if kind is list else tuple(parts)
    return loaded


def _has_torch_format(saved: Mapping[str, Any]) -> bool:
    return {"state", "param_groups"} <= saved.keys()


def _numbered(
    saved: Mapping[str, Any], optimizer: Optimizer, names: Mapping[int, str]
) -> Iterator[tuple[int, str]]:
    """Yield the number of torch and the name of each parameter."""
    others = 0
    for group, numbers in zip(optimizer.param_groups, saved["param_groups"], strict=True):
        parameters = cast("list[Tensor]", group["params"])
        for parameter, number in zip(parameters, numbers["params"], strict=True):
            name = names.get(id(parameter))
            if name is None:
                name = f"other.{others}"
                others += 1
            yield number, name
