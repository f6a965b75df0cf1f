"""Random erasing: a rectangle of each picture covered by one colour."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flambeau_vision.augmentation import Augmentation

DRAWS = 5
"""Uniform numbers that `rectangles` reads for a sample: whether, area, proportions, x, y."""

SMALLEST_SHARE = 0.02
# Width over height of a rectangle, relative to the picture's, lies between this and its inverse.
_FLATTEST = 0.3


def rectangles(augmentation: Augmentation, draws: Tensor, size: tuple[int, int]) -> Tensor:
    """(left, top, right, bottom) of what is erased in each sample: int64 ``(batch, 4)`` in pixels.

    Right and bottom are excluded; all four are 0 where nothing is erased.

    Args:
        augmentation: How far.
        draws: Uniform numbers, ``(batch, DRAWS)``.
        size: Height and width of the pictures.

    Source:
        Zhong, Zheng, Kang, Li, Yang, "Random erasing data augmentation" (2017); where a
        rectangle would not fit, they draw again and we make it less flat.
    """
    low, high = min(SMALLEST_SHARE, augmentation.erase), augmentation.erase
    area = low + (high - low) * draws[:, 1]
    ratio = ((2 * draws[:, 2] - 1) * -math.log(_FLATTEST)).exp()
    ratio = torch.minimum(torch.maximum(ratio, area), 1 / area.clamp(min=1e-6))
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1)
    pixels = torch.tensor([size[1], size[0]])
    sides = (sides * pixels).round().clamp(min=1.0)
    start = (draws[:, 3:5] * (pixels - sides + 1)).floor()
    erased = (draws[:, 0] < augmentation.probability) & (high > 0.0)
    return (torch.cat([start, start + sides], dim=1) * erased.unsqueeze(1)).long()


def erase(image: Tensor, places: Tensor, colours: Tensor) -> Tensor:
    """The images with a rectangle each in one colour; the dtype stays.

    Args:
        image: ``(batch, channels, height, width)`` in 0..255.
        places: As `rectangles` gives them.
        colours: ``(batch, channels)`` in 0..255.
    """
    height, width = image.shape[2:]
    left, top, right, bottom = places.to(image.device, non_blocking=True).unsqueeze(2).unbind(1)
    xs = torch.arange(width, device=image.device)
    ys = torch.arange(height, device=image.device)
    across, down = (xs >= left) & (xs < right), (ys >= top) & (ys < bottom)
    covered = (down.unsqueeze(2) & across.unsqueeze(1)).unsqueeze(1)
    colours = colours.to(image.device, image.dtype, non_blocking=True)
    return torch.where(covered, colours.unsqueeze(2).unsqueeze(3), image)
