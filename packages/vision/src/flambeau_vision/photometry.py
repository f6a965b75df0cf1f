"""Changing the colours of pixels: brightness, contrast and saturation, a draw a sample."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flambeau_vision.augmentation import Augmentation

DRAWS = 6
"""Uniform numbers that `lighting` reads for a sample: (whether, how much) for brightness, contrast
and saturation."""

# Black and white are infinitely far from grey; held this near to 0 and 1 they stay within 0.03 of
# 255 levels where nothing is changed.
_EPS = 1e-4
# Share of red, green and blue in a grey (ITU-R BT.601), as Pillow and torchvision take it.
_GREY = (0.299, 0.587, 0.114)


def lighting(augmentation: Augmentation, draws: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(brightness, contrast, saturation) of each sample for `relight`, float32 ``(batch,)``.

    Brightness is the logit of a uniform grey in ``0.5 ± brightness / 2``; contrast and saturation
    are factors whose logarithm is uniform between those of ``1 - value`` and ``1 / (1 - value)``.

    Args:
        augmentation: How far.
        draws: Uniform numbers, ``(batch, DRAWS)``.
    """

    def drawn(first: int, reach: float) -> Tensor:
        return (2 * draws[:, first + 1] - 1) * (draws[:, first] < augmentation.probability) * reach

    brightness = torch.logit(0.5 + drawn(0, augmentation.brightness) / 2)
    contrast = drawn(2, -math.log1p(-augmentation.contrast)).exp()
    saturation = drawn(4, -math.log1p(-augmentation.saturation)).exp()
    return brightness, contrast, saturation


def relight(image: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor) -> Tensor:
    """The images with other light: float32 in 0..255, the shape stays.

    Computed on the logit of the pixel, where mid-grey is 0: saturation scales the distance to the
    grey of the same pixel, contrast multiplies, brightness is added. The way back through the
    sigmoid keeps every value between black and white, so nothing is cut off.

    Args:
        image: ``(batch, channels, height, width)`` in 0..255, any dtype.
        brightness: ``(batch,)``; 0 changes nothing.
        contrast: ``(batch,)``; 1 changes nothing.
        saturation: ``(batch,)``; 1 changes nothing, and nothing is changed but with 3 channels.

    Source:
        fastai 2 (vision.augment, LightingTfm), which works in the same space.
    """
    light = (image.to(torch.float32) * (1.0 / 255.0)).logit_(_EPS)
    brightness, contrast, saturation = (
        values.to(image.device, non_blocking=True).view(-1, 1, 1, 1)
        for values in (brightness, contrast, saturation)
    )
    if image.shape[1] == 3:
        red, green, blue = light.unbind(1)
        grey = (red * _GREY[0]).add_(green, alpha=_GREY[1]).add_(blue, alpha=_GREY[2])
        light = torch.lerp(grey.unsqueeze(1), light, saturation)
    return light.mul_(contrast).add_(brightness).sigmoid_().mul_(255.0)
