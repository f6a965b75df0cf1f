"""Conformance checks of the order of batches, and of resuming inside an epoch."""

from __future__ import annotations

import hashlib

import torch

from flambeau.data.batch import Batch
from flambeau.data.loader import Loader, is_stream, steps_in
from flambeau.testing.conformance_report import conformance_error
from flambeau.testing.domain_under_test import DomainUnderTest, indices_of, named_tensors
from flambeau.wording import name_some


def check_order_of_batches(tested: DomainUnderTest) -> None:
    """Check that train is shuffled reproducibly in each epoch, and validation never."""
    train, valid = tested.loader("train", shuffle=True), tested.loader("valid")
    orders = [_order(train, epoch) for epoch in (0, 1)]
    if orders[0] == orders[1]:
        raise conformance_error(
            f"Train batches have the same order in epochs 0 and 1 ({name_some(orders[0])}).",
            "training with a fixed order gives worse models",
            "use the order of flambeau.data.loader.epoch_order(n, options, epoch)",
        )
    again = [_order(tested.loader("train", shuffle=True), epoch) for epoch in (1, 0)]
    if again != orders[::-1]:
        raise conformance_error(
            "A second train loader with the same seed gives another order for the same epoch.",
            "a resumed run would get other batches than an uninterrupted one",
            "let the order depend only on (seed, epoch), as flambeau.data.loader.epoch_order does",
        )
    fixed = [_order(valid, epoch) for epoch in (0, 1)]
    # The rows of a stream are no samples.
    expected = fixed[0] if is_stream(valid) else tested.data.split.valid.tolist()
    if fixed[0] != fixed[1] or fixed[0] != expected:
        raise conformance_error(
            f"The order of validation batches is {name_some(fixed[0])} in epoch 0 and "
            f"{name_some(fixed[1])} in epoch 1, but the split has "
            f"{name_some(tested.data.split.valid.tolist())}.",
            "predictions are assigned to rows by position",
            "keep the order of the split if options.shuffle is False",
        )


def _order(loader: Loader, epoch: int) -> list[int]:
    """Return the samples in the order of their batches; of a stream a digest of each batch."""
    batches = loader.batches(epoch)
    return [_digest(batch) for batch in batches] if is_stream(loader) else indices_of(batches)


def _digest(batch: Batch) -> int:
    content = b"".join(value.cpu().numpy().tobytes() for value in batch.targets.values())
    return int.from_bytes(hashlib.blake2b(content, digest_size=6).digest())


def check_loader_resumes_inside_an_epoch(tested: DomainUnderTest) -> None:
    """Check that ``batches(epoch, start_step)`` equals the rest of the epoch bitwise."""
    for part, shuffle in (("train", True), ("valid", False)):
        whole = list(tested.loader(part, shuffle=shuffle).batches(1))
        loader = tested.loader(part, shuffle=shuffle)
        if steps_in(loader, 1) != len(whole):
            raise conformance_error(
                f"The {part} loader has steps_per_epoch={steps_in(loader, 1)}, but gives "
                f"{len(whole)} batches.",
                "schedules and resuming rely on the number of steps",
                "count with flambeau.data.loader.count_steps(n, options)",
            )
        start = len(whole) // 2
        rest = list(loader.batches(1, start))
        if len(rest) != len(whole) - start or not all(map(_same_batch, rest, whole[start:])):
            raise conformance_error(
                f"{part} batches(1, start_step={start}) differ from the rest of batches(1) after "
                f"{start} steps.",
                "a run resumed inside an epoch would get other batches than an uninterrupted one",
                "let batch i depend only on (seed, epoch, i)",
            )
    _check_loader_kind(tested.loader("train", shuffle=True))


def _check_loader_kind(loader: object) -> None:
    if not isinstance(loader, Loader):
        raise conformance_error(
            f"{type(loader).__name__} is not a flambeau.data.loader.Loader.",
            "the training loop uses steps_per_epoch and batches(epoch, start_step)",
            "define both",
        )


def _same_batch(one: Batch, other: Batch) -> bool:
    first, second = named_tensors(one), named_tensors(other)
    if first.keys() != second.keys() or indices_of([one]) != indices_of([other]):
        return False
    return all(torch.equal(value, second[name]) for name, value in first.items())
