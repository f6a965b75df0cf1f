"""Vision and translation train to the same weights without any one private name of torch.

``tests/core/test_torch_internals.py`` is the same for tensors.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flambeau import EMA, Learner, TrainingOptions
from flambeau_text.translation.demo import dates_data
from flambeau_vision import ImageData

STEPS = 20
TRAINING = TrainingOptions(clip_norm=0.1, average=EMA(0.9), doctor=False)
CHOICES: dict[str, Any] = {
    "device": "cpu", "num_threads": 1, "precision": "fp32", "probe": "off",
}  # fmt: skip


class InDouble(nn.Module):
    """A small network that computes in float64 from images in float32."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
            nn.Linear(4 * 7 * 7, 2),
        ).double()  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images.double())


def images_learner(optimizer: str) -> Learner:
    images = np.random.default_rng(0).integers(0, 256, (100, 16, 16, 3), dtype=np.uint8)
    data = ImageData.from_arrays(images, ["dark", "light"] * 50)
    choices = {**CHOICES, "batch_size": 8, "optimizer": optimizer, "epochs": 2}
    return Learner(data, InDouble(), choices=choices, training=TRAINING, quiet=True)


def translation_learner(optimizer: str) -> Learner:
    size = {"embedding_dim": 8, "hidden_size": 8, "dropout": 0.0}
    choices = {**CHOICES, "batch_size": 4, "model_config": size, "optimizer": optimizer}
    learner = Learner(dates_data(38, 0), choices=choices, training=TRAINING, quiet=True)
    learner.model.double()
    return learner


LEARNERS = {"images": images_learner, "translation": translation_learner}


@functools.cache
def fit(domain: str, optimizer: str, absent: str = "") -> list[Tensor]:
    """Weights after 20 steps. Another ``absent`` is another entry of the cache."""
    torch.manual_seed(0)
    learner = LEARNERS[domain](optimizer)
    learner.fit(2, lr=1e-2)
    assert len(learner.history.step_losses) == STEPS
    return [value.detach() for value in learner.model.parameters()]


@pytest.mark.parametrize("domain", LEARNERS)
def test_without_a_name_training_gives_the_same_weights(
    domain: str, private_name: str, optimizer: str, report_absent: Any
) -> None:
    expected = fit(domain, optimizer)
    assert all(value.dtype is torch.float64 for value in expected)
    calls = report_absent(private_name)
    for value, wanted in zip(fit(domain, optimizer, private_name), expected, strict=True):
        # Only the order of sums may differ.
        torch.testing.assert_close(value, wanted, rtol=1e-6, atol=1e-12)
    # torch makes the first step of every optimizer, so one replacement may have 19 calls.
    assert len(calls) >= STEPS - 1
