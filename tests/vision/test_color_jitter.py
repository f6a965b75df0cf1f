import numpy as np
import pytest
import torch

from flambeau import random as keyed
from flambeau_vision.augmentation_settings import Augmentation
from flambeau_vision.color_jitter import N_DRAWS, color_jitter, jitter_factors


def reference(
    image: np.ndarray, brightness: float, contrast: float, saturation: float
) -> np.ndarray:
    """Return one image ``(channels, H, W)`` in 0..255, computed in float64."""
    x = np.clip(image.astype(np.float64) / 255, 1e-4, 1 - 1e-4)
    logits = np.log(x / (1 - x))
    if len(logits) == 3:
        grey = 0.299 * logits[0] + 0.587 * logits[1] + 0.114 * logits[2]
        logits = grey + saturation * (logits - grey)
    return 255 / (1 + np.exp(-(contrast * logits + brightness)))


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_colour_changes_match_the_formula(channels: int, dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (6, channels, 9, 7)).to(dtype)
    images[0], images[1] = 0, 255
    kept = images.clone()
    factors = jitter_factors(
        Augmentation(brightness=0.4, contrast=0.3, saturation=0.5, probability=1.0),
        keyed.uniform(0, "test", 0, torch.arange(6), N_DRAWS),
    )
    given = color_jitter(images, *factors)
    for image, result, *own in zip(images, given, *(x.tolist() for x in factors), strict=True):
        # float32 against float64, in 255 levels.
        assert np.abs(result.numpy() - reference(image.numpy(), *own)).max() < 0.01
    assert torch.equal(images, kept)
    assert given.min() >= 0
    assert given.max() <= 255


def test_neutral_factors_change_nothing() -> None:
    images = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    one = torch.ones(4)
    # Black and white are clamped by 1e-4 of 255 levels.
    assert (color_jitter(images, torch.zeros(4), one, one) - images).abs().max() < 0.03


def test_factors_are_within_their_ranges() -> None:
    draws = keyed.uniform(0, "test", 0, torch.arange(5000), N_DRAWS)
    chosen = Augmentation(brightness=0.2, contrast=0.2, saturation=0.5, probability=0.75)
    brightness, contrast, saturation = jitter_factors(chosen, draws)
    grey = brightness.sigmoid()
    assert 0.4 <= grey.min() < 0.401
    assert 0.599 < grey.max() <= 0.6 + 1e-6
    for factor, most in ((contrast, 1.25), (saturation, 2.0)):
        assert 1 / most - 1e-6 <= factor.min() < 1 / most + 0.01
        assert most - 0.01 < factor.max() <= most + 1e-5
        assert factor.log().mean().abs() < 0.02
    for values, nothing in ((brightness, 0.0), (contrast, 1.0), (saturation, 1.0)):
        assert 0.72 < (values != nothing).float().mean() < 0.78
    off = jitter_factors(Augmentation(contrast=0.2), draws)
    assert torch.equal(off[1], contrast)
    assert not off[0].any()
    assert (off[2] == 1).all()


def test_brightness_brightens_and_zero_saturation_is_grey() -> None:
    images = torch.randint(1, 255, (2, 3, 8, 8), dtype=torch.uint8)
    one = torch.ones(2)
    assert (color_jitter(images, one * 0.3, one, one) > images).all()
    grey = color_jitter(images, one * 0, one, one * 0)
    assert (grey - grey[:, :1]).abs().max() < 1e-3
