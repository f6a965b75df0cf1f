"""Convert a scheduler of ``torch.optim.lr_scheduler`` to a schedule of the learning rate."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from flambeau.checked_arguments import checked_count, checked_number
from flambeau.errors import ArgumentError, InputError
from flambeau.phases.schedule import Schedule

_MOMENTUM = 0.9


def torch_schedule(
    make: Callable[[torch.optim.Optimizer], LRScheduler], length: int, lr: float
) -> Schedule:
    """Return a schedule of "lr" with the rates that a scheduler of torch sets.

    The scheduler is run once on an optimizer with one parameter. The result is a list of rates, so
    that a run with it can be resumed, and history and progress show them.

    Args:
        make: ``make(optimizer)`` returns the scheduler.
        length: Number of rates: the epochs of the phase, if the scheduler makes a step per epoch,
            or its optimizer steps.
        lr: Initial learning rate of the optimizer, from which the scheduler starts.

    Raises:
        ArgumentError: The scheduler depends on scores or also changes the momentum, or ``make``
            does not return a scheduler.
        InputError: ``length`` is not positive, or a rate is negative.

    Example:
        >>> schedule = torch_schedule(lambda o: torch.optim.lr_scheduler.StepLR(o, 2), 4, 0.1)
        >>> [round(schedule(epoch / 3), 3) for epoch in range(4)]
        [0.1, 0.1, 0.01, 0.01]
    """
    length = checked_count(length, "length", unit="epochs or steps")
    lr = checked_number(lr, "lr", at_least=0)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr, momentum=_MOMENTUM)
    scheduler = _made(make, optimizer)
    if isinstance(scheduler, ReduceLROnPlateau):
        raise ArgumentError(
            "ReduceLROnPlateau depends on scores, so its rates are not known in advance. Use the "
            "controller: TrainingOptions(controllers=(ReduceOnPlateau(),))."
        )
    [group] = optimizer.param_groups
    rates: list[float] = []
    for _ in range(length):
        rates.append(float(group["lr"]))
        if group["momentum"] != _MOMENTUM:
            raise ArgumentError(
                f"{type(scheduler).__name__} also changes the momentum. Pass cycle_momentum=False "
                'and schedule the momentum by itself: {"momentum": Schedule("cycle", 0.95, …)}.'
            )
        optimizer.step()  # pyright: ignore[reportUnknownMemberType] torch's is untyped
        scheduler.step()
    peak = max(rates)
    if peak <= 0 or min(rates) < 0:
        raise InputError(
            f"{type(scheduler).__name__} sets rates below 0, or only 0: they start with "
            f"{rates[:5]}. Change its arguments."
        )
    return Schedule("table", peak, {"values": [rate / peak for rate in rates]})


def _made(make: object, optimizer: torch.optim.Optimizer) -> LRScheduler:
    """Return the scheduler that ``make`` attaches to the optimizer.

    Raises:
        ArgumentError: ``make`` is not a function, fails, or returns no scheduler of the optimizer.
    """
    if not callable(make):
        raise ArgumentError(
            f"make is a {type(make).__name__}; give a function that attaches the scheduler to the "
            "optimizer it gets: lambda optimizer: StepLR(optimizer, 3)."
        )
    try:
        scheduler: object = make(optimizer)
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"make could not build the scheduler for an optimizer with one param group: {error}. "
            "Give a function of the optimizer: lambda optimizer: StepLR(optimizer, 3)."
        ) from error
    if not isinstance(scheduler, LRScheduler) or scheduler.optimizer is not optimizer:
        raise ArgumentError(
            f"make returned {scheduler!r:.60} instead of a scheduler of the optimizer it gets. "
            "Give a function of the optimizer: lambda optimizer: StepLR(optimizer, 3)."
        )
    return scheduler
