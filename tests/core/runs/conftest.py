"""Small runs on tensors, each in a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flambeau import Learner, TensorData

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(900, 4, generator=GENERATOR)
Y = ((X[:, 0] * X[:, 1] + X[:, 2]) > 0).long()
DATA = TensorData.from_tensors(X, Y, valid=300, test=200)


def train_run(
    folder: Path, *, data: Any = DATA, seed: int = 0, epochs: int = 2, **choices: Any
) -> Learner:
    """Train in a folder and store the predictions for valid."""
    chosen = {"batch_size": 50, "probe": "off", "lr": 0.01, **choices}
    learner = Learner(data, choices=chosen, seed=seed, folder=folder, quiet=True)
    torch.manual_seed(seed)
    learner.fit(epochs)
    learner.interpret("valid").save(folder)
    return learner


@pytest.fixture(scope="session")
def data() -> TensorData:
    return DATA


@pytest.fixture(scope="session")
def train() -> Callable[..., Learner]:
    """Return the function that trains in a folder."""
    return train_run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a good run, a bad one, and the good plan with another seed."""
    root = tmp_path_factory.mktemp("runs")
    train_run(root / "good", lr=0.02)
    train_run(root / "bad", lr=1e-5)
    train_run(root / "again", lr=0.02, seed=1)
    return root
