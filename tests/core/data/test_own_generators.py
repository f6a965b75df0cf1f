"""Generators that data sets and samplers keep: the same numbers in a resumed run."""

from __future__ import annotations

import random as python_random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, Subset, TensorDataset

from flambeau.data import BatchLayout, LoaderOptions, UserLoader
from flambeau.data.own_generators import find_generators
from flambeau.data.user_dataset import MapDataset

N = 22
PAIRS = TensorDataset(torch.arange(N).float()[:, None], torch.arange(N))


def numpy_generator() -> Any:
    return np.random.default_rng(3)


def permuted(generator: Any) -> list[int]:
    if isinstance(generator, torch.Generator):
        return torch.randperm(N, generator=generator).tolist()
    if isinstance(generator, python_random.Random):
        return generator.sample(range(N), N)
    return generator.permutation(N).tolist()


KINDS = {
    "generator": numpy_generator,
    "mt19937": lambda: np.random.Generator(np.random.MT19937(3)),
    "random-state": lambda: np.random.RandomState(3),
    "python": lambda: python_random.Random(3),
    "torch": lambda: torch.Generator().manual_seed(3),
}


class Shuffled(Sampler[int]):
    def __init__(self, generator: Any) -> None:
        self.rng = generator

    def __iter__(self) -> Iterator[int]:
        return iter(permuted(self.rng))

    def __len__(self) -> int:
        return N


class Noisy(Dataset[Any]):
    """Noise from a generator of its own; records the epochs that it is told."""

    def __init__(self, generator: Any) -> None:
        self.rng = generator
        self.epochs: list[int] = []

    def set_epoch(self, epoch: int) -> None:
        self.epochs.append(epoch)

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor([float(permuted(self.rng)[0])]), index


def order(loader: UserLoader, epoch: int, start: int = 0) -> list[int]:
    return [int(y) for batch in loader.batches(epoch, start) for y in batch.target]


@pytest.mark.parametrize("kind", KINDS)
def test_a_sampler_with_a_generator_repeats_any_epoch_in_a_new_process(kind: str) -> None:
    def new() -> UserLoader:
        return UserLoader(DataLoader(PAIRS, batch_size=4, sampler=Shuffled(KINDS[kind]())))

    first = new()
    epochs = [order(first, epoch) for epoch in range(3)]
    assert [sorted(each) for each in epochs] == [list(range(N))] * 3
    assert epochs[0] != epochs[1] != epochs[2]
    assert order(new(), 2, start=3) == epochs[2][12:]  # as after a resume


def test_the_state_of_a_sampler_is_restored_and_matters() -> None:
    sampler = Shuffled(numpy_generator())
    loader = UserLoader(DataLoader(PAIRS, batch_size=4, sampler=sampler))
    found = order(loader, 0)
    assert permuted(sampler.rng) == permuted(numpy_generator())
    other = Shuffled(np.random.default_rng(4))
    assert order(UserLoader(DataLoader(PAIRS, batch_size=4, sampler=other)), 0) != found


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_with_a_generator_draws_by_epoch_and_sample(kind: str) -> None:
    def values(size: int, epoch: int, workers: int = 0) -> list[float]:
        source = MapDataset(Noisy(KINDS[kind]()), BatchLayout())
        loader = source.loader(LoaderOptions(batch_size=size, num_workers=workers))
        return [float(x) for batch in loader.batches(epoch) for x in batch.input]

    expected = values(4, 1)
    assert len(set(expected)) > N // 3
    assert values(7, 1) == expected  # not of the batch
    assert values(4, 2) != expected


def test_a_data_set_with_a_generator_is_the_same_in_workers() -> None:
    source = MapDataset(Noisy(numpy_generator()), BatchLayout())
    expected, found = (
        [float(x) for batch in loader.batches(1) for x in batch.input]
        for workers in (0, 2)
        for loader in [source.loader(LoaderOptions(batch_size=4, num_workers=workers))]
    )
    assert found == expected


def test_a_loader_seeds_the_data_set_and_tells_it_the_epoch() -> None:
    def values(data: Noisy, epoch: int) -> list[float]:
        loader = UserLoader(DataLoader(Subset(data, range(N)), batch_size=4))
        return [float(x) for batch in loader.batches(epoch) for x in batch.input]

    data = Noisy(numpy_generator())
    first = [values(data, epoch) for epoch in range(3)]
    assert first[0] != first[1] != first[2]
    assert values(Noisy(numpy_generator()), 2) == first[2]
    loader = UserLoader(DataLoader(data, batch_size=4))
    assert [len(list(loader.batches(epoch))) for epoch in (4, 5)] == [6, 6]
    assert data.epochs == [4, 5]


def test_a_map_style_data_set_is_told_each_epoch_once() -> None:
    data = Noisy(numpy_generator())
    loader = MapDataset(data, BatchLayout()).loader(LoaderOptions(batch_size=4))
    for epoch in (0, 1, 2):
        assert len(list(loader.batches(epoch))) == 6
    assert data.epochs == [0, 1, 2]


def test_the_search_ends_in_circles_and_long_lists() -> None:
    data = Noisy(numpy_generator())
    data.itself = data  # type: ignore[attr-defined]
    data.many = [numpy_generator() for _ in range(100)]  # type: ignore[attr-defined]
    assert find_generators([data]) == [data.rng]
