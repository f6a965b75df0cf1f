"""A network that has learned other classes beats one that has learned nothing, at equal steps."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from flambeau import Learner, TensorData

SEEDS = range(6)
IMAGES, EPOCHS = 100, 12  # of five classes, 20 of each; with the head's epoch 13 × 7 steps
SCRATCH_RATES = (3e-3, 1e-2, 3e-2)


class Net(nn.Module):
    """Three convolutions with batch norm, then a linear head."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = self._block(1, 16, 2)
        self.body = nn.Sequential(self._block(16, 32, 2), self._block(32, 64, 1))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(256, 5))

    @staticmethod
    def _block(n_in: int, n_out: int, stride: int) -> nn.Sequential:
        conv = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(n_out), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(self.stem(x)))


def fashion(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    def read(name: str, header: int) -> np.ndarray:
        with gzip.open(folder / "fashion_mnist" / name) as file:
            return np.frombuffer(file.read(), np.uint8, offset=header)

    x = read("train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:14_000]
    y = read("train-labels-idx1-ubyte.gz", 8)[:14_000].astype(np.int64)
    return (torch.tensor(x).float() / 255 - 0.286) / 0.353, torch.tensor(y)


def learner(x: torch.Tensor, y: torch.Tensor, chosen: torch.Tensor, valid: torch.Tensor, seed: int):
    data = TensorData.from_tensors(x[chosen], y[chosen] % 5, valid=(x[valid], y[valid] % 5))
    choices = {"batch_size": min(64, max(16, len(chosen) // 20)), "precision": "fp32"}
    return Learner(data, Net(seed), choices=choices, seed=seed, quiet=True)


@pytest.mark.slow
def test_fine_tune_beats_scratch_at_equal_steps(realdata: Path) -> None:
    x, y = fashion(realdata)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    source, target = order[y[order] < 5], order[y[order] >= 5]
    pretrained = learner(x, y, source[:4000], source[4000:4500], seed=100)
    pretrained.fit_one_cycle(3, lr=1e-2)
    weights = {k: v for k, v in pretrained.model.state_dict().items() if not k.startswith("head")}

    tuned: list[float] = []
    scratch: dict[float, list[float]] = {rate: [] for rate in SCRATCH_RATES}
    for seed in SEEDS:
        chosen = target[2000 + IMAGES * seed :][:IMAGES]
        run = learner(x, y, chosen, target[:2000], seed)
        run.model.load_state_dict(weights, strict=False)
        run.fine_tune(EPOCHS, lr=1e-2)
        tuned.append(run.evaluate()["accuracy"])
        for rate, scores in scratch.items():
            plain = learner(x, y, chosen, target[:2000], seed)
            plain.fit_one_cycle(EPOCHS + 1, lr=rate)
            assert len(plain.history.step_losses) == len(run.history.step_losses)
            scores.append(plain.evaluate()["accuracy"])

    best = max(scratch.values(), key=sum)
    gains = np.array(tuned) - np.array(best)
    draws = np.random.default_rng(0).choice(gains, (10_000, len(gains)))
    low, high = np.quantile(draws.mean(1), [0.025, 0.975])
    assert low > 0, f"tuned {tuned}, scratch {scratch}, gain {low:.4f} to {high:.4f}"
