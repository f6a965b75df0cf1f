"""Reasons of the plan say what was measured of data that are read during training."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from flambeau import Learner, TensorData

SIZES = (8, 8, 8, 8, 3)


class Stream:
    """A stream whose last batch is smaller; the number of its samples is unknown."""

    is_stream = True

    def __len__(self) -> int:
        return len(SIZES)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for size in SIZES:
            yield torch.zeros(size, 4), torch.arange(size) % 2


class Rows(torch.utils.data.Dataset[tuple[Tensor, int]]):
    """A map-style data set of 200 samples, of which the plan reads the first 64."""

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.zeros(4), index % 2


def test_the_numbers_of_a_stream_are_estimates() -> None:
    data = TensorData.from_loaders(Stream(), Stream(), n_classes=2)
    plan = Learner(data, quiet=True).plan
    assert plan["split"].reason.endswith(": about 40 train, about 40 valid, 0 test.")
    assert plan["task"].reason.startswith("The first 16 train samples have ")
    assert plan["batch_size"].reason == "The first batch of your loader has 8 samples."
    assert "/ about 40 train rows" in plan["weight_decay"].reason
    assert plan["epochs"].evidence["steps_per_epoch"] == 5


def test_the_steps_of_a_loader_are_its_batches() -> None:
    batches = [list(range(10)), list(range(10, 100)), list(range(100, 200))]
    loader = torch.utils.data.DataLoader(Rows(), batch_sampler=batches)
    plan = Learner(TensorData.from_loaders(loader), nn.Linear(4, 2), quiet=True).plan
    assert plan["epochs"].evidence["steps_per_epoch"] == 3  # not 200 / 10
    assert plan["split"].reason.endswith(": 200 train, 0 valid, 0 test.")


def test_the_task_is_chosen_from_the_samples_that_were_read() -> None:
    plan = Learner(TensorData.from_datasets(Rows(), Rows()), nn.Linear(4, 2), quiet=True).plan
    assert plan["task"].reason.startswith("The first 64 train samples have ")
