"""``untouched``: a stretch of real training after which everything is as it was, to the bit."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from itertools import chain
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from flambeau.training.generators import generator_states, restore_generators

PutBack = Callable[[], None]


@contextmanager
def untouched(model: nn.Module) -> Generator[ExitStack]:
    """A ``with`` block in which anything may be trained, for finders and probes.

    Afterwards, also after an error or Ctrl-C, these are as before: parameters and buffers (the
    same tensors with the same bits, persistent or not), gradients, what learns, the mode of every
    module, what modules save besides tensors (``get_extra_state``), and the global generators of
    torch (CPU and CUDA), NumPy and Python. All of it is kept in memory: a copy of the weights.
    Loaders need nothing: their position is an argument of ``batches``.

    Args:
        model: What the block trains.

    Yields:
        A stack for what else is to be put back: ``after.callback(remember_optimizer(optimizer))``.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> before = model.weight.clone()
        >>> with untouched(model):
        ...     with torch.no_grad():
        ...         _ = model.weight.zero_()
        >>> torch.equal(model.weight, before)
        True
    """
    generators = generator_states()
    with ExitStack() as after:
        after.callback(restore_generators, generators)
        after.callback(remember_model(model))
        yield after


def remember_model(model: nn.Module) -> PutBack:
    """A function that gives the model its present tensors, gradients, modes and extra state."""
    tensors = [
        (module, name, value, value.detach().clone(), value.requires_grad, _copied(value.grad))
        for module in model.modules()
        for name, value in _own_tensors(module)
    ]
    modes = [(module, module.training) for module in model.modules()]
    extra = [
        (module, deepcopy(module.get_extra_state()))
        for module in model.modules()
        if type(module).get_extra_state is not nn.Module.get_extra_state
    ]

    def put_back() -> None:
        with torch.no_grad():
            for module, name, value, copy, learns, gradient in tensors:
                if getattr(module, name) is not value:
                    setattr(module, name, value)
                value.copy_(copy)
                value.requires_grad_(learns)
                value.grad = gradient
        for module, training in modes:
            module.training = training
        for module, state in extra:
            module.set_extra_state(state)

    return put_back


def remember_optimizer(optimizer: Optimizer) -> PutBack:
    """A function that gives the optimizer its present param groups and what it remembers.

    For optimizers that outlive a fit, because a factory of the user's own hands out the same one.
    """
    groups = [
        ({key: deepcopy(value) for key, value in group.items() if key != "params"}, group["params"])
        for group in optimizer.param_groups
    ]
    groups = [(settings, list(cast("list[Tensor]", parameters))) for settings, parameters in groups]
    # The parameters are the keys, so copy the values one by one.
    state = {parameter: deepcopy(value) for parameter, value in optimizer.state.items()}

    def put_back() -> None:
        optimizer.param_groups[:] = [
            {"params": list(parameters), **settings} for settings, parameters in groups
        ]
        optimizer.state.clear()
        optimizer.state.update(state)

    return put_back


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    parameters = module.named_parameters(recurse=False)
    return chain(parameters, module.named_buffers(recurse=False))


def _copied(gradient: Tensor | None) -> Tensor | None:
    return None if gradient is None else gradient.detach().clone()
