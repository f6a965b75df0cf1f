"""Add a task's parameters to the optimizer; check that the loss has no untrained parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer

from flambeau.errors import InputError
from flambeau.task.task_module import ModelAndTask
from flambeau.training.optim.clip import optimized_parameters
from flambeau.training.optim.optimizer import base_lr, split_by_decay
from flambeau.wording import name_some


def add_task_parameters(
    optimizer: Optimizer, trained: nn.Module, values: Mapping[str, Any]
) -> None:
    """Add the parameters of the task to the optimizer, in a group "task".

    Args:
        optimizer: The optimizer of the plan.
        trained: The model, together with the parameters of the task.
        values: The values of the plan by key.
    """
    if not isinstance(trained, ModelAndTask):
        return
    if isinstance(optimizer, LBFGS):
        raise InputError(
            "LBFGS has one param group, to which the parameters of the task cannot be added. Use "
            'an optimizer factory: lambda model, values: {"main": torch.optim.LBFGS('
            '[*model.parameters(), *task.head.parameters()], lr=values["lr"])}.'
        )
    present = {id(parameter) for parameter in optimized_parameters([optimizer])}
    decay = optimizer.defaults.get("weight_decay", 0.0)
    lr = base_lr(optimizer.param_groups[0])
    lr = values["lr"] if lr is None else lr
    for group in split_by_decay(trained.task, lr=lr, weight_decay=decay):
        group["params"] = [p for p in group["params"] if id(p) not in present]
        if group["params"]:
            optimizer.add_param_group({**group, "group": "task"})


def check_task_parameters(optimizers: Mapping[str, Optimizer], trained: nn.Module) -> None:
    """Check that the optimizers have the parameters of the task.

    Raises:
        InputError: A parameter of the task that requires a gradient is in no optimizer.
    """
    if not isinstance(trained, ModelAndTask):
        return
    known = _known(optimizers.values(), trained.model)
    missing = [
        name
        for name, parameter in trained.task.named_parameters()
        if parameter.requires_grad and id(parameter) not in known
    ]
    if missing:
        raise InputError(
            f"The task has {len(missing)} parameters ({name_some(missing)}) that no optimizer of "
            "TrainingOptions has, so they would not be trained. Add them in the optimizer "
            "factory: torch.optim.SGD([*model.parameters(), *task.head.parameters()], "
            'lr=values["lr"]), or call requires_grad_(False) on them.'
        )


def check_loss_parameters(
    loss: Tensor, optimizers: Iterable[Optimizer], trained: nn.Module
) -> None:
    """Check that the optimizers have all parameters outside the model on which the loss depends.

    Raises:
        InputError: The loss depends on a parameter that no optimizer has.
    """
    known = _known(optimizers, trained)
    missing = [
        str(tuple(leaf.shape))
        for leaf in _leaves(loss)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in known
    ]
    if missing:
        raise InputError(
            f"The loss depends on {len(missing)} parameters outside the model (shapes: "
            f"{name_some(missing)}) that no optimizer has, so they would not be trained. Make "
            "them (or their module, in train mode) an attribute of the task, or call "
            "requires_grad_(False) on them if they should not be trained."
        )


def _known(optimizers: Iterable[Optimizer], model: nn.Module) -> set[int]:
    return {id(p) for p in (*optimized_parameters(optimizers), *model.parameters())}


def _leaves(loss: Tensor) -> Iterator[Tensor]:
    """Yield the leaf tensors of the graph of the loss that require a gradient."""
    pending: list[Any] = [loss.grad_fn]
    seen: set[Any] = set()
    while pending:
        node = pending.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, Tensor):
            yield leaf
        pending.extend(
            entry[0] for entry in cast("tuple[tuple[Any, int], ...]", node.next_functions)
        )
