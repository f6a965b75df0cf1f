"""Mistakes in user-defined loaders and data sets."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from flambeau import Batch, Learner, Task, TensorData
from flambeau.doctor import Finding
from flambeau.doctor.loader_checks import augmented_valid
from flambeau.learner.examine import training_setup


def pairs(n: int, n_classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return rows that are sorted by class."""
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(n) * n_classes // n


def make_learner(train: Any, valid: Any, *, n_classes: int = 3) -> Learner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from_loaders warns about the order too
        data = TensorData.from_loaders(train, valid, n_classes=n_classes)
    return Learner(data, nn.Linear(5, n_classes), choices={"epochs": 20}, quiet=True)


def only(learner: Learner, code: str) -> Finding:
    report = learner.doctor()
    assert set(report.codes) == {code}, str(report)
    return report.findings[0]


TRAIN, VALID = TensorDataset(*pairs(300)), TensorDataset(*pairs(60, seed=1))


def clean_valid() -> DataLoader[Any]:
    return DataLoader(VALID, batch_size=20)


def test_correct_loaders_have_no_findings() -> None:
    learner = make_learner(DataLoader(TRAIN, batch_size=20, shuffle=True), clean_valid())
    assert learner.doctor(full=True).ok, str(learner.doctor(full=True))


def test_a_loader_sorted_by_class() -> None:
    finding = only(make_learner(DataLoader(TRAIN, batch_size=20), clean_valid()), "sorted-labels")
    assert finding.severity == "error"
    assert finding.evidence == {"samples": 24, "classes": 3}


def test_a_list_of_batches_sorted_by_class() -> None:
    x, y = pairs(300)
    batches = [(x[i : i + 20], y[i : i + 20]) for i in range(0, 300, 20)]
    finding = only(make_learner(batches, clean_valid()), "sorted-labels")
    assert finding.evidence == {"samples": 300, "classes": 3}
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    mixed = [(x[order[i : i + 20]], y[order[i : i + 20]]) for i in range(0, 300, 20)]
    assert make_learner(mixed, clean_valid()).doctor().ok


def test_a_train_loader_that_does_not_shuffle() -> None:
    x, y = pairs(300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    mixed = TensorDataset(x[order], y[order])
    only(make_learner(DataLoader(mixed, batch_size=20), clean_valid()), "train-not-shuffled")


def test_a_valid_loader_that_shuffles() -> None:
    train = DataLoader(TRAIN, batch_size=20, shuffle=True)
    finding = only(make_learner(train, DataLoader(VALID, 20, shuffle=True)), "valid-shuffled")
    assert finding.evidence == {"sampler": "RandomSampler"}


@pytest.mark.parametrize("batch_size", [16, 20])
def test_a_valid_loader_that_drops_samples(batch_size: int) -> None:
    train = DataLoader(TRAIN, batch_size=20, shuffle=True)
    learner = make_learner(train, DataLoader(VALID, batch_size, drop_last=True))
    if batch_size == 20:
        assert learner.doctor().ok
    else:
        finding = only(learner, "valid-drops-samples")
        assert finding.evidence == {"dropped": 12, "samples": 60, "batch size": 16}


@pytest.mark.parametrize("shared", [0, 30, 60])
def test_subsets_that_overlap(shared: int) -> None:
    train = Subset(TRAIN, range(240))
    valid = Subset(Subset(TRAIN, range(300)), range(240 - shared, 300 - shared))
    learner = make_learner(DataLoader(train, 20, shuffle=True), DataLoader(valid, 20))
    if not shared:
        assert learner.doctor().ok
    else:
        finding = only(learner, "duplicates-across-parts")
        assert finding.evidence == {"samples": shared, "of": 60}


class Noisy(Dataset[Any]):
    """Samples with noise as augmentation, or without."""

    def __init__(self, noise: float) -> None:
        self.noise = noise

    def __len__(self) -> int:
        return 60

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        x, y = VALID[row]
        return x + self.noise * torch.randn(5), int(y)


@pytest.mark.parametrize("by_loader", [True, False])
@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_augmentation_in_valid(noise: float, by_loader: bool) -> None:
    if by_loader:
        train: Any = DataLoader(Noisy(0.1), 20, shuffle=True)
        learner = make_learner(train, DataLoader(Noisy(noise), 20))
    else:
        data = TensorData.from_datasets(Noisy(0.1), Noisy(noise), n_classes=3)
        learner = Learner(
            data, nn.Linear(5, 3), choices={"epochs": 20, "num_workers": 0}, quiet=True
        )
    if noise:
        assert only(learner, "augmented-valid").evidence["samples that changed"] == 2
    else:
        assert learner.doctor().ok, str(learner.doctor())


class Counting(Dataset[Any]):
    """Counts how many samples are read."""

    def __init__(self, rows: TensorDataset) -> None:
        self.rows = rows
        self.read = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        self.read += 1
        return self.rows[row]


def test_the_first_batch_is_not_read_again() -> None:
    train, valid = Counting(TRAIN), Counting(VALID)
    learner = make_learner(DataLoader(train, 20, shuffle=True), DataLoader(valid, 20))
    before, of_valid = train.read, valid.read
    learner.doctor()
    assert train.read == before  # uses the batch that from_loaders has read
    assert valid.read - of_valid == 4  # two samples, twice each


# ---------------------------------------------------------------- random views


class Views(Dataset[Any]):
    """Samples that ``make`` builds from a row and a function that returns a random view of it."""

    def __init__(self, make: Any) -> None:
        self.make = make

    def __len__(self) -> int:
        return 60

    def __getitem__(self, index: int) -> Any:
        row = TRAIN[index][0]
        return self.make(row, lambda: row + 0.1 * torch.randn(5))


class Contrast(Task):
    """The squared distance of the projections of the views."""

    def loss(self, outputs: Any, batch: Batch) -> tuple[Tensor, float]:
        return outputs.square().sum(), float(len(batch))


class Distance(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(5, 3)

    def forward(self, *views: Tensor) -> Tensor:
        return self.last(views[0]) - self.last(views[-1].reshape(len(views[0]), -1)[:, :5])


@pytest.mark.parametrize(
    ("make", "layout"),
    [
        (lambda row, view: (view(), view()), {"n_inputs": 2}),
        (lambda row, view: ((view(), view()), 0), {}),
        (lambda row, view: {"a": view(), "b": view()}, {"inputs": ("a", "b")}),
        (lambda row, view: torch.stack([view(), view()]), {"n_inputs": 1}),
        (lambda row, view: (view(), view(), view(), 0), {"n_inputs": 3}),
    ],
)
def test_random_views_are_no_augmentation(make: Any, layout: dict[str, Any]) -> None:
    data = TensorData.from_datasets(Views(make), Views(make), **layout)
    learner = Learner(data, Distance(), task=Contrast(), quiet=True)
    assert "augmented-valid" not in learner.doctor().codes


@pytest.mark.parametrize(
    "make", [lambda row, view: ((view(), row), 0), lambda row, view: ((view(), view()[:2]), 0)]
)
def test_one_augmented_input_of_two_is_reported(make: Any) -> None:
    data = TensorData.from_datasets(Views(make), Views(make))
    learner = Learner(data, Distance(), task=Contrast(), quiet=True)
    found = augmented_valid(training_setup(learner._setup(), learner.plan))
    assert found is not None
