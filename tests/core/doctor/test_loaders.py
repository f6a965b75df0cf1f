"""Faults of loaders and data sets that the user brought."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Subset, TensorDataset

from flambeau import Learner, TensorData
from flambeau.doctor import Finding


def pairs(n: int, n_classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows that are sorted by their class."""
    x = torch.randn(n, 5, generator=torch.Generator().manual_seed(seed))
    return x, torch.arange(n) * n_classes // n


def learner(train: Any, valid: Any, *, n_classes: int = 3) -> Learner:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from_loaders warns of the order itself
        data = TensorData.from_loaders(train, valid, n_classes=n_classes)
    return Learner(data, nn.Linear(5, n_classes), choices={"epochs": 20}, quiet=True)


def only(patient: Learner, code: str) -> Finding:
    report = patient.doctor()
    assert set(report.codes) == {code}, str(report)
    return report.findings[0]


TRAIN, VALID = TensorDataset(*pairs(300)), TensorDataset(*pairs(60, seed=1))


def clean_valid() -> DataLoader[Any]:
    return DataLoader(VALID, batch_size=20)


def test_a_clean_loader_is_silent() -> None:
    patient = learner(DataLoader(TRAIN, batch_size=20, shuffle=True), clean_valid())
    assert patient.doctor(full=True).ok, str(patient.doctor(full=True))


def test_labels_that_come_class_by_class() -> None:
    finding = only(learner(DataLoader(TRAIN, batch_size=20), clean_valid()), "sorted-labels")
    assert finding.severity == "error"
    assert finding.evidence == {"samples": 24, "classes": 3}


def test_a_list_of_batches_class_by_class() -> None:
    x, y = pairs(300)
    batches = [(x[i : i + 20], y[i : i + 20]) for i in range(0, 300, 20)]
    finding = only(learner(batches, clean_valid()), "sorted-labels")
    assert finding.evidence == {"samples": 300, "classes": 3}
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    mixed = [(x[order[i : i + 20]], y[order[i : i + 20]]) for i in range(0, 300, 20)]
    assert learner(mixed, clean_valid()).doctor().ok


def test_a_train_loader_with_one_order() -> None:
    x, y = pairs(300)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    mixed = TensorDataset(x[order], y[order])
    only(learner(DataLoader(mixed, batch_size=20), clean_valid()), "train-not-shuffled")


def test_a_valid_loader_that_draws() -> None:
    train = DataLoader(TRAIN, batch_size=20, shuffle=True)
    finding = only(learner(train, DataLoader(VALID, 20, shuffle=True)), "valid-shuffled")
    assert finding.evidence == {"sampler": "RandomSampler"}


@pytest.mark.parametrize("batch_size", [16, 20])
def test_a_valid_loader_that_leaves_samples_out(batch_size: int) -> None:
    train = DataLoader(TRAIN, batch_size=20, shuffle=True)
    patient = learner(train, DataLoader(VALID, batch_size, drop_last=True))
    if batch_size == 20:
        assert patient.doctor().ok
    else:
        finding = only(patient, "valid-drops-samples")
        assert finding.evidence == {"left out": 12, "samples": 60, "batch size": 16}


@pytest.mark.parametrize("shared", [0, 30, 60])
def test_subsets_that_overlap(shared: int) -> None:
    train = Subset(TRAIN, range(240))
    valid = Subset(Subset(TRAIN, range(300)), range(240 - shared, 300 - shared))
    patient = learner(DataLoader(train, 20, shuffle=True), DataLoader(valid, 20))
    if not shared:
        assert patient.doctor().ok
    else:
        finding = only(patient, "duplicates-across-parts")
        assert finding.evidence == {"samples": shared, "of": 60}


class Noisy(Dataset[Any]):
    """Samples with or without augmentation."""

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
        patient = learner(train, DataLoader(Noisy(noise), 20))
    else:
        data = TensorData.from_datasets(Noisy(0.1), Noisy(noise), n_classes=3)
        patient = Learner(
            data, nn.Linear(5, 3), choices={"epochs": 20, "num_workers": 0}, quiet=True
        )
    if noise:
        assert only(patient, "augmented-valid").evidence["samples that changed"] == 2
    else:
        assert patient.doctor().ok, str(patient.doctor())


class Counting(Dataset[Any]):
    """Counts how often a sample is read."""

    def __init__(self, rows: TensorDataset) -> None:
        self.rows = rows
        self.read = 0

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        self.read += 1
        return self.rows[row]


def test_a_users_loader_is_read_no_second_time() -> None:
    train, valid = Counting(TRAIN), Counting(VALID)
    patient = learner(DataLoader(train, 20, shuffle=True), DataLoader(valid, 20))
    before = train.read
    patient.doctor()
    assert train.read == before  # the batch that from_loaders has read
    assert valid.read == 4  # two samples, twice each
