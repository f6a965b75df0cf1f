"""The rate that the finder takes, against a grid of short real runs on real data.

Slow: some 200 fits. The table of docs/findings/learning-rate.md was made in the same way.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import Data, Learner, TensorData, TrainingOptions

SEEDS = (20, 21, 22)
STEPS = 100
ALLOWED = 1.05


def diabetes(folder: Path) -> Data:
    x, y = pytest.importorskip("sklearn.datasets").load_diabetes(return_X_y=True)
    y = (y - y.mean()) / y.std()
    return TensorData.from_tensors(floats(x), floats(y), valid=0.2, task="regression")


def california(folder: Path) -> Data:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_csv(folder / "california_housing" / "housing.csv.gz").dropna()
    y = floats(frame.pop("median_house_value").to_numpy()) / 1e5
    x = floats(frame.select_dtypes("number").to_numpy())
    return TensorData.from_tensors(x, y, valid=0.2, task="regression")


def fashion(folder: Path) -> Data:
    def read(name: str, header: int) -> np.ndarray:
        with gzip.open(folder / "fashion_mnist" / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=header)

    x = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:5000]
    y = torch.tensor(read("train-labels-idx1-ubyte.gz", 8)[:5000].astype(np.int64))
    x = (floats(x) / 255 - 0.286) / 0.353
    return TensorData.from_tensors(x[:4000], y[:4000], valid=(x[4000:], y[4000:]))


def characters(folder: Path) -> Data:
    with gzip.open(folder / "wikitext2" / "train.txt.gz", "rt", encoding="utf-8") as file:
        text = file.read()[:60_000].lower()
    frequent = sorted(set(text), key=lambda c: -text.count(c))[:40]
    ids = torch.tensor([frequent.index(c) if c in frequent else 39 for c in text])
    windows = ids.unfold(0, 25, 7)
    return TensorData.from_tensors(
        windows[:, :24].clone(), windows[:, 24].clone(), valid=0.2, task="classification"
    )


def floats(values: Any) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


class Convolutions(nn.Module):
    def __init__(self, norm: bool) -> None:
        super().__init__()

        def block(n_in: int, n_out: int, stride: int) -> nn.Sequential:
            conv = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=not norm)
            return nn.Sequential(conv, *([nn.BatchNorm2d(n_out)] if norm else []), nn.ReLU())

        self.stem = block(1, 16, 2)
        self.body = nn.Sequential(block(16, 32, 2), block(32, 32, 1))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 32)
        self.rnn = nn.GRU(32, 64, batch_first=True)
        self.head = nn.Linear(64, 40)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(x))[0][:, -1])


def momentum(model: nn.Module, values: Mapping[str, Any]) -> Mapping[str, torch.optim.Optimizer]:
    return {"main": torch.optim.SGD(model.parameters(), lr=values["lr"], momentum=0.9)}


@dataclass(frozen=True)
class Trial:
    """A task, and the lowest rate of its grid."""

    data: Callable[[Path], Data]
    model: Callable[[], nn.Module | None]
    batch_size: int
    lowest: float = 1e-3
    options: Mapping[str, Any] = field(default_factory=dict)
    choices: Mapping[str, Any] = field(default_factory=dict)

    def learner(self, data: Data, seed: int, **choices: Any) -> Learner:
        torch.manual_seed(seed)
        return Learner(
            data,
            self.model(),
            seed=seed,
            quiet=True,
            choices={
                "batch_size": self.batch_size,
                "precision": "fp32",
                **self.choices,
                **choices,
            },
            training=TrainingOptions(nonfinite="skip", doctor=False, **self.options),
        )

    def loss(self, data: Data, seed: int, lr: float) -> float:
        learner = self.learner(data, seed)
        epochs = max(1, round(STEPS / learner.built.loader("train").steps_per_epoch))
        learner.fit_one_cycle(epochs, lr=lr)
        return learner.evaluate("valid")["loss"]


TRIALS = {
    "diabetes, MLP, AdamW": Trial(diabetes, lambda: None, 32, 3e-4),
    "California housing, MLP, AdamW": Trial(california, lambda: None, 128),
    "Fashion-MNIST, batch norm, AdamW": Trial(fashion, lambda: Convolutions(True), 64),
    "Fashion-MNIST, batch norm, momentum": Trial(
        fashion,
        lambda: Convolutions(True),
        64,
        3e-2,
        options={"optimizer": momentum},
        choices={"lr": 0.05},
    ),
    "Fashion-MNIST, no norm, Adam": Trial(
        fashion, lambda: Convolutions(False), 64, choices={"optimizer": "adam"}
    ),
    "characters, GRU, AdamW": Trial(characters, Recurrent, 64),
}


@pytest.mark.slow
def test_the_result_is_close_to_the_best_of_a_grid(realdata: Path) -> None:
    torch.set_num_threads(1)
    ratios: dict[str, float] = {}
    for name, trial in TRIALS.items():
        data = trial.data(realdata)
        grid = [
            np.mean([trial.loss(data, seed, trial.lowest * 10 ** (k / 3)) for seed in SEEDS])
            for k in range(8)
        ]
        found = [trial.learner(data, seed).lr_find().value for seed in SEEDS]
        assert None not in found, (name, found)
        at_found = [trial.loss(data, seed, lr) for seed, lr in zip(SEEDS, found, strict=True)]
        ratios[name] = float(np.mean(at_found) / np.nanmin(grid))
    near = [name for name, ratio in ratios.items() if ratio <= ALLOWED]
    assert len(near) >= 5, ratios
    assert max(ratios.values()) < 1.2, ratios
