"""The doctor has no findings for correct real data, neither on request nor before a fit."""

from __future__ import annotations

import gzip
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from flambeau import Learner, TensorData
from flambeau.data.split import Split
from flambeau_vision import ImageData


def assert_no_findings(learner: Learner) -> None:
    report = learner.doctor(full=True)
    assert report.ok, str(report)
    # Warnings are errors here, so a finding would end the fit.
    learner.fit(1)


@pytest.mark.parametrize("name", ["breast_cancer", "diabetes", "digits", "iris", "wine"])
def test_scikit_learn_data_sets(name: str) -> None:
    sets = pytest.importorskip("sklearn.datasets")
    x, y = getattr(sets, f"load_{name}")(return_X_y=True)
    assert_no_findings(Learner(TensorData.from_tensors(x, y), quiet=True))


def test_digits_with_a_user_defined_network_and_loaders() -> None:
    sets = pytest.importorskip("sklearn.datasets")
    x, y = sets.load_digits(return_X_y=True)
    images = torch.tensor(x, dtype=torch.float32).reshape(-1, 1, 8, 8) / 16
    labels = torch.tensor(y)
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten()]
    net = nn.Sequential(*layers, nn.Linear(16 * 36, 10))
    train = DataLoader(TensorDataset(images[:1400], labels[:1400]), 32, shuffle=True)
    valid = DataLoader(TensorDataset(images[1400:], labels[1400:]), 32)
    assert_no_findings(
        Learner(TensorData.from_loaders(train, valid, n_classes=10), net, quiet=True)
    )


@pytest.mark.realdata
def test_fashion_mnist(realdata: Path, example: Callable[[str], ModuleType]) -> None:
    program = example("fashion_mnist")
    folder = realdata / "fashion_mnist"
    images = program.read_idx(folder / "train-images-idx3-ubyte.gz")[:3000]
    labels = program.read_idx(folder / "train-labels-idx1-ubyte.gz")[:3000]
    assert_no_findings(Learner(ImageData.from_arrays(images, labels), quiet=True))
    # The published parts: few of the test images are train images too.
    whole = Learner(program.load(folder), quiet=True)
    assert whole.doctor().ok, str(whole.doctor())


@pytest.mark.realdata
def test_ants_and_bees(realdata: Path, tmp_path: Path) -> None:
    with tarfile.open(realdata / "hymenoptera" / "hymenoptera.tar") as tar:
        tar.extraction_filter = getattr(tarfile, "data_filter", None)
        tar.extractall(tmp_path)
    folder = next(path.parent for path in tmp_path.rglob("train") if path.is_dir())
    learner = Learner(ImageData.from_folder(folder, size=64), quiet=True)
    report = learner.doctor(full=True)
    assert report.ok, str(report)


@pytest.mark.realdata
def test_days_of_bike_sharing(realdata: Path) -> None:
    """Counts per day, split by time, with columns on different scales."""
    with gzip.open(realdata / "bike_sharing" / "day.csv.gz", "rt") as file:
        lines = file.read().splitlines()
    names = lines[0].split(",")
    wanted = [n for n in names if n not in ("instant", "dteday", "casual", "registered", "cnt")]
    rows = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    x = torch.tensor([[float(row[name]) for name in wanted] for row in rows])
    y = torch.tensor([float(row["cnt"]) for row in rows])
    n = len(y)
    split = Split.from_indices(range(n * 4 // 5), range(n * 4 // 5, n))
    assert_no_findings(Learner(TensorData.from_tensors(x, y, split=split), quiet=True))
