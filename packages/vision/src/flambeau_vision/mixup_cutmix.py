"""MixUp and CutMix: combine two images, with a soft target of both labels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau import random as keyed
from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau_vision.preprocess import INPUT

PURPOSE = "mixing"
_N_DRAWS = 5  # whether, MixUp or CutMix, share, x, y
_POINTS = 4096  # of the quantile table; interpolating between them errs by less than 1e-3


@dataclass(frozen=True)
class Mixing:
    """How images are mixed with another image of their batch; the plan's value "mixing".

    Attributes:
        mixup: The α of MixUp: both images are averaged with shares from Beta(α, α); 0 switches it
            off, 0.2 to 0.4 is usual.
        cutmix: The α of CutMix: a rectangle is replaced by the same rectangle of the other image,
            and its share of the area is drawn from Beta(α, α); 0 switches it off, 1 is usual.
        probability: Probability that a sample is mixed; if both are on, each is used for half of
            the mixed samples.

    Raises:
        InputError: A value is out of its range.
    """

    mixup: float = 0.0
    cutmix: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        if not (
            0.0 <= self.mixup <= 20.0
            and 0.0 <= self.cutmix <= 20.0
            and self.mixup + self.cutmix > 0.0
            and 0.0 <= self.probability <= 1.0
        ):
            raise InputError(
                f"{self} is out of range: mixup and cutmix 0..20 and not both 0, probability 0..1."
            )

    def as_json(self) -> dict[str, Any]:
        """Return plain values for the plan."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Return the settings that ``as_json`` wrote; missing names get their default.

        Raises:
            InputError: A name is unknown.
        """
        known = cls.__dataclass_fields__
        unknown = [name for name in values if name not in known]
        if unknown:
            raise InputError(
                f"Mixing has no {', '.join(map(repr, unknown))}; it has {', '.join(known)}."
            )
        return cls(**values)


class Mix:
    """A device transform that mixes each image with the next one of its batch.

    Targets become float32 ``(batch, classes)``: the shares of both labels. Each sample has its own
    random numbers; only its partner, the next sample, depends on the composition of the batch.
    Validation batches are not mixed, so metrics use the original labels.

    Args:
        mixing: Strength and probability of MixUp and CutMix.
        n_classes: Number of classes for class-index targets; multi-label targets (0 or 1 per label)
            are mixed without conversion.

    Source:
        Zhang, Cisse, Dauphin, Lopez-Paz, "mixup" (2017); Yun et al., "CutMix" (2019). The papers
        draw one share per batch, this class draws one per sample.
    """

    def __init__(self, mixing: Mixing, n_classes: int) -> None:
        self.mixing = mixing
        self.n_classes = n_classes
        self._mixup = beta_quantiles(mixing.mixup) if mixing.mixup else None
        self._cutmix = beta_quantiles(mixing.cutmix) if mixing.cutmix else None

    def __call__(self, batch: Batch, seed: int) -> Batch:
        """Return the mixed batch; see `flambeau.data.transform.Transform`."""
        if batch.indices is None:
            raise InputError(
                "The batch has no sample indices (Batch.indices), which key the random numbers of "
                "each sample. Set them in the loader."
            )
        draws = keyed.uniform(seed, PURPOSE, batch.epoch, batch.indices, _N_DRAWS)
        image, target = batch.input, batch.target
        mixed = draws[:, 0] < self.mixing.probability
        cut = mixed & (draws[:, 1] < 0.5 if self._mixup is not None else True)
        if self._cutmix is None:
            cut = torch.zeros_like(mixed)
        own = torch.ones(len(image))  # each sample's share of its own image
        if self._mixup is not None:
            own = torch.where(mixed & ~cut, _interpolate(self._mixup, draws[:, 2]), own)
            image = _blend(image, own)
        if self._cutmix is not None:
            height, width = image.shape[2:]
            share = torch.where(cut, _interpolate(self._cutmix, draws[:, 2]), torch.ones(1))
            boxes = cutmix_boxes(1.0 - share, draws[:, 3:5], (height, width))
            image = _paste(image, batch.input, boxes)
            left, top, right, bottom = boxes.unbind(1)
            area = (right - left) * (bottom - top)
            own = torch.where(cut, 1.0 - area / (height * width), own)
        weight = own.to(target.device, non_blocking=True).unsqueeze(1)
        if not target.is_floating_point():
            target = F.one_hot(target.long(), self.n_classes)
        target = target.to(torch.float32)
        if batch.sample_weight is not None:
            # Each part of the loss counts as much as the sample it comes from.
            samples = batch.sample_weight.unsqueeze(1)
            both = weight * samples + (1.0 - weight) * samples.roll(-1, 0)
            weight = weight * samples / both.clamp(min=torch.finfo(both.dtype).tiny)
            # The host does not know the sum of the new weights.
            batch = replace(batch, sample_weight=both.squeeze(1), weight=None)
        target = weight * target + (1.0 - weight) * target.roll(-1, 0)
        return replace(
            batch,
            inputs={**batch.inputs, INPUT: image},
            targets=dict.fromkeys(batch.targets, target),
        )


def _blend(image: Tensor, own: Tensor) -> Tensor:
    weight = own.to(image.device, non_blocking=True).view(-1, 1, 1, 1)
    image = image.to(torch.float32)
    return image * weight + image.roll(-1, 0) * (1.0 - weight)


def _paste(image: Tensor, original: Tensor, boxes: Tensor) -> Tensor:
    """Return the images, each with its rectangle copied from the next original image."""
    height, width = image.shape[2:]
    left, top, right, bottom = boxes.to(image.device, non_blocking=True).unsqueeze(2).unbind(1)
    xs = torch.arange(width, device=image.device)
    ys = torch.arange(height, device=image.device)
    in_columns, in_rows = (xs >= left) & (xs < right), (ys >= top) & (ys < bottom)
    mask = (in_rows.unsqueeze(2) & in_columns.unsqueeze(1)).unsqueeze(1)
    return torch.where(mask, original.roll(-1, 0).to(image.dtype), image)


def cutmix_boxes(area: Tensor, draws: Tensor, size: tuple[int, int]) -> Tensor:
    """Return rectangles (left, top, right, bottom) with the image's aspect ratio: int64 ``(n, 4)``.

    Args:
        area: Share of the image's area, ``(n,)``.
        draws: Uniform random numbers for x and y, ``(n, 2)``.
        size: Height and width of the images.
    """
    pixels = torch.tensor([size[1], size[0]])
    sides = (area.sqrt().unsqueeze(1) * pixels).round()
    start = (draws * (pixels - sides + 1)).floor()
    return torch.cat([start, start + sides], dim=1).long()


def beta_quantiles(alpha: float) -> Tensor:
    """Return quantiles of Beta(α, α) at even steps from 0 to 1: float64 ``(4097,)``.

    For α below 1 the density has a pole at 0, which the substitution ``x ** α`` removes.
    """
    half, power = _POINTS // 2, min(alpha, 1.0)
    u = torch.linspace(0.0, 0.5**power, 8 * _POINTS + 1, dtype=torch.float64)
    density = u ** (alpha / power - 1.0) * (1.0 - u ** (1.0 / power)) ** (alpha - 1.0)
    mass = torch.cumulative_trapezoid(density)
    mass = torch.cat([torch.zeros(1, dtype=torch.float64), 0.5 * mass / mass[-1]])
    wanted = torch.linspace(0.0, 0.5, half + 1, dtype=torch.float64)
    index = torch.searchsorted(mass, wanted, right=True).clamp(1, len(mass) - 1)
    low, high = mass[index - 1], mass[index]
    step = (wanted - low) / (high - low)
    lower = torch.lerp(u[index - 1], u[index], step) ** (1.0 / power)
    return torch.cat([lower, 1.0 - lower[:-1].flip(0)])  # symmetric about one half


def _interpolate(quantiles: Tensor, probability: Tensor) -> Tensor:
    position = probability.double() * _POINTS
    below = position.floor().long().clamp(max=_POINTS - 1)
    return torch.lerp(quantiles[below], quantiles[below + 1], position - below).float()
