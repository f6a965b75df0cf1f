"""Random erasing: fill a rectangle of each image with one colour."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from flambeau_vision.augmentation_settings import Augmentation

N_DRAWS = 5
"""Uniform random numbers that `erase_boxes` reads per sample: whether to erase, area, aspect ratio,
x, y."""

MIN_SHARE = 0.02
# The aspect ratio of a rectangle, relative to the image's, lies between this and its inverse.
_MIN_ASPECT = 0.3


def erase_boxes(augmentation: Augmentation, draws: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (left, top, right, bottom) to erase in each sample: int64 ``(batch, 4)`` in pixels.

    Right and bottom are excluded; all four are 0 if the sample is not erased.

    Args:
        augmentation: Strength of each augmentation.
        draws: Uniform random numbers, ``(batch, N_DRAWS)``.
        size: Height and width of the images.

    Source:
        Zhong, Zheng, Kang, Li, Yang, "Random erasing data augmentation" (2017). If a rectangle does
        not fit, the paper draws again; this function limits its aspect ratio.
    """
    low, high = min(MIN_SHARE, augmentation.erase), augmentation.erase
    area = low + (high - low) * draws[:, 1]
    ratio = ((2 * draws[:, 2] - 1) * -math.log(_MIN_ASPECT)).exp()
    ratio = torch.minimum(torch.maximum(ratio, area), 1 / area.clamp(min=1e-6))
    sides = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], dim=1)
    pixels = torch.tensor([size[1], size[0]])
    sides = (sides * pixels).round().clamp(min=1.0)
    start = (draws[:, 3:5] * (pixels - sides + 1)).floor()
    erased = (draws[:, 0] < augmentation.probability) & (high > 0.0)
    return (torch.cat([start, start + sides], dim=1) * erased.unsqueeze(1)).long()


def erase(image: Tensor, boxes: Tensor, fill: Tensor) -> Tensor:
    """Return the images with one rectangle in each image filled with one colour; keep the dtype.

    Args:
        image: ``(batch, channels, height, width)`` in 0..255.
        boxes: As `erase_boxes` returns them.
        fill: Colours, ``(batch, channels)`` in 0..255.
    """
    height, width = image.shape[2:]
    left, top, right, bottom = boxes.to(image.device, non_blocking=True).unsqueeze(2).unbind(1)
    xs = torch.arange(width, device=image.device)
    ys = torch.arange(height, device=image.device)
    in_columns, in_rows = (xs >= left) & (xs < right), (ys >= top) & (ys < bottom)
    mask = (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1)
    fill = fill.to(image.device, image.dtype, non_blocking=True)
    return torch.where(mask, fill.unsqueeze(2).unsqueeze(3), image)
