"""``preserve``: restore a model after a block that runs or trains it."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.optim import Optimizer

from flambeau.global_rng import preserve_generators

Restore = Callable[[], None]


@contextmanager
def preserve(model: nn.Module, *objects: object, weights: bool = False) -> Generator[ExitStack]:
    """Restore the model at the end of the ``with`` block, also after an error or Ctrl-C.

    These are restored: buffers (the same tensors with the same bits, persistent or not), the mode
    of every module, ``requires_grad`` of every parameter, and the global generators of torch (CPU
    and CUDA), NumPy and Python. With ``weights`` the parameters, their gradients and the extra
    state of modules (``get_extra_state``) are restored too, so that the block may train the model;
    this keeps a copy of all of them in memory. Other attributes of user-defined modules, such as
    counters, are restored in any case.

    Loaders have no state to restore: their position is an argument of ``batches``.

    Args:
        model: Any module.
        objects: Other objects whose state the block may change: task, transforms, train step.
        weights: Whether the block may change parameters and gradients.

    Yields:
        A stack for anything else that must be restored:
        ``stack.callback(capture_optimizer(optimizer))``.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> before = model.weight.clone()
        >>> with preserve(model, weights=True):
        ...     with torch.no_grad():
        ...         _ = model.weight.zero_()
        >>> torch.equal(model.weight, before)
        True
    """
    with ExitStack() as stack:
        stack.enter_context(preserve_generators())
        stack.callback(_capture_modes(model))
        stack.callback(_capture_tensors(model, weights=weights))
        stack.callback(_capture_objects(model, objects))
        if weights:
            stack.callback(_capture_extra_state(model))
        yield stack


@contextmanager
def preserve_objects(*objects: object) -> Generator[None]:
    """Restore the state of user-defined objects at the end of the ``with`` block."""
    restore = _capture_objects(nn.Module(), objects)
    try:
        yield
    finally:
        restore()


def capture_optimizer(optimizer: Optimizer) -> Restore:
    """Return a function that restores the optimizer's current param groups and state.

    It is for optimizers that are used in several fits because a factory returns the same object.
    """
    groups = [
        ({key: deepcopy(value) for key, value in group.items() if key != "params"}, group["params"])
        for group in optimizer.param_groups
    ]
    groups = [(settings, list(cast("list[Tensor]", parameters))) for settings, parameters in groups]
    # The parameters are the keys, so copy the values one by one.
    state = {parameter: deepcopy(value) for parameter, value in optimizer.state.items()}

    def restore() -> None:
        optimizer.param_groups[:] = [
            {"params": list(parameters), **settings} for settings, parameters in groups
        ]
        optimizer.state.clear()
        optimizer.state.update(state)

    return restore


def _capture_modes(model: nn.Module) -> Restore:
    modes = [(module, module.training) for module in model.modules()]

    def restore() -> None:
        # The flags themselves: model.train() may be overridden to keep parts of a model in eval.
        for module, training in modes:
            module.training = training

    return restore


def _capture_tensors(model: nn.Module, *, weights: bool) -> Restore:
    """Return a function that restores buffers and, with ``weights``, parameters."""
    buffers = [
        (module, name, value, value.detach().clone())
        for module in model.modules()
        for name, value in module.named_buffers(recurse=False)
        if not is_lazy(value)  # of a lazy layer: it has no content before the first call
    ]
    parameters = [
        (module, name, value, value.requires_grad)
        for module in model.modules()
        for name, value in module.named_parameters(recurse=False)
    ]
    copies = [
        (value.detach().clone(), None if value.grad is None else value.grad.detach().clone())
        for _, _, value, _ in parameters
        if weights
    ]

    def restore() -> None:
        with torch.no_grad():
            for module, name, value, content in buffers:
                if (
                    getattr(module, name, None) is not value
                ):  # a forward pass may have assigned another
                    setattr(module, name, value)
                value.copy_(content)
            for module, name, value, learns in parameters:
                if getattr(module, name, None) is not value:
                    setattr(module, name, value)
                if not is_lazy(value):
                    value.requires_grad_(learns)
            for (_, _, value, _), (content, gradient) in zip(parameters, copies, strict=False):
                value.copy_(content)
                value.grad = gradient

    return restore


def _capture_objects(model: nn.Module, objects: Sequence[object]) -> Restore:
    from flambeau.training.run_state.object_state import ObjectStates

    named = {"model": model, **{str(index): each for index, each in enumerate(objects)}}
    states = ObjectStates(named, known=(*model.parameters(), *model.buffers()), copies=True)
    state = states.state_dict()
    return lambda: states.load_state_dict(state)


def _capture_extra_state(model: nn.Module) -> Restore:
    states = [
        (module, deepcopy(module.get_extra_state()))
        for module in model.modules()
        if type(module).get_extra_state is not nn.Module.get_extra_state
    ]

    def restore() -> None:
        for module, state in states:
            module.set_extra_state(state)

    return restore
