"""The state of optimizers by (optimizer name, parameter name), for any param groups.

torch numbers the parameters of an optimizer in the order of its param groups, and a phase may
regroup them. A state by name can be loaded into any grouping, so a resumed run need not repeat
earlier phases. torch's ``distributed.checkpoint.state_dict`` is for sharded models; it does not
support LBFGS or parameters outside the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.errors import ResumeError
from flambeau.task.task import Task
from flambeau.torch_internals import unwrapped


def parameter_names(model: nn.Module, task: Task) -> dict[int, str]:
    """Return the name of each parameter of model and task by its ``id``.

    Args:
        model: Its parameters are named "model.<name>".
        task: If it is an ``nn.Module``, its parameters are named "task.<name>".
    """
    modules = {"model": model, **({"task": task} if isinstance(task, nn.Module) else {})}
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
    """
    saved = cast("dict[str, Any]", unwrapped(optimizer, "state_dict")())
    by_number = dict(_numbered(saved, optimizer, names))
    return {
        **saved,
        "state": {by_number[number]: value for number, value in saved["state"].items()},
        "param_groups": [
            {**group, "params": [by_number[number] for number in group["params"]]}
            for group in saved["param_groups"]
        ],
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
            **saved,
            "state": {numbers[name]: value for name, value in saved["state"].items()},
            "param_groups": [
                {
                    **(groups[by_number[group["params"][0]]] if group["params"] else group),
                    "params": group["params"],
                }
                for group in present["param_groups"]
            ],
        }
    )


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
