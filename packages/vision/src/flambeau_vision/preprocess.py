"""``ImagePreprocessor``: items to uint8 batches, and the normalisation on the device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.errors import InputError
from flambeau_vision.resize import Geometry, Interpolation, Resize, load_all

INPUT = "image"
"""The name of the only input of every image batch."""

MemoryFormat = Literal["contiguous_format", "channels_last"]

# Rows per step of `statistics`: the int32 copy of a chunk stays within the cache's reach.
_CHUNK_BYTES = 1 << 22
# What a constant channel is divided by: it carries nothing, and 0 would make it NaN.
_SMALLEST_STD = 1.0 / 255.0


class ImagePreprocessor:
    """The one path of a picture into the model, in training, validation and prediction.

    ``encode`` decodes and resizes to uint8; ``on_device`` makes ``(x / 255 - mean) / std`` of it.
    Train pictures that were read larger and not augmented come to the final size there.
    Plain data: every argument is a JSON value.

    Args:
        size: Height and width in pixels.
        channels: Channels of the model's input.
        mean: One number a channel, for pixels in 0..1.
        std: One number a channel, for pixels in 0..1.
        resize: "crop", "squash" or "pad"; see `Geometry`.
        crop: Share of the short side that "crop" keeps.
        interpolation: Pillow's filter.
        memory_format: How the float batch lies in memory; "channels_last" is what convolutions
            on most devices like.

    Raises:
        InputError: mean or std have another length than ``channels``, or std is not above 0.

    Example:
        >>> prepare = ImagePreprocessor(size=8, channels=1, mean=[0.5], std=[0.25])
        >>> batch = prepare.encode([torch.full((8, 8), 255, dtype=torch.uint8)])
        >>> batch.input.shape, prepare.on_device(batch).input.max()
        (torch.Size([1, 1, 8, 8]), tensor(2.))
    """

    builder = "image_preprocessor"

    def __init__(
        self,
        *,
        size: int,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        resize: Resize = "crop",
        crop: float = 1.0,
        interpolation: Interpolation = "bilinear",
        memory_format: MemoryFormat = "contiguous_format",
    ) -> None:
        self.geometry = Geometry(size, channels, resize, crop, interpolation)
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        if len(self.mean) != channels or len(self.std) != channels:
            raise InputError(
                f"The images have {channels} channels, but mean has {len(self.mean)} numbers and "
                f"std has {len(self.std)}. Give one number a channel."
            )
        if min(self.std) <= 0.0:
            raise InputError(f"std has to be above 0 in every channel, not {list(self.std)}.")
        if memory_format not in ("contiguous_format", "channels_last"):
            raise InputError(
                f"memory_format={memory_format!r} is neither 'contiguous_format' nor "
                "'channels_last'."
            )
        self.memory_format: MemoryFormat = memory_format
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}

    def encode(self, items: Sequence[Any]) -> Batch:
        """uint8 ``(n, channels, size, size)`` in the input "image", without targets.

        Args:
            items: Paths, bytes, Pillow images, arrays or tensors; see `flambeau_vision.decode`.

        Raises:
            InputError: An item cannot be read; the message names it.
        """
        return Batch({INPUT: load_all(items, self.geometry)}, weight=float(len(items)))

    def on_device(self, batch: Batch) -> Batch:
        """The batch normalised to float32; pixels may be uint8, or floats in 0..255."""
        scale, shift = self._constants_on(batch.input.device)
        layout = (
            torch.channels_last
            if self.memory_format == "channels_last"
            else torch.contiguous_format
        )
        # (x/255 - mean)/std folded to x*scale + shift: two passes, 38 µs for 256 images of 28×28
        # on one core, where three operations out of place take 120 µs.
        pixels = batch.input
        if pixels.shape[2] != self.geometry.size:
            pixels = final_view(pixels, self.geometry)
        if pixels.dtype == torch.float32 and pixels.is_contiguous(memory_format=layout):
            image = pixels * scale
        else:
            image = pixels.to(torch.float32, memory_format=layout).mul_(scale)
        # Assigned by name so that whatever else a batch carries stays.
        return Batch(
            inputs={INPUT: image.add_(shift)},
            targets=batch.targets,
            masks=batch.masks,
            weight=batch.weight,
            lr_scale=batch.lr_scale,
            indices=batch.indices,
            epoch=batch.epoch,
        )

    def arguments(self) -> Mapping[str, Any]:
        """JSON values that rebuild it."""
        geometry = self.geometry
        return {
            "size": geometry.size,
            "channels": geometry.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": geometry.resize,
            "crop": geometry.crop,
            "interpolation": geometry.interpolation,
            "memory_format": self.memory_format,
        }

    def tensors(self) -> Mapping[str, Tensor]:
        """None: its arguments are all there is."""
        return {}

    def _constants_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        constants = self._constants.get(device)
        if constants is None:
            mean = torch.tensor(self.mean, dtype=torch.float64).view(1, -1, 1, 1)
            std = torch.tensor(self.std, dtype=torch.float64).view(1, -1, 1, 1)
            # Folded in float64 and rounded once.
            scale, shift = (1.0 / (255.0 * std)).float(), (-mean / std).float()
            constants = self._constants[device] = scale.to(device), shift.to(device)
        return constants


def seen_share(geometry: Geometry) -> float:
    """Share of a presized picture's side that validation sees at ``geometry``."""
    return geometry.crop if geometry.resize == "crop" else 1.0


def final_view(pixels: Tensor, geometry: Geometry) -> Tensor:
    """Presized pictures as validation would see them: float32 ``(n, channels, size, size)``.

    For scores on train, where nothing is augmented. Within a few of 255 levels of the picture that
    was read at the final size.

    Args:
        pixels: ``(n, channels, side, side)`` in 0..255.
        geometry: What the network takes.
    """
    side = pixels.shape[3]
    inner = round(side * seen_share(geometry))
    first = (side - inner) // 2
    middle = pixels[:, :, first : first + inner, first : first + inner].to(torch.float32)
    size = (geometry.size, geometry.size)
    return F.interpolate(middle, size, mode="bilinear", antialias=True).clamp_(0.0, 255.0)


def statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Mean and standard deviation a channel, for pixels in 0..1.

    Args:
        images: uint8 ``(n, channels, height, width)``.

    Returns:
        (mean, std), one number a channel. Sums of integers, so exact whatever the number of
        images; a constant channel gets the std of one level, 1/255.

    Raises:
        InputError: The images are not uint8, or there are none.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.numel() == 0:
        raise InputError(
            "Statistics are taken over uint8 images (n, channels, height, width), not over "
            f"{images.dtype} of shape {tuple(images.shape)}."
        )
    rows = max(1, _CHUNK_BYTES // images[0].numel())
    total = torch.zeros(images.shape[1], dtype=torch.int64)
    squares = torch.zeros_like(total)
    for chunk in images.split(rows):
        values = chunk.to(torch.int32)
        total += values.sum(dim=(0, 2, 3), dtype=torch.int64)
        squares += values.square_().sum(dim=(0, 2, 3), dtype=torch.int64)
    count = images.numel() // images.shape[1]
    mean = total.double() / count
    variance = (squares.double() / count - mean.square()).clamp_(min=0.0)
    std = (variance.sqrt() / 255.0).clamp_(min=_SMALLEST_STD)
    return (mean / 255.0).tolist(), std.tolist()
