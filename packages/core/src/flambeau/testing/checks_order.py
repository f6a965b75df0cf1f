"""Checks of the order of batches, and of starting inside an epoch."""

from __future__ import annotations

import torch

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader
from flambeau.testing.report import brief, broken
from flambeau.testing.subject import Subject, indices_of, named_tensors


def check_order(subject: Subject) -> None:
    """Train has a new order every epoch, the same one when repeated; valid always has one."""
    train, valid = subject.loader("train", shuffle=True), subject.loader("valid")
    orders = [indices_of(train.batches(epoch)) for epoch in (0, 1)]
    if orders[0] == orders[1]:
        raise broken(
            f"Train batches come in the same order in epochs 0 and 1 ({brief(orders[0])}).",
            "training on one fixed order learns worse",
            "order them with flambeau.data.loader.epoch_order(n, options, epoch)",
        )
    again = [indices_of(subject.loader("train", shuffle=True).batches(epoch)) for epoch in (1, 0)]
    if again != orders[::-1]:
        raise broken(
            "A second train loader with the same seed gives another order for the same epoch.",
            "a resumed run would see other batches than an unbroken one",
            "key the order by (seed, epoch) alone, with flambeau.data.loader.epoch_order",
        )
    fixed = [indices_of(valid.batches(epoch)) for epoch in (0, 1)]
    if fixed[0] != fixed[1] or fixed[0] != subject.data.split.valid.tolist():
        raise broken(
            f"Valid batches come as {brief(fixed[0])}, then {brief(fixed[1])}; "
            f"the split has {brief(subject.data.split.valid.tolist())}.",
            "predictions are matched to rows by their place",
            "keep the order of the split where options.shuffle is False",
        )


def check_loader_starts_anywhere(subject: Subject) -> None:
    """``batches(epoch, start_step)`` is the epoch without its first steps, bit for bit."""
    for part, shuffle in (("train", True), ("valid", False)):
        whole = list(subject.loader(part, shuffle=shuffle).batches(1))
        loader = subject.loader(part, shuffle=shuffle)
        if loader.steps_per_epoch != len(whole):
            raise broken(
                f"The {part} loader says {loader.steps_per_epoch} steps an epoch and gives "
                f"{len(whole)}.",
                "schedules and resuming count steps",
                "count with flambeau.data.loader.count_steps(n, options)",
            )
        start = len(whole) // 2
        rest = list(loader.batches(1, start))
        if len(rest) != len(whole) - start or not all(map(_same_batch, rest, whole[start:])):
            raise broken(
                f"{part} batches(1, start_step={start}) differ from what is left of batches(1) "
                f"after {start} steps.",
                "a run resumed inside an epoch would see other batches than an unbroken one",
                "make batch number i a function of (seed, epoch, i) alone",
            )
    _check_loader_kind(subject.loader("train", shuffle=True))


def _check_loader_kind(loader: object) -> None:
    if not isinstance(loader, Loader):
        raise broken(
            f"{type(loader).__name__} is no flambeau.data.loader.Loader.",
            "the loop reads steps_per_epoch and batches(epoch, start_step)",
            "define both",
        )


def _same_batch(one: Batch, other: Batch) -> bool:
    first, second = named_tensors(one), named_tensors(other)
    if first.keys() != second.keys() or indices_of([one]) != indices_of([other]):
        return False
    return all(torch.equal(value, second[name]) for name, value in first.items())
