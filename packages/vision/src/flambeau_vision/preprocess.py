"""``ImagePreprocessor``: converts raw items to uint8 batches and normalises them on the device."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from flambeau.data.batch import Batch
from flambeau.data.preprocess import Preprocessor
from flambeau.errors import FlambeauWarning, InputError
from flambeau_vision.decode import as_array, channel_counts
from flambeau_vision.float_scale import LEAST_BRIGHT, White, looks_unscaled
from flambeau_vision.image_files import list_images
from flambeau_vision.load_images import load_all
from flambeau_vision.pixel_format import PixelFormat
from flambeau_vision.resize import Geometry, Interpolation, Resize, Size

INPUT = "image"
"""The name of the only input in an image batch."""

MemoryFormat = Literal["contiguous_format", "channels_last"]

# Chunk size of `channel_statistics`: the int32 copy of a chunk fits into the CPU cache.
_CHUNK_BYTES = 1 << 22
# The std of a constant channel: it carries no information, and 0 would turn it into NaN.
_MIN_STD = 1.0 / 255.0


class ImagePreprocessor(Preprocessor):
    """The preprocessing of images, the same for training, validation and prediction.

    ``encode`` decodes and resizes to uint8; ``on_device`` computes ``(x / 255 - mean) / std``.
    ``on_device`` also resizes train images that were presized but not augmented to the final size.
    Every argument is a JSON value.

    Args:
        size: Side in pixels, or (height, width).
        channels: Channels of the model's input.
        mean: One number per channel, for pixels in 0..1.
        std: One number per channel, for pixels in 0..1.
        resize: "crop", "squash" or "pad"; see `Geometry`.
        crop: Share of the short side that "crop" keeps.
        interpolation: Pillow's filter.
        pixels: Bits, value of white and layout of arrays, as in training; also as a JSON object.
        memory_format: Memory format of the float batch; "channels_last" is faster for convolutions
            on most devices.

    Raises:
        InputError: mean or std do not have ``channels`` numbers, or a std is not above 0.

    Example:
        >>> prepare = ImagePreprocessor(size=8, channels=1, mean=[0.5], std=[0.25])
        >>> batch = prepare.encode([torch.full((8, 8), 255, dtype=torch.uint8)])
        >>> batch.input.shape, prepare.on_device(batch).input.max()
        (torch.Size([1, 1, 8, 8]), tensor(2.))
    """

    def __init__(
        self,
        *,
        size: Size,
        channels: int,
        mean: Sequence[float],
        std: Sequence[float],
        resize: Resize = "crop",
        crop: float = 1.0,
        interpolation: Interpolation = "bilinear",
        pixels: PixelFormat | Mapping[str, Any] | None = None,
        memory_format: MemoryFormat = "contiguous_format",
    ) -> None:
        self.pixels = PixelFormat.of(pixels)
        self.geometry = Geometry(
            size, channels, resize, crop, interpolation, self.pixels.bits, self.pixels.white
        )
        self.mean, self.std = tuple(map(float, mean)), tuple(map(float, std))
        if len(self.mean) != channels or len(self.std) != channels:
            raise InputError(
                f"The images have {channels} channels, but mean has {len(self.mean)} numbers and "
                f"std has {len(self.std)}. Give one number per channel."
            )
        if min(self.std) <= 0.0:
            raise InputError(f"std has to be above 0 in every channel, got {list(self.std)}.")
        if memory_format not in ("contiguous_format", "channels_last"):
            raise InputError(
                f"Unknown memory_format={memory_format!r}. Choose 'contiguous_format' or "
                "'channels_last'."
            )
        self.memory_format: MemoryFormat = memory_format
        self._constants: dict[torch.device, tuple[Tensor, Tensor]] = {}

    @property
    def builder(self) -> str:
        """Name of the constructor in exports."""
        return "image_preprocessor"

    def is_single(self, item: Any) -> bool:
        """Return whether ``item`` is one image, not a sequence or array of several images.

        An array of three axes is several grey images if the model was trained on ``(n, H, W)``, or
        if none of its axes can be the channels.

        Raises:
            InputError: Two to four grey images and one image ``(C, H, W)`` have this shape, and the
                model was trained on neither.
        """
        if isinstance(item, str | bytes | bytearray | memoryview | Mapping | os.PathLike):
            return True
        shape = getattr(item, "shape", None)
        if shape is None:  # a list, or a column of a data set
            return not (hasattr(item, "__len__") and hasattr(item, "__getitem__"))
        if len(shape) == 2:
            return True
        if len(shape) != 3:
            return False
        if self.pixels.layout is not None:
            return self.pixels.layout != "HW"
        allowed = channel_counts(self.geometry.channels)
        fits_first, fits_last = shape[0] in allowed, shape[2] in allowed
        if self.geometry.channels == 1 and fits_first and not fits_last and shape[0] > 1:
            raise InputError(
                f"An array of shape {tuple(shape)} is {shape[0]} grey images, or one image of "
                f"{shape[0]} channels, and the training data do not tell which. Pass list(images) "
                "for several images, [image] for one."
            )
        return fits_first or fits_last

    def expand(self, item: Any) -> Sequence[Any] | None:
        """Return the images in a folder; None for anything else."""
        is_folder = isinstance(item, str | os.PathLike) and os.path.isdir(item)
        return list_images(item) if is_folder else None

    def encode(self, items: Sequence[Any]) -> Batch:
        """Return uint8 ``(n, channels, height, width)`` as the input "image", without targets.

        Args:
            items: Paths, bytes, Pillow images, arrays or tensors; see `flambeau_vision.decode`.

        Raises:
            InputError: An item cannot be read, has floats above the value of white in training, or
                has 16-bit values that fit into 8 bits and would be almost black; the message names
                it.
        """
        if self.geometry.bits == 16:
            for index, item in enumerate(items):
                _refuse_eight_bits(index, item)
        _warn_about_unscaled(items, self.pixels.white)
        return Batch({INPUT: load_all(items, self.geometry)}, weight=float(len(items)))

    def on_device(self, batch: Batch) -> Batch:
        """Return the batch normalised to float32; pixels are uint8, or floats in 0..255."""
        scale, shift = self._constants_on(batch.input.device)
        layout = (
            torch.channels_last
            if self.memory_format == "channels_last"
            else torch.contiguous_format
        )
        # (x/255 - mean)/std folded to x*scale + shift: two passes, 38 µs for 256 images of 28×28
        # on one core, where three operations out of place take 120 µs.
        pixels = batch.input
        if pixels.shape[2:] != self.geometry.shape[1:]:
            pixels = resize_presized(pixels, self.geometry)
        if pixels.dtype == torch.float32 and pixels.is_contiguous(memory_format=layout):
            image = pixels * scale
        else:
            image = pixels.to(torch.float32, memory_format=layout).mul_(scale)
        return replace(batch, inputs={INPUT: image.add_(shift)})

    def arguments(self) -> Mapping[str, Any]:
        """Return the JSON values from which the preprocessor is rebuilt."""
        geometry = self.geometry
        return {
            "size": geometry.size if isinstance(geometry.size, int) else list(geometry.size),
            "channels": geometry.channels,
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": geometry.resize,
            "crop": geometry.crop,
            "interpolation": geometry.interpolation,
            "pixels": asdict(self.pixels),
            "memory_format": self.memory_format,
        }

    def _constants_on(self, device: torch.device) -> tuple[Tensor, Tensor]:
        constants = self._constants.get(device)
        if constants is None:
            mean = torch.tensor(self.mean, dtype=torch.float64).view(1, -1, 1, 1)
            std = torch.tensor(self.std, dtype=torch.float64).view(1, -1, 1, 1)
            # Folded in float64 and rounded once.
            scale, shift = (1.0 / (255.0 * std)).float(), (-mean / std).float()
            constants = self._constants[device] = scale.to(device), shift.to(device)
        return constants


def _refuse_eight_bits(index: int, item: Any) -> None:
    """Refuse an array of 16-bit values that all fit into 8 bits."""
    if not hasattr(item, "dtype") or not hasattr(item, "shape"):
        return
    array = as_array(item)
    if array.dtype == np.uint16 and 0 < (high := int(array.max(initial=0))) < 256:
        raise InputError(
            f"Item {index}: has uint16 values up to {high}, which would be read as 16 bits and be "
            "almost black. If they are pixels of 0..255, give uint8: array.astype('uint8'); if the "
            "image is that dark, give floats of 0..1: array / 65535."
        )


def _warn_about_unscaled(items: Sequence[Any], white: White | None) -> None:
    """Warn of floats up to 1 that are read in 0..255: almost black, or scaled in another way."""
    if white != 255:
        return
    arrays = {index: item for index, item in enumerate(items) if hasattr(item, "shape")}
    found = [index for index, item in arrays.items() if looks_unscaled(as_array(item), white)]
    if found:
        warnings.warn(
            f"{len(found):,} of {len(items):,} images (the first: item {found[0]}) have float "
            f"values below {LEAST_BRIGHT:g} only, and are almost black in 0..255, the range of the "
            "train images (white=255). If their values are in 0..1, multiply them by 255.",
            FlambeauWarning,
            stacklevel=2,
        )


def visible_share(geometry: Geometry) -> float:
    """Return the share of a presized image's side that is visible in validation."""
    return geometry.crop if geometry.resize == "crop" else 1.0


def resize_presized(pixels: Tensor, geometry: Geometry) -> Tensor:
    """Crop and resize presized images as for validation: float32 ``(n, channels, height, width)``.

    Used for metrics on the train part, which is not augmented then. The pixels differ by a few of
    255 levels from those of an image that was read at the final size.

    Args:
        pixels: ``(n, channels, side, side)`` in 0..255.
        geometry: Size and crop of the model's input.
    """
    side = pixels.shape[3]
    inner = round(side * visible_share(geometry))
    first = (side - inner) // 2
    centre = pixels[:, :, first : first + inner, first : first + inner].to(torch.float32)
    size = (geometry.height, geometry.width)
    return F.interpolate(centre, size, mode="bilinear", antialias=True).clamp_(0.0, 255.0)


def channel_statistics(images: Tensor) -> tuple[list[float], list[float]]:
    """Return mean and standard deviation of each channel, for pixels in 0..1.

    Args:
        images: uint8 ``(n, channels, height, width)``.

    Returns:
        (mean, std), one number per channel. Computed from integer sums, so exact for any number of
        images; the std of a constant channel is one level, 1/255.

    Raises:
        InputError: The images are not uint8, or there are none.
    """
    if images.dtype != torch.uint8 or images.ndim != 4 or images.numel() == 0:
        raise InputError(
            "Channel statistics need uint8 images (n, channels, height, width), got "
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
    std = (variance.sqrt() / 255.0).clamp_(min=_MIN_STD)
    return (mean / 255.0).tolist(), std.tolist()
