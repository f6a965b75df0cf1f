"""What every loader promises, as functions that the fixture `checks` hands to tests."""

from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from flambeau.data import Batch, Loader


def flat(batches: Iterable[Batch]) -> list[tuple[list[int], dict[str, torch.Tensor]]]:
    """Batches as (sample numbers, copies of all tensors)."""
    found = []
    for batch in batches:
        assert batch.indices is not None
        assert batch.indices.device.type == "cpu"
        assert batch.indices.dtype == torch.int64
        assert batch.weight == len(batch) == len(batch.indices)
        tensors = {**batch.inputs, **{f"target {k}": v for k, v in batch.targets.items()}}
        found.append((batch.indices.tolist(), {k: v.clone() for k, v in tensors.items()}))
    return found


def same(one: list, other: list) -> bool:
    """Whether two lists from `flat` are equal bit for bit."""
    return len(one) == len(other) and all(
        a[0] == b[0]
        and a[1].keys() == b[1].keys()
        and all(torch.equal(a[1][k], b[1][k]) for k in a[1])
        for a, b in zip(one, other, strict=True)
    )


def order(batches: Iterable[Batch]) -> list[int]:
    """Sample numbers in the order in which they come."""
    return [index for indices, _ in flat(batches) for index in indices]


def check_loader(make: Callable[[], Loader], n: int, *, shuffles: bool) -> None:
    """Each sample once, the same for the same epoch, and a later start equals skipping."""
    loader = make()
    first = flat(loader.batches(epoch=0))
    assert len(first) == loader.steps_per_epoch
    assert sorted(index for indices, _ in first for index in indices) == list(range(n))
    assert same(first, flat(loader.batches(epoch=0)))
    orders = [order(loader.batches(epoch)) for epoch in range(4)]
    assert all((one != other) == shuffles for one, other in pairwise(orders))
    assert (orders[0] != list(range(n))) == shuffles
    for epoch in (0, 2):
        whole = flat(make().batches(epoch))
        for start in (1, loader.steps_per_epoch - 1, loader.steps_per_epoch):
            # A new object, as after a resume in a new process.
            assert same(whole[start:], flat(make().batches(epoch, start)))


@pytest.fixture(scope="session")
def working_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("working")


@pytest.fixture(autouse=True)
def outside_the_checkout(working_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted run without a folder makes one under ``runs/`` of the working folder."""
    monkeypatch.chdir(working_folder)


@pytest.fixture(scope="session")
def checks() -> SimpleNamespace:
    return SimpleNamespace(flat=flat, same=same, order=order, check_loader=check_loader)
