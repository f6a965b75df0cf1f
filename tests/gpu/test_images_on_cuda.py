"""Images on a CUDA device: augmentation and mixing as on the CPU, and nets that learn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from flambeau import Learner
from flambeau.data.batch import Batch
from flambeau_vision import ImageData
from flambeau_vision.augment import Augment
from flambeau_vision.augmentation_settings import Augmentation
from flambeau_vision.mixup_cutmix import Mix, Mixing

pytestmark = pytest.mark.gpu

EVERYTHING = Augmentation(warp=0.2, brightness=0.2, contrast=0.2, saturation=0.3, erase=0.33)


def smooth(n: int, size: int) -> Tensor:
    """Pictures in 0..255 without hard edges, where a sampled position hardly matters."""
    coarse = torch.rand(n, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    return 255 * torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 1)


def batch_of(images: Tensor, device: torch.device) -> Batch:
    n = len(images)
    return Batch(
        {"image": images.to(device)},
        {"target": (torch.arange(n) % 3).to(device)},
        indices=torch.arange(n),
        epoch=1,
    )


def stripes(n: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Grey pictures with stripes in one of two directions."""
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, n)
    pictures = random.integers(0, 100, (n, 24, 24), dtype=np.uint8)
    for picture, label in zip(pictures, labels, strict=True):
        (picture if label else picture.T)[:: random.integers(2, 5)] += 120
    return pictures, labels


@pytest.mark.parametrize("size", [None, 20])
def test_augmentation_equals_that_on_the_cpu(cuda: torch.device, size: int | None) -> None:
    images = smooth(32, 28)
    augment = Augment(EVERYTHING, size)
    there = augment(batch_of(images, cuda), seed=5).input
    here = augment(batch_of(images, torch.device("cpu")), seed=5).input
    assert there.device == cuda
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=0.05)  # of 255


@pytest.mark.parametrize("mixing", [Mixing(mixup=0.4), Mixing(cutmix=1.0)])
def test_mixing_equals_that_on_the_cpu(cuda: torch.device, mixing: Mixing) -> None:
    images = smooth(32, 28)
    there = Mix(mixing, 3)(batch_of(images, cuda), seed=5)
    here = Mix(mixing, 3)(batch_of(images, torch.device("cpu")), seed=5)
    torch.testing.assert_close(there.input.cpu(), here.input, rtol=0, atol=0.01)
    torch.testing.assert_close(there.target.cpu(), here.target, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "choices",
    [{}, {"precision": "fp16"}, {"precision": "fp32"}, {"memory_format": "channels_last"}],
    ids=["defaults", "fp16", "fp32", "channels last"],
)
def test_a_model_learns(choices: dict[str, Any]) -> None:
    data = ImageData.from_arrays(*stripes(600), valid=0.2)
    learner = Learner(data, choices=choices, quiet=True)
    history = learner.fit(6)
    assert history.rows[-1]["valid_accuracy"] > 0.95
    for key, value in choices.items():
        assert learner.plan.values[key] == value


def test_a_pretrained_body_is_fine_tuned() -> None:
    """Frozen head phase, then all layers, with the batch-norm policy measured on the device."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    grey, labels = stripes(300)
    data = ImageData.from_arrays(np.stack([grey] * 3, axis=-1), labels, valid=0.2)
    learner = Learner(data, resnet18(num_classes=2), quiet=True)
    history = learner.fine_tune(3)
    assert history.rows[-1]["valid_accuracy"] > 0.8
