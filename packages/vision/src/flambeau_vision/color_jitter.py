"""Change brightness, contrast and saturation, with random factors per sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flambeau_vision.augmentation_settings import Augmentation

N_DRAWS = 6
"""Uniform random numbers that `jitter_factors` reads per sample: (whether, how much) for
brightness, contrast and saturation."""

# The logit of black and white is infinite; clamped this close to 0 and 1, unchanged pixels are
# within 0.03 of 255 levels.
_EPS = 1e-4
# Weights of red, green and blue in a grey (ITU-R BT.601), as in Pillow and torchvision.
_GREY = (0.299, 0.587, 0.114)


def jitter_factors(augmentation: Augmentation, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return (brightness, contrast, saturation) of each sample, float32 ``(batch,)``.

    Brightness is the logit of a uniform grey in ``0.5 ± brightness / 2``; contrast and saturation
    are log-uniform factors between ``1 - value`` and ``1 / (1 - value)``.

    Args:
        augmentation: Strength of each augmentation.
        draws: Uniform random numbers, ``(batch, N_DRAWS)``.
    """

    def draw(first: int, reach: float) -> Tensor:
        return (2 * draws[:, first + 1] - 1) * (draws[:, first] < augmentation.probability) * reach

    brightness = torch.logit(0.5 + draw(0, augmentation.brightness) / 2)
    contrast = draw(2, -math.log1p(-augmentation.contrast)).exp()
    saturation = draw(4, -math.log1p(-augmentation.saturation)).exp()
    return brightness, contrast, saturation


def color_jitter(image: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """Return the images with changed colours: float32 in 0..255, same shape.

    Computed on the logit of the pixel, where mid-grey is 0: saturation scales the distance to the
    grey of the same pixel, contrast multiplies the logit, and brightness is added to it. The final
    sigmoid keeps every value between black and white, so no value is clipped.

    Args:
        image: ``(batch, channels, height, width)`` in 0..255, any dtype.
        brightness: ``(batch,)``; 0 is no change.
        contrast: ``(batch,)``; 1 is no change.
        saturation: ``(batch,)``; 1 is no change. Ignored unless there are 3 channels.

    Source:
        fastai 2 (vision.augment, LightingTfm), which also computes on the logit.
    """
    logits = (image.to(torch.float32) * (1.0 / 255.0)).logit_(_EPS)
    brightness, contrast, saturation = (
        values.to(image.device, non_blocking=True).view(-1, 1, 1, 1)
        for values in (brightness, contrast, saturation)
    )
    if image.shape[1] == 3:
        red, green, blue = logits.unbind(1)
        grey = (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])
        logits = torch.lerp(grey.unsqueeze(1), logits, saturation)
    return logits.mul_(contrast).add_(brightness).sigmoid_().mul_(255.0)
